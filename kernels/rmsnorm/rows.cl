// RMSNorm and LayerNorm, whole rows by one work-item in wide vectors.
//
// For CPUs: a row stays in the first-level cache between the passes over it, so that memory sees every tensor once.
// One work-item takes ROWS rows in turn. Right at every work-group size.
#ifndef VEC
#define VEC 16     // neighbours of a vector: 4, 8, 16
#endif
#ifndef UNROLL
#define UNROLL 4   // vectors per turn of the loops along a row, each with a sum of its own: 1, 2, 4, 8
#endif
#ifndef ROWS
#define ROWS 1     // rows of a work-item: 1, 4, 16, 64
#endif
#ifndef WG
#define WG 1       // work-items of a work-group: 1, 4, 16, 64
#endif
#ifndef PREFETCH
#define PREFETCH 0 // 1: the weights are asked for while the first row's first pass runs
#endif

#include "norm.clh"

// Asks for the weights in columns n … end-1: every layer has its own, in memory. See outputs.clh of gemv_decode for the
// built-in. Zen 5, a row of 4096 with residual, fp16: 1.8 to 1.2 us on PoCL, 1.9 to 1.3 on Intel's runtime; asking for
// all of them before the pass 1.5 and 1.7.
INLINE void fetch(GAIN_PARAM, int n, int end) {
#if PREFETCH
  for (; n < end; n += 64 / (int)sizeof(act)) {
    __builtin_prefetch((const __private void *)(ulong)(w + n));
#if LAYER
    __builtin_prefetch((const __private void *)(ulong)(b + n));
#endif
  }
#endif
}

// The sum of FIRST_TERM over the row at `at`, whose sum with the residual is written on the way.
INLINE float first_sum(SOURCE_PARAM, GAIN_PARAM, size_t at, int N) {
  floatV sums[UNROLL];
#pragma unroll
  for (int u = 0; u < UNROLL; u++) sums[u] = (floatV)(0.0f);
  int n = 0;
  for (; n + UNROLL * VEC <= N; n += UNROLL * VEC) {
    fetch(GAIN_ARG, n, n + UNROLL * VEC);
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
      const floatV s = widen(take(SOURCE_ARG, at + n + u * VEC));
      sums[u] += FIRST_TERM(s);
    }
  }
  for (; n + VEC <= N; n += VEC) {
    const floatV s = widen(take(SOURCE_ARG, at + n));
    sums[0] += FIRST_TERM(s);
  }
  float rest = 0.0f;
  for (; n < N; n++) {
    const float s = take_one(SOURCE_ARG, at + n);
    rest += FIRST_TERM(s);
  }
#pragma unroll
  for (int u = 1; u < UNROLL; u++) sums[0] += sums[u];
  return lane_sum(sums[0]) + rest;
}

// The variance of a stored row about *mean, which is made exact.
INLINE float second_sum(__global const act *row, int N, float *mean) {
  floatV squares[UNROLL], plain[UNROLL];
#pragma unroll
  for (int u = 0; u < UNROLL; u++) squares[u] = plain[u] = (floatV)(0.0f);
  int n = 0;
  for (; n + UNROLL * VEC <= N; n += UNROLL * VEC)
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
      const floatV d = widen(LOAD_ACTS(row + n + u * VEC)) - *mean;
      squares[u] += d * d;
      plain[u] += d;
    }
  float rest = 0.0f, plain_rest = 0.0f;
  for (; n < N; n++) {
    const float d = load_act(row + n) - *mean;
    rest += d * d;
    plain_rest += d;
  }
#pragma unroll
  for (int u = 1; u < UNROLL; u++) {
    squares[0] += squares[u];
    plain[0] += plain[u];
  }
  const float away = lane_sum(plain[0]) + plain_rest;
  *mean += away / N;
  return variance(lane_sum(squares[0]) + rest, away, N);
}

__kernel __attribute__((work_group_size_hint(WG, 1, 1)))
void norm(__global const act *x, R_PARAM GAIN_PARAM, SUM_PARAM __global out *y, YS_PARAM int M, int N) {
  const int first = (int)get_global_id(0) * ROWS;
  for (int m = first; m < min(first + ROWS, M); m++) {
    const size_t at = (size_t)m * N;
    float mean = 0.0f, square = first_sum(SOURCE_ARG, GAIN_ARG, at, N) / N;
#if LAYER
    mean = square;
    square = second_sum(STORED + at, N, &mean);
#endif
    const float scale = inverse_root(square);
    float steps = 0.0f;
#if OUT_INT8
    intV most = (intV)(0);
    float largest = 0.0f;
    for (int n = 0; n + VEC <= N; n += VEC)
      most = larger(most, normed(widen(LOAD_ACTS(STORED + at + n)), GAIN_ARG, n, mean, scale));
    for (int n = N - N % VEC; n < N; n++)
      largest = max(largest, fabs(normed_one(load_act(STORED + at + n), GAIN_ARG, n, mean, scale)));
    largest = max(largest, lane_max(most));
    ys[m] = largest / 127.0f;
    steps = steps_of(largest);
#endif
#pragma unroll UNROLL
    for (int n = 0; n + VEC <= N; n += VEC)
      put(normed(widen(LOAD_ACTS(STORED + at + n)), GAIN_ARG, n, mean, scale), y + at + n, steps);
    for (int n = N - N % VEC; n < N; n++)
      put_one(normed_one(load_act(STORED + at + n), GAIN_ARG, n, mean, scale), y + at + n, steps);
  }
}
