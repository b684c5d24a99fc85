// o = softmax(scale * q * k^T) * v for many queries: BLOCK_M rows in a work-group, K and V in local memory.
//
// A row is one query of one of HEADS heads that share a kv head; N_SPLIT work-items share a row, each with its part of
// q and of the output in registers. Neighbouring work-items are neighbouring rows of the same part, so that they read
// the same numbers of K and V. BLOCK_N keys are staged at a time, codes as codes; scores pass through local memory.
#ifndef HEADS
#define HEADS 1    // heads of one kv head that share its reading: divides H / G
#endif
#ifndef BLOCK_M
#define BLOCK_M 64 // rows of a work-group
#endif
#ifndef BLOCK_N
#define BLOCK_N 32 // keys staged at a time
#endif
#ifndef N_SPLIT
#define N_SPLIT 2  // work-items that share a row: each has HEAD_DIM / N_SPLIT of its dims
#endif
#define VEC 4

#include "scalar.clh"

#define WG (BLOCK_M * N_SPLIT)
#define QUERIES (BLOCK_M / HEADS)
#define SLOTS (HEAD_DIM / N_SPLIT)

// Halves hold every code and every fp16 value exactly.
#ifdef cl_khr_fp16
typedef half staged_t;
#else
typedef float staged_t;
#endif

// n keys from j0 on, global -> local [BLOCK_N][HEAD_DIM] by slot, zeros beyond them.
INLINE void stage(const int layout, __global const cached *from, __local staged_t *to, int j0, int n, int g, int S,
                  int G) {
  const int item = (int)get_local_id(0);
  if (layout < 2) {
    for (int i = item; i < BLOCK_N * (ROW_UNITS / 4); i += WG) {
      const int c = i / (ROW_UNITS / 4), unit = i % (ROW_UNITS / 4) * 4;
      floatV x[PLANES];
      units_values(from + cache_row(layout, j0 + min(c, n - 1), g, S, G) + unit, x);
#pragma unroll
      for (int e = 0; e < PLANES; e++) {
        __local staged_t *at = to + c * HEAD_DIM + e * ROW_UNITS + unit;
        const floatV kept = c < n ? x[e] : (floatV)(0.0f);
        at[0] = (staged_t)kept.s0;
        at[1] = (staged_t)kept.s1;
        at[2] = (staged_t)kept.s2;
        at[3] = (staged_t)kept.s3;
      }
    }
  } else {
    for (int i = item; i < BLOCK_N * ROW_UNITS; i += WG) {
      const int c = i % BLOCK_N, unit = i / BLOCK_N;
      float x[PLANES];
      unit_values(from + cache_row(layout, j0 + min(c, n - 1), g, S, G) + (size_t)unit * layout, x);
#pragma unroll
      for (int e = 0; e < PLANES; e++)
        to[c * HEAD_DIM + e * ROW_UNITS + unit] = c < n ? (staged_t)x[e] : (staged_t)0.0f;
    }
  }
}

__kernel __attribute__((reqd_work_group_size(WG, 1, 1)))
void attend(__global const act *q, CACHE_PARAMS VALID_PARAM __global act *o, int M, int T, int H, int G, int S) {
  __local staged_t kt[BLOCK_N * HEAD_DIM], vt[BLOCK_N * HEAD_DIM];
  __local float scores[N_SPLIT * BLOCK_N * BLOCK_M];
  const int row = (int)get_local_id(0) % BLOCK_M, part = (int)get_local_id(0) / BLOCK_M;
  // The last tiles see most keys and go first, so that none of them is left alone at the end.
  const int m0 = (int)(get_num_groups(0) - 1 - get_group_id(0)) * QUERIES, h0 = (int)get_group_id(1) * HEADS;
  const int g = h0 / (H / G), m = min(m0 + min(row / HEADS, QUERIES - 1), M - 1);
  const int first = T - M + m0, last = T - M + min(m0 + QUERIES, M) - 1, position = T - M + m;
  const size_t at = ((size_t)m * H + h0 + row % HEADS) * HEAD_DIM;

  prod x[SLOTS];
  float y[SLOTS], top = LOWEST, sum = 0.0f;
#pragma unroll
  for (int i = 0; i < SLOTS; i++) {
    x[i] = (prod)load_q(q + at + dim_of(part * SLOTS + i));
    y[i] = 0.0f;
  }
#if PLANES == 2
  float q_sum = 0.0f, v_bias = 0.0f;
  for (int i = 0; i < HEAD_DIM; i++) q_sum += (float)(prod)load_q(q + at + i);
#endif

  const int end = end_key(last, T);
  for (int j0 = first_key(first) / BLOCK_N * BLOCK_N; j0 < end; j0 += BLOCK_N) {
    const int n = min(BLOCK_N, end - j0);
    barrier(CLK_LOCAL_MEM_FENCE);
    stage(KL, k, kt, j0, n, g, S, G);
    stage(VL, v, vt, j0, n, g, S, G);
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int c = 0; c < BLOCK_N; c++) {
      float s = 0.0f;
#pragma unroll
      for (int i = 0; i < SLOTS; i += 4) {
        prod t = (prod)0.0f;
#pragma unroll
        for (int u = 0; u < 4; u++) t = x[i + u] * (prod)kt[c * HEAD_DIM + part * SLOTS + i + u] + t;
        s += (float)t;
      }
      scores[(part * BLOCK_N + c) * BLOCK_M + row] = s;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    // The work-items of a row share its keys out.
    for (int c = part; c < BLOCK_N; c += N_SPLIT) {
      const int j = j0 + min(c, n - 1);
      float s = scores[c * BLOCK_M + row];
      for (int i = 1; i < N_SPLIT; i++) s += scores[(i * BLOCK_N + c) * BLOCK_M + row];
#if CACHE
      const cache_scales bits = ks[cache_scale_at(KL, j, g, S, G)];
      s *= cache_scale_of(bits);
#endif
#if CACHE == 2
      s += q_sum * cache_bias_of(bits);
#endif
      int there = c < n && sees(position, j);
#if PADDING
      there = there && valid[j];
#endif
      scores[c * BLOCK_M + row] = there ? cap(s) : HIDDEN;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    float highest = top;
    for (int c = 0; c < BLOCK_N; c++) highest = max(highest, scores[c * BLOCK_M + row]);
    const float shrink = native_exp2(top - highest);
    top = highest;
    sum *= shrink;
#if PLANES == 2
    v_bias *= shrink;
#endif
#pragma unroll
    for (int i = 0; i < SLOTS; i++) y[i] *= shrink;
    for (int c = 0; c < BLOCK_N; c += 4) {
      prod w[4];
#pragma unroll
      for (int u = 0; u < 4; u++) {
        float p = native_exp2(scores[(c + u) * BLOCK_M + row] - highest);
        sum += p;
#if CACHE
        const cache_scales bits = vs[cache_scale_at(VL, j0 + min(c + u, n - 1), g, S, G)];
#endif
#if CACHE == 2
        v_bias += p * cache_bias_of(bits);
#endif
#if CACHE
        p *= cache_scale_of(bits);
#endif
        w[u] = (prod)p;
      }
#pragma unroll
      for (int i = 0; i < SLOTS; i++) {
        prod t = (prod)0.0f;
#pragma unroll
        for (int u = 0; u < 4; u++) t = w[u] * (prod)vt[(c + u) * HEAD_DIM + part * SLOTS + i] + t;
        y[i] += (float)t;
      }
    }
  }

  const float factor = top > LOWEST ? 1.0f / sum : 0.0f;
  if (row / HEADS < QUERIES && m0 + row / HEADS < M)
#pragma unroll
    for (int i = 0; i < SLOTS; i++) {
#if PLANES == 2
      y[i] += v_bias;
#endif
      store_act(y[i] * factor, o + at + dim_of(part * SLOTS + i));
    }
}
