// o = softmax(scale * q * k^T) * v for few queries, on CPUs: one work-item takes a range of keys of one kv head for
// HEADS heads and MT queries, so that those share one reading of K and V; `join` adds the ranges up.
//
// Lanes are whatever the layout has side by side. Panels of K give scores of VEC keys (sums over dims, broadcasting q),
// rows of V give outputs of VEC dims (sums over keys, broadcasting weights). The other two, rows of K and panels of V,
// have lanes along what is summed: VEC sums at a time are then folded into one vector.
#ifndef VEC
#define VEC 16     // units of a vector: 4, 8, 16
#endif
#ifndef HEADS
#define HEADS 1    // heads of one kv head that share its reading: divides H / G
#endif
#ifndef MT
#define MT 1       // queries that share it too
#endif
#ifndef NV
#define NV 2       // vectors of keys or dims that share one broadcast: 1, 2, 4
#endif
#ifndef BN
#define BN 32      // keys between two looks at the maximum: whole panels
#endif
#ifndef PREFETCH
#define PREFETCH 0 // 1: fetch the next block's K and V while this one's are used
#endif

#define JOINERS 1

#include "attention.clh"
#include "partial.clh"

#define ROWS (HEADS * MT)
#define MOST(a, b) ((a) > (b) ? (a) : (b))
#define KEYS_FOLDED MOST(1, VEC / ROWS)             // keys of K rows whose sums are folded together
#define UNITS_FOLDED MOST(1, VEC / (ROWS * PLANES)) // units of V panels
#define WHOLE(n) (((n) + VEC - 1) / VEC * VEC)      // n sums as whole vectors of sums
// Row r's q at a slot: where K has panels, the rows' numbers of one slot are read together.
#if KL < 2
#define Q_AT(r, slot) ((r) * HEAD_DIM + (slot))
#else
#define Q_AT(r, slot) ((slot) * ROWS + (r))
#endif

#if VEC == 16
#define LANE_NUMBERS (int16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
#elif VEC == 8
#define LANE_NUMBERS (int8)(0, 1, 2, 3, 4, 5, 6, 7)
#else
#define LANE_NUMBERS (int4)(0, 1, 2, 3)
#endif

// Each of `count` vectors (a multiple of VEC) summed over its lanes, to[count]; and the largest of its lanes.
INLINE void fold(floatV *a, const int count, float *to) {
#pragma unroll
  for (int left = count; left > count / VEC; left /= 2)
#pragma unroll
    for (int i = 0; i < left / 2; i++) {
      const floatV x = a[2 * i], y = a[2 * i + 1];
      a[i] = (floatV)(x.even, y.even) + (floatV)(x.odd, y.odd);
    }
#pragma unroll
  for (int i = 0; i < count / VEC; i++) STORE_V(a[i], to + i * VEC);
}
INLINE void fold_largest(floatV *a, const int count, float *to) {
#pragma unroll
  for (int left = count; left > count / VEC; left /= 2)
#pragma unroll
    for (int i = 0; i < left / 2; i++) {
      const floatV x = (floatV)(a[2 * i].even, a[2 * i + 1].even), y = (floatV)(a[2 * i].odd, a[2 * i + 1].odd);
      a[i] = x > y ? x : y;
    }
#pragma unroll
  for (int i = 0; i < count / VEC; i++) STORE_V(a[i], to + i * VEC);
}

// A CPU's own prefetchers lose a stream that jumps from head row to head row: fetch what is as far ahead as a block of
// keys. 2,048 positions, 8 heads on one kv head of 256 dims, Zen 5: 160 -> 85 us on Intel's runtime, cold.
#if PREFETCH
#define FETCH(p) __builtin_prefetch((const __private void *)(ulong)(p))
#else
#define FETCH(p)
#endif
INLINE size_t block_ahead(const int layout, int G) { return (size_t)BN * (layout == 0 ? G : 1) * ROW_UNITS; }
#define LINE_UNITS (64 / (int)sizeof(cached))

#include "split_sums.clh"

#if CACHE
// Scales (and biases) of n keys from j0 on as float, zeros up to a whole vector.
INLINE void load_scales(const int layout, __global const cache_scales *from, float *scales, float *biases, int j0,
                        int n, int g, int S, int G) {
  for (int c = 0; c < WHOLE(n); c++) {
    const cache_scales bits = c < n ? from[cache_scale_at(layout, j0 + min(c, n - 1), g, S, G)] : 0;
    scales[c] = cache_scale_of(bits);
#if CACHE == 2
    biases[c] = cache_bias_of(bits);
#endif
  }
}
#endif

// VEC logits of one row at keys j0 + c and on, those hidden that the query does not see; n keys are there.
INLINE floatV masked(floatV s, VALID_PARAM int position, int j0, int c, int n) {
  const intV lane = LANE_NUMBERS;
  const intV j = j0 + c + lane;
  s = lane < n - c ? s : (floatV)(HIDDEN);
  if (CAUSAL) s = j <= position ? s : (floatV)(HIDDEN);
  if (WINDOW) s = j > position - WINDOW ? s : (floatV)(HIDDEN);
#if PADDING
  int seen[VEC];
  for (int i = 0; i < VEC; i++) seen[i] = valid[j0 + min(c + i, n - 1)];
  s = LOAD_V(seen) != 0 ? s : (floatV)(HIDDEN);
#endif
  return s;
}

__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void attend(__global const act *q, CACHE_PARAMS VALID_PARAM RANGE_PARAMS, int M, int T, int H, int G, int S) {
  const int h0 = (int)get_group_id(1) * HEADS, m0 = (int)get_group_id(2) * MT, g = h0 / (H / G);
  const int first = T - M + m0, last = T - M + min(m0 + MT, M) - 1;
  float qs[ROWS * HEAD_DIM], ys[ROWS * HEAD_DIM], scores[ROWS * BN];
  float top[WHOLE(ROWS)], shrink[WHOLE(ROWS)];
  floatV sum[WHOLE(ROWS)];
#if CACHE
  float scales[BN], biases[BN];
#endif
#if PLANES == 2
  float q_sum[ROWS];
  floatV v_bias[WHOLE(ROWS)];
#endif
  for (int r = 0; r < WHOLE(ROWS); r++) {
    top[r] = LOWEST;
    sum[r] = (floatV)(0.0f);
#if PLANES == 2
    v_bias[r] = (floatV)(0.0f);
#endif
  }
  for (int r = 0; r < ROWS; r++) {
    __global const act *row = q + ((size_t)min(m0 + r / HEADS, M - 1) * H + h0 + r % HEADS) * HEAD_DIM;
    for (int i = 0; i < HEAD_DIM; i++) {
      qs[Q_AT(r, i)] = load_act(row + dim_of(i)) * (SCALE * LOG2_E);
      ys[r * HEAD_DIM + i] = 0.0f;
    }
#if PLANES == 2
    q_sum[r] = 0.0f;
    for (int i = 0; i < HEAD_DIM; i++) q_sum[r] += qs[Q_AT(r, i)];
#endif
  }
#if SPLIT
  const int split = (int)get_group_id(0);
  const int begin = max(split * SPLIT, first_key(first)) / BN * BN, end = min((split + 1) * SPLIT, end_key(last, T));
#else
  const int begin = first_key(first) / BN * BN, end = end_key(last, T);
#endif
  for (int j0 = begin; j0 < end; j0 += BN) {
    const int n = min(BN, end - j0);
    score_keys(k, qs, scores, j0, n, g, S, G);
#if CACHE
    load_scales(KL, ks, scales, biases, j0, n, g, S, G);
#endif
    const int clear = n % VEC == 0 && all_see(j0, n, first, last);
    floatV high[WHOLE(ROWS)];
#pragma unroll
    for (int r = 0; r < WHOLE(ROWS); r++) high[r] = (floatV)(top[r]);
#pragma unroll
    for (int r = 0; r < ROWS; r++)
      for (int c = 0; c < n; c += VEC) {
        floatV s = LOAD_V(scores + r * BN + c);
#if CACHE
        s *= LOAD_V(scales + c);
#endif
#if CACHE == 2
        s += q_sum[r] * LOAD_V(biases + c);
#endif
        s = capped(s);
        if (!clear) s = masked(s, VALID_ARG first + r / HEADS, j0, c, n);
        STORE_V(s, scores + r * BN + c);
        high[r] = high[r] > s ? high[r] : s;
      }
    float highest[WHOLE(ROWS)];
    fold_largest(high, WHOLE(ROWS), highest);
#pragma unroll
    for (int r = 0; r < WHOLE(ROWS); r += VEC) {
      STORE_V(exp2_down(LOAD_V(top + r) - LOAD_V(highest + r)), shrink + r);
      STORE_V(LOAD_V(highest + r), top + r);
    }
#if CACHE
    load_scales(VL, vs, scales, biases, j0, n, g, S, G);
#endif
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      sum[r] *= shrink[r];
#if CACHE == 2
      v_bias[r] *= shrink[r];
#endif
      for (int c = 0; c < n; c += VEC) {
        floatV p = exp2_down(LOAD_V(scores + r * BN + c) - top[r]);
        sum[r] += p;
#if CACHE == 2
        v_bias[r] += p * LOAD_V(biases + c);
#endif
#if CACHE
        p *= LOAD_V(scales + c);
#endif
        STORE_V(p, scores + r * BN + c);
      }
    }
    add_values(v, scores, shrink, ys, j0, n, g, S, G);
  }

  float sums[WHOLE(ROWS)];
  fold(sum, WHOLE(ROWS), sums);
#if PLANES == 2
  float bias[WHOLE(ROWS)];
  fold(v_bias, WHOLE(ROWS), bias);
#endif
  for (int r = 0; r < ROWS; r++) {
    const int m = m0 + r / HEADS, h = h0 + r % HEADS;
    if (m >= M) break;
    const int seen = top[r] > LOWEST;
    const size_t row = (size_t)m * H + h;
#if PLANES == 2
    for (int i = 0; i < HEAD_DIM; i++) ys[r * HEAD_DIM + i] += bias[r];
#endif
#if SPLIT
    const size_t at = (size_t)split * M * H + row;
    extent[at] = (float2)(top[r], seen ? sums[r] : 0.0f);
    if (seen)
      for (int i = 0; i < HEAD_DIM; i++) partial[at * HEAD_DIM + i] = ys[r * HEAD_DIM + i];
#else
    const float factor = seen ? 1.0f / sums[r] : 0.0f;
    for (int i = 0; i < HEAD_DIM; i++) store_act(ys[r * HEAD_DIM + i] * factor, o + row * HEAD_DIM + dim_of(i));
#endif
  }
}
