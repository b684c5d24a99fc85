// RMSNorm and LayerNorm of few rows, each split over work-groups.
//
// `sums` leaves, for each of SPLITS parts of a row, the sum of its squares (LayerNorm: the sum of its numbers and the
// squares of their deviations from the part's own mean); `norm` joins them and writes its part of the row. For a decode
// row on a wide device, of which one work-group is a small part.
#ifndef VEC
#define VEC 4      // neighbours of a vector: 1, 2, 4, 8, 16
#endif
#ifndef WG
#define WG 64      // work-items that share a part: 1, 64, 128, 256
#endif
#ifndef SPLITS
#define SPLITS 4   // parts of a row: 2, 4, 8, 16
#endif
#define LANES WG
#define SUBGROUPS 0

#include "norm.clh"
#include "reduce.clh"

// Parts are whole rounds of the work-group's vectors: part i begins at column i * part_columns(N), and the last ones may
// be short or empty. Numbers past the last whole round are taken singly.
#define ROUND (WG * VEC)
INLINE int part_columns(int N) { return ((N + ROUND - 1) / ROUND + SPLITS - 1) / SPLITS * ROUND; }

#define FOR_WHOLE for (int n = begin + lane * VEC; n < whole; n += ROUND)
#define FOR_REST for (int n = whole + lane; n < end; n += WG)

// partial is [M][SPLITS][2].
__kernel __attribute__((reqd_work_group_size(WG, 1, 1)))
void sums(SOURCE_PARAM, __global float *partial, int M, int N) {
  JOIN_SCRATCH(scratch);
  const int m = (int)get_global_id(1), part = (int)get_group_id(0), lane = (int)get_local_id(0);
  const int begin = min(N, part * part_columns(N)), end = min(N, begin + part_columns(N));
  const int whole = end - (end - begin) % ROUND;
  const size_t at = (size_t)m * N;
  floatV sum_v = (floatV)(0.0f);
  float rest = 0.0f;
  FOR_WHOLE {
    const floatV s = widen(take(SOURCE_ARG, at + n));
    sum_v += FIRST_TERM(s);
  }
  FOR_REST {
    const float s = take_one(SOURCE_ARG, at + n);
    rest += FIRST_TERM(s);
  }
  float total = TEAM_SUM(lane_sum(sum_v) + rest, scratch), squares = 0.0f;
#if LAYER
  const int count = max(1, end - begin);
  const float mean = total / count;
  floatV squares_v = (floatV)(0.0f), plain_v = (floatV)(0.0f);
  float plain_rest = rest = 0.0f;
  FOR_WHOLE {
    const floatV d = widen(LOAD_ACTS(STORED + at + n)) - mean;
    squares_v += d * d;
    plain_v += d;
  }
  FOR_REST {
    const float d = load_act(STORED + at + n) - mean;
    rest += d * d;
    plain_rest += d;
  }
  const float away = TEAM_SUM(lane_sum(plain_v) + plain_rest, scratch);
  squares = TEAM_SUM(lane_sum(squares_v) + rest, scratch) - away * away / count;
  total = mean * count + away;
#endif
  if (lane == 0) {
    partial[(m * SPLITS + part) * 2] = total;
    partial[(m * SPLITS + part) * 2 + 1] = squares;
  }
}

__kernel __attribute__((reqd_work_group_size(WG, 1, 1)))
void norm(STORED_PARAM, GAIN_PARAM, __global const float *partial, __global out *y, int M, int N) {
  const int m = (int)get_global_id(1), part = (int)get_group_id(0), lane = (int)get_local_id(0);
  const int columns = part_columns(N), begin = min(N, part * columns), end = min(N, begin + columns);
  const int whole = end - (end - begin) % ROUND;
  const size_t at = (size_t)m * N;
  __global const float *mine = partial + m * SPLITS * 2;
  float mean = 0.0f, square = 0.0f;
#pragma unroll
  for (int i = 0; i < SPLITS; i++) square += mine[2 * i];
  square /= N;
#if LAYER
  mean = square;
  square = 0.0f;
#pragma unroll
  for (int i = 0; i < SPLITS; i++) {
    const int count = max(0, min(columns, N - i * columns));
    const float away = count > 0 ? mine[2 * i] / count - mean : 0.0f;
    square += mine[2 * i + 1] + count * away * away;
  }
  square = max(0.0f, square) / N;
#endif
  const float scale = inverse_root(square);
  FOR_WHOLE put(normed(widen(LOAD_ACTS(STORED + at + n)), GAIN_ARG, n, mean, scale), y + at + n, 0.0f);
  FOR_REST put_one(normed_one(load_act(STORED + at + n), GAIN_ARG, n, mean, scale), y + at + n, 0.0f);
}
