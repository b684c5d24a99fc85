// y = epilogue(x * w^T), weights through the texture cache and, with XIMAGE, the activations too. For Adreno, where
// image reads have about twice a buffer's bandwidth.
//
// The packed weights are a 2D image of RGBA uint32 texels, four outputs each: row n / P, column
// (k / CODES) * (P / 4) + n % P / 4. The activations are arranged by an earlier launch as texels of four inputs: column
// m, row k / 4, tokens padded to a pitch that every known device takes.
#ifndef XIMAGE
#define XIMAGE 1   // activations: 1 by an image of their own, 0 from the buffer as they are stored
#endif
#define WEIGHTS_IMAGE
#include "tiles.clh"

#define PITCH 64   // texels

#if XIMAGE
// A work-item per texel; columns past M are left as they are, since no one reads them.
__kernel void arrange(__global const act *x, __global act *xi, int M, int K) {
  const int m = (int)get_global_id(0), k = (int)get_global_id(1) * 4;
  if (m >= M || k >= K) return;
  const size_t to = ((size_t)(k / 4) * ((M + PITCH - 1) / PITCH * PITCH) + m) * 4;
#pragma unroll
  for (int i = 0; i < 4; i++) xi[to + i] = x[(size_t)m * K + k + i];
}
#endif
