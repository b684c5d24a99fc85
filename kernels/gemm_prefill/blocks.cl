// y = epilogue(x * w^T) for CPUs: a block of weights is decoded once into the first-level cache and meets many tokens.
//
// arrange   x[m][k] → floats xb[m / (TILES * TM)][k / KB][m % (TILES * TM)][k % KB]: what a work-item reads between two
//           decodings lies together, rows a constant apart, and half is converted once. Rows past M are zero.
// gemm      A work-item owns TILES * TM tokens and COLUMNS * TN * VEC outputs. For each KB of K it goes through the
//           columns: it decodes TN vectors of weights into `block` [KB][TN], then walks over its tiles of tokens, TM * TN
//           sums in registers while it goes along k. Meanwhile the tiles' sums wait in private memory and the KB of x
//           stays in the second-level cache. Of a gated job gate and up are two columns.
#ifndef VEC
#define VEC 16     // outputs of a vector: 8, 16
#endif
#ifndef TM
#define TM 8       // tokens of a register tile: 1, 2, 4, 6, 8, 12
#endif
#ifndef TN
#define TN 2       // vectors of a register tile: 1, 2, 3, 4
#endif
#ifndef TILES
#define TILES 16   // register tiles that share one decoding of the weights: 1 ... 32
#endif
#ifndef COLUMNS
#define COLUMNS 1  // blocks of weights that meet the same KB of x one after the other: 1, 2, 4
#endif
#ifndef KB
#define KB 128     // inputs of a block: a multiple or a divisor of the group
#endif
#ifndef PREFETCH
#define PREFETCH 0 // 1: the next block's words are fetched while this one is used, 0: left to the hardware
#endif
#ifndef P
#define P 16       // outputs side by side in the layout: a multiple of VEC
#endif

#include "types.clh"
#include "weights.clh"
#include "dequant.clh"
#include "tensors.clh"

INLINE int blocks_of(int K) { return (K + KB - 1) / KB; }

// Eight neighbours of x as floats.
INLINE float8 load_eight(__global const act *p) {
#if !ACT_FP16
  return vload8(0, p);
#else
  return widen8(vload8(0, (__global const ushort *)p));
#endif
}

// A work-item per tile of tokens and SPAN of K, K being a multiple of eight.
#define SPAN 2048
__kernel void arrange(__global const act *x, __global float *xb, int M, int K) {
  const int first = (int)get_global_id(0) * (SPAN / KB), t = (int)get_global_id(1);
  for (int b = first; b < min(first + SPAN / KB, blocks_of(K)); b++)
    for (int m = 0; m < TM; m++) {
      __global float *to = xb + (((t / TILES * (size_t)blocks_of(K) + b) * TILES + t % TILES) * TM + m) * KB;
      __global const act *from = x + (size_t)min(t * TM + m, M - 1) * K + b * KB;
      const int count = t * TM + m < M ? min(KB, K - b * KB) : 0;
      for (int k = 0; k < KB; k += 8) vstore8(k < count ? load_eight(from + k) : (float8)(0.0f), 0, to + k);
    }
}

// Inside the padded matrix: vectors past its edge repeat the last one and are not stored.
INLINE int inside(int n, int N) { return min(n, (N + P - 1) / P * P - VEC); }

// Weights k ... k+count-1 of the outputs from n on → block [count][TN].
INLINE void decode_block(floatV *block, __global const uint *w, SB_TYPE sb, int n, int k, int count, int N, int K) {
  for (int v = 0; v < TN; v++) {
    const int at = inside(n + v * VEC, N);
    __global const uint *words = w + ((size_t)(at / P) * (K / CODES) + k / CODES) * P + at % P;
    scaling s;
    for (int i = 0; i < count / CODES; i++) {
      if (i % GROUP_WORDS == 0) s = scaling_at(sb, at, k + i * CODES, K);
      const uintV word = LOAD_V(words + i * P);
#pragma unroll
      for (int j = 0; j < CODES; j++) block[(i * CODES + j) * TN + v] = weights_of(word, j, &s);
    }
  }
}

// Asks for the words of the outputs from n on, inputs k ... k+count-1, a line of 64 bytes at a time: decoding is done in
// bursts, between which the hardware's prefetchers forget the stream (2048 x 16384, M = 128, two Zen 5 cores: 85 → 89 %
// of the multiply-add probe on Intel's runtime, 79 → 88 % on PoCL). The cast takes the address space off, which clang's
// built-in does not know; OpenCL's prefetch() does nothing on Intel's runtime (2026.2).
INLINE void fetch_block(__global const uint *w, int n, int k, int count, int N, int K) {
#if PREFETCH
  for (int v = 0; v < TN; v++) {
    const int at = inside(n + v * VEC, N);
    __global const uint *words = w + ((size_t)(at / P) * (K / CODES) + k / CODES) * P + at % P;
    for (int i = 0; i < count / CODES; i++) __builtin_prefetch((const __private void *)(ulong)(words + i * P));
  }
#endif
}

// One tile of tokens times one block of weights, added to its sums.
INLINE void add_tile(floatV *sums, __global const float *x, const floatV *block, int count) {
  floatV t[TM][TN];
#pragma unroll
  for (int m = 0; m < TM; m++)
#pragma unroll
    for (int v = 0; v < TN; v++) t[m][v] = sums[m * TN + v];
  for (int k = 0; k < count; k++) {
    floatV w[TN];
#pragma unroll
    for (int v = 0; v < TN; v++) w[v] = block[k * TN + v];
#pragma unroll
    for (int m = 0; m < TM; m++)
#pragma unroll
      for (int v = 0; v < TN; v++) t[m][v] = w[v] * x[m * KB + k] + t[m][v];
  }
#pragma unroll
  for (int m = 0; m < TM; m++)
#pragma unroll
    for (int v = 0; v < TN; v++) sums[m * TN + v] = t[m][v];
}

__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void gemm(__global const float *xb, WEIGHTS_PARAM BIAS_PARAM RESIDUAL_PARAM __global act *y, int M, int N, int K) {
  const int n0 = (int)get_global_id(0) * (COLUMNS * TN * VEC), m0 = (int)get_global_id(1) * (TILES * TM);
  const int tiles = min(TILES, (M - m0 + TM - 1) / TM);
  floatV block[KB * TN];
  floatV sums[MATRICES * COLUMNS][TILES * TM * TN];
  for (int i = 0; i < MATRICES * COLUMNS; i++)
    for (int j = 0; j < tiles * TM * TN; j++) sums[i][j] = (floatV)(0.0f);
  xb += (size_t)get_global_id(1) * blocks_of(K) * TILES * TM * KB;
  for (int b = 0; b < blocks_of(K); b++, xb += TILES * TM * KB) {
    const int count = min(KB, K - b * KB);
    for (int i = 0; i < MATRICES * COLUMNS; i++) {
      const int n = n0 + i / MATRICES * (TN * VEC);
      // Where the next block is: of the other matrix, of the next column, or further along K.
      const int last = i == MATRICES * COLUMNS - 1;
      const int next_n = last ? n0 : n0 + (i + 1) / MATRICES * (TN * VEC), next_k = (b + last) * KB;
#if EPILOGUE_GATED
      decode_block(block, i % 2 ? w_up : w, i % 2 ? SCALES(sb_up) : SCALES(sb), n, b * KB, count, N, K);
      fetch_block(i % 2 ? w : w_up, next_n, next_k, min(KB, K - next_k), N, K);
#else
      decode_block(block, w, SCALES(sb), n, b * KB, count, N, K);
      fetch_block(w, next_n, next_k, min(KB, K - next_k), N, K);
#endif
      for (int t = 0; t < tiles; t++) add_tile(sums[i] + t * TM * TN, xb + t * TM * KB, block, count);
    }
  }
  for (int m = 0; m < min(tiles * TM, M - m0); m++)
    for (int i = 0; i < COLUMNS * TN; i++) {
      const int c = i / TN * MATRICES, at = m * TN + i % TN;
      finish(sums[c][at], sums[c + MATRICES - 1][at], BIAS_ARG RESIDUAL_ARG y, m0 + m, n0 + i * VEC, N);
    }
}
