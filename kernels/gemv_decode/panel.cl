// y[m][n] = sum over k of x[m][k] * w[n][k], lanes along outputs, all of K in one work-item.
//
// Block b of work-item g starts at output (b * global size + g) * VEC, so that neighbouring work-items read neighbouring
// words in every block. For CPUs: VEC = P = 16 and a chunk of x converted once for several blocks. For Adreno: VEC 1 to
// 4, P of 64 or more, one coalesced load per wave. Right at every work-group size.
#ifndef BLOCKS
#define BLOCKS 2   // blocks of VEC outputs of a work-item: 1, 2, 4, 8
#endif
#ifndef PREFETCH
#define PREFETCH 0 // words along K that a CPU fetches ahead: 0 (none), 64
#endif
#ifndef WG
#define WG 1       // work-items of a work-group along the outputs
#endif

#include "outputs.clh"

__kernel __attribute__((work_group_size_hint(WG, 1, 1)))
void gemv(__global const act *x, W_PARAM, SB_PARAM __global act *y, int M, int N, int K) {
  const int g = (int)get_global_id(0), G = (int)get_global_size(0);
  const int m0 = (int)get_global_id(1) * MT;
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
  for (int c = 0; c < chunk_count(K); c++) {
#if XLOCAL
    barrier(CLK_LOCAL_MEM_FENCE);
    stage_chunk(x, xs, c, m0, M, K, (int)get_local_id(0), (int)get_local_size(0));
    barrier(CLK_LOCAL_MEM_FENCE);
    add_chunk(total, xs, w, SB_ARG n, c, m0, M, K);
#else
    add_chunk(total, x, w, SB_ARG n, c, m0, M, K);
#endif
  }
#pragma unroll
  for (int b = 0; b < BLOCKS; b++) store_block(total[b], SB_ARG y, (b * G + g) * VEC, m0, M, N);
}
