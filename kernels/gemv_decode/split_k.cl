// y[m][n] = sum over k of x[m][k] * w[n][k], K split over work-groups.
//
// `gemv` is panel's kernel on one of SPLITS ranges of chunks and leaves float partial sums [SPLITS][M][N]; `reduce`
// adds them. For small N on a wide device, where lanes along outputs alone leave most of it idle.
#ifndef BLOCKS
#define BLOCKS 1   // blocks of VEC outputs of a work-item: 1, 2, 4
#endif
#ifndef WG
#define WG 64      // work-items of a work-group along the outputs
#endif
#ifndef SPLITS
#define SPLITS 4   // ranges of K: 2, 4, 8, 16
#endif

#define PARTIAL_SUMS
#include "outputs.clh"

__kernel __attribute__((reqd_work_group_size(WG, 1, 1)))
void gemv(__global const act *x, W_PARAM, SB_PARAM __global float *partial, int M, int N, int K) {
  const int g = (int)get_global_id(0), G = (int)get_global_size(0);
  const int split = (int)get_global_id(1), m0 = (int)get_global_id(2) * MT;
  const int share = (chunk_count(K) + SPLITS - 1) / SPLITS;
  const int last = min((split + 1) * share, chunk_count(K));
  floatV total[BLOCKS][MT];
  int n[BLOCKS];
#pragma unroll
  for (int b = 0; b < BLOCKS; b++) {
    n[b] = inside((b * G + g) * VEC, N);
#pragma unroll
    for (int m = 0; m < MT; m++) total[b][m] = (floatV)(0.0f);
  }
#if XLOCAL
  __local unit xs[MT * CHUNK_UNITS];
#endif
  for (int c = split * share; c < last; c++) {
#if XLOCAL
    barrier(CLK_LOCAL_MEM_FENCE);
    stage_chunk(x, xs, c, m0, M, K, (int)get_local_id(0), WG);
    barrier(CLK_LOCAL_MEM_FENCE);
    add_chunk(total, xs, w, SB_ARG n, c, m0, M, K);
#else
    add_chunk(total, x, w, SB_ARG n, c, m0, M, K);
#endif
  }
#pragma unroll
  for (int b = 0; b < BLOCKS; b++)
    store_block(total[b], SB_ARG partial + (size_t)split * M * N, (b * G + g) * VEC, m0, M, N);
}

__kernel __attribute__((reqd_work_group_size(WG, 1, 1)))
void reduce(__global const float *partial, __global act *y, int M, int N) {
  const int n = (int)get_global_id(0), m = (int)get_global_id(1);
  if (n >= N) return;
  float sum = 0.0f;
  for (int s = 0; s < SPLITS; s++) sum += partial[((size_t)s * M + m) * N + n];
  store_act(sum, y + (size_t)m * N + n);
}
