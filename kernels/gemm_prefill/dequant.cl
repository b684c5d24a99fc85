// y = epilogue(x * w^T) in two steps: all weights → numbers in scratch, then a product without any decoding. For many
// tokens, where each weight would otherwise be decoded once per tile of them.
//
// dequantise  w → wd: halves in pairs along K [ceil(N/P)][K/2][P] where products are in half, else floats
//             [ceil(N/P)][K][P]. Of a gated job both matrices, one after the other.
#define DEQUANTISED
#include "tiles.clh"

// A work-item per word and VEC outputs; n is inside the padded matrix.
__kernel void dequantise(__global const uint *w, SB_TYPE sb, __global ready *wd, int N, int K) {
  const int n = (int)get_global_id(0) * VEC, i = (int)get_global_id(1);
  if (n >= (N + P - 1) / P * P || i >= K / CODES) return;
  const scaling s = scaling_at(sb, n, i * CODES, K);
  const uintV word = LOAD_V(w + ((size_t)(n / P) * (K / CODES) + i) * P + n % P);
  wd += ((size_t)(n / P) * READY_ROWS(K) + i * READY_ROWS(CODES)) * P + n % P;
  sumV d[UNITS];
#pragma unroll
  for (int j = 0; j < UNITS; j++) d[j] = weights_of(word, j, &s);
#if NATIVE_HALF && FORMAT == 1
  // Units are bytes 0 and 2, 1 and 3.
  const uintV even = AS_UINT_V(d[0]), odd = AS_UINT_V(d[1]);
  STORE_V((even & 0xFFFFu) | (odd << 16), wd);
  STORE_V((even >> 16) | (odd & 0xFFFF0000u), wd + P);
#elif NATIVE_HALF
#pragma unroll
  for (int j = 0; j < UNITS; j++) STORE_V(AS_UINT_V(d[j]), wd + j * P);
#elif COMPUTE_FP16
#pragma unroll
  for (int j = 0; j < CODES / 2; j++) STORE_V(half_words(d[2 * j], d[2 * j + 1]), wd + j * P);
#else
#pragma unroll
  for (int j = 0; j < CODES; j++) STORE_V(d[j], wd + j * P);
#endif
}
