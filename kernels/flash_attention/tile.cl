// o = softmax(scale * q * k^T) * v for CPUs: one work-item owns TILES tiles of 16 * RV rows, lanes along rows.
//
// A row is one query of one of HEADS heads that share a kv head; rows of a tile go query by query. Scores and outputs
// are kept transposed, so that sixteen rows are a vector: K and V enter as scalars from a block of BN keys that is
// converted to float once for all tiles (so that any layout serves), and softmax needs no reduction across lanes.
//
//     q^T [HEAD_DIM][rows]   K block [BN][HEAD_DIM]   -> scores [BN][rows]      -> V block -> o^T [HEAD_DIM][rows]
//
// Products are in float whatever the policy: that is never less exact, and a CPU's half arithmetic is slower.
#ifndef RV
#define RV 4       // vectors of sixteen rows: 1, 2, 3, 4
#endif
#ifndef TILES
#define TILES 1    // tiles that share the conversion of K and V: 1, 2, 4
#endif
#ifndef HEADS
#define HEADS 1    // heads of one kv head that share its reading: divides H / G
#endif
#ifndef BN
#define BN 32      // keys of a block: whole panels
#endif
#ifndef KC
#define KC 4       // keys whose scores are summed at a time
#endif
#ifndef DC
#define DC 4       // dims whose outputs are summed at a time
#endif
#define VEC 16

#include "attention.clh"

#define ROWS (16 * RV)
#define QUERIES (ROWS / HEADS)
#define LANE_NUMBERS (int16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)

// Value [slot][key] of a block as floats, in the order of its layout.
#define AT(layout, slot, key)                                                                                   \
  ((layout) < 2 ? (key) * HEAD_DIM + (slot)                                                                       \
                : (key) / (layout) * (HEAD_DIM * (layout)) + (slot) * (layout) + (key) % (layout))

#include "tile_block.clh"

// Element 0 of row r of the tile at query m0 and head h0, in q or o.
INLINE size_t row_at(int r, int m0, int h0, int M, int H) {
  return ((size_t)min(m0 + min(r / HEADS, QUERIES - 1), M - 1) * H + h0 + r % HEADS) * HEAD_DIM;
}

INLINE int slot_of(int d) { return PLANES == 1 ? d : (d & 1) * ROW_UNITS + d / 2; }

// Queries m0 and on of heads h0 and on, and what is known of their outputs.
typedef struct {
  float16 q[HEAD_DIM * RV], y[HEAD_DIM * RV];  // [slot][row]
  float16 top[RV], sum[RV];
#if PLANES == 2
  float16 q_sum[RV], v_bias[RV];
#endif
  int m0, first, last;  // the first query, and positions of the first and of the last
} tile;

INLINE void begin(tile *t, __global const act *q, int m0, int h0, int M, int T, int H) {
  t->m0 = m0;
  t->first = T - M + m0;
  t->last = T - M + min(m0 + QUERIES, M) - 1;
  for (int r = 0; r < RV; r++) {
    t->top[r] = (float16)(LOWEST);
    t->sum[r] = (float16)(0.0f);
#if PLANES == 2
    t->q_sum[r] = t->v_bias[r] = (float16)(0.0f);
#endif
    for (int d = 0; d < HEAD_DIM; d += 16) {
      float16 x[16];
#pragma unroll
      for (int i = 0; i < 16; i++)
        x[i] = load_acts_inside(q + row_at(16 * r + i, m0, h0, M, H) + d, d) * (SCALE * LOG2_E);
      transpose(x);
#pragma unroll
      for (int i = 0; i < 16; i++)
        if (d + i < HEAD_DIM) t->q[slot_of(d + i) * RV + r] = x[i];
#if PLANES == 2
#pragma unroll
      for (int i = 0; i < 16; i++) t->q_sum[r] += x[i];
#endif
    }
  }
  for (int i = 0; i < HEAD_DIM * RV; i++) t->y[i] = (float16)(0.0f);
}

// Logits of keys c ... c+KC-1 of a block that begins at key j0: kb -> scores. `highest` grows with them.
INLINE void score_keys(const tile *t, const float *kb, float16 *scores, float16 *highest,
                       SCALES_PARAM(__global const, ks) VALID_PARAM int j0, int c, int clear, int g, int T, int S,
                       int G) {
  float16 s[KC][RV];
#pragma unroll
  for (int a = 0; a < KC; a++)
#pragma unroll
    for (int r = 0; r < RV; r++) s[a][r] = (float16)(0.0f);
#pragma unroll 4
  for (int i = 0; i < HEAD_DIM; i++) {
    float16 x[RV];
#pragma unroll
    for (int r = 0; r < RV; r++) x[r] = t->q[i * RV + r];
#pragma unroll
    for (int a = 0; a < KC; a++) {
      const float y = kb[AT(KL, i, c) + (KL < 2 ? a * HEAD_DIM : a)];
#pragma unroll
      for (int r = 0; r < RV; r++) s[a][r] = x[r] * y + s[a][r];
    }
  }
#pragma unroll
  for (int a = 0; a < KC; a++) {
#if CACHE
    const cache_scales bits = ks[cache_scale_at(KL, min(j0 + c + a, T - 1), g, S, G)];
#endif
#pragma unroll
    for (int r = 0; r < RV; r++) {
#if CACHE
      s[a][r] *= cache_scale_of(bits);
#endif
#if CACHE == 2
      s[a][r] += t->q_sum[r] * cache_bias_of(bits);
#endif
      s[a][r] = capped(s[a][r]);
    }
  }
  if (!clear)
#pragma unroll
    for (int a = 0; a < KC; a++) {
      const int j = j0 + c + a;
      int there = j < T;
#if PADDING
      there = there && valid[min(j, T - 1)];
#endif
#pragma unroll
      for (int r = 0; r < RV; r++) {
        const int16 lane = LANE_NUMBERS;
        const int16 position = t->first + (lane + 16 * r) / HEADS;
        if (!there) s[a][r] = (float16)(HIDDEN);
        if (CAUSAL) s[a][r] = position < j ? (float16)(HIDDEN) : s[a][r];
        if (WINDOW) s[a][r] = position - WINDOW >= j ? (float16)(HIDDEN) : s[a][r];
      }
    }
#pragma unroll
  for (int a = 0; a < KC; a++)
#pragma unroll
    for (int r = 0; r < RV; r++) {
      scores[(c + a) * RV + r] = s[a][r];
      highest[r] = highest[r] > s[a][r] ? highest[r] : s[a][r];
    }
}

// Scores of n keys -> weights; sums follow the new maximum, and so will the outputs, by `shrink`.
INLINE void weigh(tile *t, float16 *scores, const float16 *highest, float16 *shrink, SCALES_PARAM(__global const, vs)
                  int j0, int n, int g, int S, int G) {
  float16 top[RV], sum[RV];
#if PLANES == 2
  float16 v_bias[RV];
#endif
#pragma unroll
  for (int r = 0; r < RV; r++) {
    shrink[r] = exp2_down(t->top[r] - highest[r]);
    top[r] = highest[r];
    sum[r] = t->sum[r] * shrink[r];
#if PLANES == 2
    v_bias[r] = t->v_bias[r] * shrink[r];
#endif
  }
  for (int c = 0; c < n; c++) {
#if CACHE
    const cache_scales bits = vs[cache_scale_at(VL, j0 + c, g, S, G)];
#endif
#pragma unroll
    for (int r = 0; r < RV; r++) {
      float16 p = exp2_down(scores[c * RV + r] - top[r]);
      sum[r] += p;
#if CACHE == 2
      v_bias[r] += p * cache_bias_of(bits);
#endif
#if CACHE
      p *= cache_scale_of(bits);
#endif
      scores[c * RV + r] = p;
    }
  }
#pragma unroll
  for (int r = 0; r < RV; r++) {
    t->top[r] = top[r];
    t->sum[r] = sum[r];
#if PLANES == 2
    t->v_bias[r] = v_bias[r];
#endif
  }
}

// Outputs of slots d ... d+DC-1 += weights * values of n keys.
INLINE void add_values(tile *t, const float *vb, const float16 *weights, const float16 *shrink, int d, int n) {
  float16 y[DC][RV];
#pragma unroll
  for (int a = 0; a < DC; a++)
#pragma unroll
    for (int r = 0; r < RV; r++) y[a][r] = t->y[(d + a) * RV + r] * shrink[r];
#pragma unroll 4
  for (int c = 0; c < n; c++) {
    float16 p[RV];
#pragma unroll
    for (int r = 0; r < RV; r++) p[r] = weights[c * RV + r];
#pragma unroll
    for (int a = 0; a < DC; a++) {
      const float x = vb[AT(VL, d, c) + a * (VL < 2 ? 1 : VL)];
#pragma unroll
      for (int r = 0; r < RV; r++) y[a][r] = p[r] * x + y[a][r];
    }
  }
#pragma unroll
  for (int a = 0; a < DC; a++)
#pragma unroll
    for (int r = 0; r < RV; r++) t->y[(d + a) * RV + r] = y[a][r];
}

INLINE void finish(const tile *t, __global act *o, int h0, int M, int H) {
  for (int r = 0; r < RV; r++) {
    // A row that saw no key has no sum either, whatever HIDDEN minus HIDDEN made of it.
    const float16 factor = t->top[r] > LOWEST ? 1.0f / t->sum[r] : (float16)(0.0f);
    for (int d = 0; d < HEAD_DIM; d += 16) {
      float16 x[16];
#pragma unroll
      for (int i = 0; i < 16; i++) {
        x[i] = t->y[slot_of(min(d + i, HEAD_DIM - 1)) * RV + r];
#if PLANES == 2
        x[i] += t->v_bias[r];
#endif
        x[i] *= factor;
      }
      transpose(x);
      for (int i = 0; i < 16; i++) {
        const int row = 16 * r + i;
        if (row / HEADS >= QUERIES || t->m0 + row / HEADS >= M) break;
        __global act *to = o + row_at(row, t->m0, h0, M, H) + d;
        if (d + 16 <= HEAD_DIM) {
          store_acts_V(x[i], to);
        } else {
          float last[16];
          vstore16(x[i], 0, last);
          for (int e = 0; e < HEAD_DIM % 16; e++) store_act(last[e], to + e);
        }
      }
    }
  }
}

__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void attend(__global const act *q, CACHE_PARAMS VALID_PARAM __global act *o, int M, int T, int H, int G, int S) {
  // The last tiles of causal queries see most keys. From both ends inwards, because PoCL hands each thread its share of
  // neighbouring work-groups: 1,024 queries, 8 heads of 256 dims on one kv head, Zen 5: 16.3 -> 10.5 ms.
  const int i0 = (int)get_group_id(0), half_way = i0 / 2;
  const int m0 = (i0 % 2 ? half_way : (int)get_num_groups(0) - 1 - half_way) * (TILES * QUERIES);
  const int h0 = (int)get_group_id(1) * HEADS, g = h0 / (H / G);
  const int tiles = min(TILES, (M - m0 + QUERIES - 1) / QUERIES);
  tile t[TILES];
  float kb[BN * HEAD_DIM], vb[BN * HEAD_DIM];
  float16 scores[BN * RV];
  for (int i = 0; i < tiles; i++) begin(t + i, q, m0 + i * QUERIES, h0, M, T, H);
  const int end = end_key(t[tiles - 1].last, T);
  for (int j0 = first_key(t[0].first) / BN * BN; j0 < end; j0 += BN) {
    load_block(KL, k, kb, j0, min(BN, end - j0), g, S, G);
    load_block(VL, v, vb, j0, min(BN, end - j0), g, S, G);
    for (int i = 0; i < tiles; i++) {
      tile *mine = t + i;
      const int n = min(BN, end_key(mine->last, T) - j0);
      if (n <= 0 || j0 + BN <= first_key(mine->first)) continue;
      const int clear = n == BN && all_see(j0, BN, mine->first, mine->last);
      float16 highest[RV], shrink[RV];
#pragma unroll
      for (int r = 0; r < RV; r++) highest[r] = mine->top[r];
      for (int c = 0; c < n; c += KC)
        score_keys(mine, kb, scores, highest, SCALES_ARG(ks) VALID_ARG j0, c, clear, g, T, S, G);
      weigh(mine, scores, highest, shrink, SCALES_ARG(vs) j0, n, g, S, G);
      for (int d = 0; d < HEAD_DIM; d += DC) add_values(mine, vb, scores, shrink, d, n);
    }
  }
  for (int i = 0; i < tiles; i++) finish(t + i, o, h0, M, H);
}
