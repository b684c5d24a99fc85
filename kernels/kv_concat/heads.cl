// New K and V go to their positions in the cache, and Q is turned in place; one work-item per HEADS heads of ROWS new
// rows. A head row passes through private memory: read and widened, turned, made into what the cache stores, stored.
//
// Panels are written ROWS positions at a time where the new rows lie side by side in one, otherwise unit by unit. For
// CPUs: one work-item has a core's vectors to itself. Right at every work-group size.
#ifndef VEC
#define VEC 16     // numbers of a head row that move together: 1, 2, 4, 8, 16
#endif
#ifndef ROWS
#define ROWS 1     // new rows of a work-item: 1, 16, 64
#endif
#ifndef TILE
#define TILE 1     // rows that a panel takes at once: 1, 8, 16
#endif
#ifndef AHEAD
#define AHEAD 0    // rows that a CPU fetches ahead: 0 (none), 1, 16
#endif
#ifndef HEADS
#define HEADS 1    // heads of a work-item: 1, 2, 8, 32
#endif
#ifndef WG
#define WG 1       // work-items of a work-group along the rows
#endif

#include "head.clh"
#include "tile.clh"

// Units that move together: half as many as numbers where a byte has two.
#if CACHE < 2 || VEC == 1
#define UNITS VEC
#elif VEC == 2
#define UNITS 1
#elif VEC == 4
#define UNITS 2
#elif VEC == 8
#define UNITS 4
#else
#define UNITS 8
#endif

// Bytes go as words where there are enough, for the reason that halves do (cache.clh).
#if UNITS == 1
#define CODE_BYTES(v) ((uchar)(v))
#define LOAD_BYTES(p) (*(p))
#define STORE_BYTES(v, space, p) (*(p) = (v))
#elif UNITS == 2
#define CODE_BYTES(v) convert_uchar2(v)
#define LOAD_BYTES(p) vload2(0, (const __private uchar *)(p))
#define STORE_BYTES(v, space, p) vstore2(v, 0, (space uchar *)(p))
#elif UNITS == 4
#define CODE_BYTES(v) convert_uchar4(v)
#define LOAD_BYTES(p) as_uchar4(*(const __private uint *)(p))
#define STORE_BYTES(v, space, p) (*(space uint *)(p) = as_uint(v))
#elif UNITS == 8
#define CODE_BYTES(v) convert_uchar8(v)
#define LOAD_BYTES(p) as_uchar8(vload2(0, (const __private uint *)(p)))
#define STORE_BYTES(v, space, p) vstore2(as_uint2(v), 0, (space uint *)(p))
#else
#define CODE_BYTES(v) ((uchar16)(convert_uchar8((v).lo), convert_uchar8((v).hi)))
#define LOAD_BYTES(p) as_uchar16(vload4(0, (const __private uint *)(p)))
#define STORE_BYTES(v, space, p) vstore4(as_uint4(v), 0, (space uint *)(p))
#endif

// Unrolled, a row of few vectors stays in registers (2048 × 8 head rows of 256, int4 on PoCL, Zen 5: 1.7 → 1.1 ms); one of
// many compiles for half a minute on Intel's runtime.
#if HEAD_DIM <= 16 * VEC
#define UNROLL_ROW _Pragma("unroll")
#else
#define UNROLL_ROW
#endif

#include "heads_row.clh"

// One new row of a head as the cache stores it, in words; returns its scale (and bias).
INLINE cache_scales make_row(uint *row, const int turned, __global const act *from, __global const float *turn) {
#if VEC > 1
  if (COPIES(turned)) {
    UNROLL_ROW
    for (int d = 0; d < HEAD_DIM; d += VEC) STORE_HALVES(LOAD_HALVES(__global, from + d), __private, row + d / 2);
    return 0;
  }
#endif
  float x[HEAD_DIM];
  read_row(x, from);
  if (turned) turn_row(x, turn);
  return encode_row(row, x);
}

INLINE void store_row(const int layout, __global cached *to, const uint *row) {
#if CACHE == 0
  if (layout >= 2) {
    for (int w = 0; w < ROW_WORDS; w++) {
      to[2 * w * layout] = (ushort)row[w];
      to[(2 * w + 1) * layout] = (ushort)(row[w] >> 16);
    }
    return;
  }
#if VEC == 1
  for (int w = 0; w < ROW_WORDS; w++) ((__global uint *)to)[w] = row[w];
#else
  for (int u = 0; u < ROW_UNITS; u += VEC) STORE_HALVES(LOAD_HALVES(__private, row + u / 2), __global, to + u);
#endif
#else
  const uchar *units = (const uchar *)row;
  if (layout >= 2) {
    for (int u = 0; u < ROW_UNITS; u++) to[u * layout] = units[u];
    return;
  }
  for (int u = 0; u < ROW_UNITS; u += UNITS)
    STORE_BYTES(LOAD_BYTES(units + u), __global, (__global uchar *)to + u);
#endif
}

#if TILE > 1
// Whether the `count` rows from m0 on are a tile: neighbours that begin where tiles of a panel do.
INLINE int is_tile(const int layout, __global const int *positions, int m0, int count, int S) {
  if (layout < TILE || count < TILE || positions[m0] < 0 || positions[m0] > S - TILE) return 0;
  int together = 1;
  for (int r = 1; r < TILE; r++) together &= positions[m0 + r] == positions[m0] + r;
  return together;
}
#endif

// Lines that are about to be written, a part of a tile's at a time.
INLINE void fetch_units(const __global cached *to, int step, int part) {
#if AHEAD
  for (int u = part * ROW_UNITS / TILE; u < (part + 1) * ROW_UNITS / TILE; u++)
    __builtin_prefetch((const __private void *)(ulong)(to + u * step), 1);
#endif
}

// The cast through an integer takes the address space off, which PoCL would not convert.
INLINE void fetch(__global const act *row) {
#if AHEAD
  UNROLL_ROW
  for (int d = 0; d < HEAD_DIM; d += 64 / (int)sizeof(act))
    __builtin_prefetch((const __private void *)(ulong)(row + d));
#endif
}

// `count` new rows of head g, from m0 on, to their positions.
INLINE void write_rows(const int layout, const int turned, __global const act *fresh, __global cached *cache,
                       __global cache_scales *scales, __global const int *positions, __global const float *rope,
                       int m0, int count, int g, int M, int G, int S) {
  const int stride = G * HEAD_DIM;
  fresh += (size_t)m0 * stride + g * HEAD_DIM;
#if TILE > 1
  if (is_tile(layout, positions, m0, count, S)) {
    uint rows[TILE * ROW_WORDS];
    const int first = positions[m0];
    __global cached *to = cache + cache_row(layout, first, g, S, G);
    for (int r = 0; r < TILE; r++) {
      fetch_units(to, layout, r);
      fetch(fresh + (size_t)min(r + AHEAD, M - 1 - m0) * stride);
      const cache_scales bits = make_row(rows + r * ROW_WORDS, turned, fresh + (size_t)r * stride,
                                         rope + (size_t)(first + r) * ROTARY);
      if (CACHE > 0) scales[cache_scale_at(layout, first + r, g, S, G)] = bits;
    }
    store_tile(to, layout, rows);
    return;
  }
#endif
  for (int r = 0; r < count; r++) {
    const int s = positions[m0 + r];
    if (s < 0 || s >= S) continue;
    fetch(fresh + (size_t)min(r + AHEAD, M - 1 - m0) * stride);
    if (COPIES(turned) && layout < 2) {
      copy_row(cache + cache_row(layout, s, g, S, G), fresh + (size_t)r * stride);
      continue;
    }
    uint row[ROW_WORDS];
    const cache_scales bits = make_row(row, turned, fresh + (size_t)r * stride, rope + (size_t)s * ROTARY);
    if (CACHE > 0) scales[cache_scale_at(layout, s, g, S, G)] = bits;
    store_row(layout, cache + cache_row(layout, s, g, S, G), row);
  }
}

#if TURN_Q
INLINE void turn_q(__global act *q, __global const int *positions, __global const float *rope, int m0, int count,
                   int h, int M, int H, int S) {
  for (int m = m0; m < m0 + count; m++) {
    const int s = positions[m];
    if (s < 0 || s >= S) continue;
    __global act *row = q + ((size_t)m * H + h) * HEAD_DIM;
    fetch(row + (size_t)(min(m + AHEAD, M - 1) - m) * H * HEAD_DIM);
    __global const float *turn = rope + (size_t)s * ROTARY;
    UNROLL_ROW
    for (int i = 0; i < TURNS; i += VEC) {
#if ROPE == 1
      floatV a = load_acts(row + i), b = load_acts(row + TURNS + i);
      turn_pairs(&a, &b, turn + 2 * i);
      store_acts(a, row + i);
      store_acts(b, row + TURNS + i);
#else
      const floatV u = load_acts(row + 2 * i), w = load_acts(row + 2 * i + VEC);
      floatV a = evens(u, w), b = odds(u, w);
      turn_pairs(&a, &b, turn + 2 * i);
      store_acts(first_pairs(a, b), row + 2 * i);
      store_acts(last_pairs(a, b), row + 2 * i + VEC);
#endif
    }
  }
}
#endif

__kernel __attribute__((work_group_size_hint(WG, 1, 1)))
void concat(CONCAT_PARAMS) {
  const int head = (int)get_global_id(1) * HEADS, end = min((int)get_global_id(0) * ROWS + ROWS, M);
  int count;
  for (int m = (int)get_global_id(0) * ROWS; m < end; m += count) {
    count = min(TILE - (positions[m] & (TILE - 1)), end - m);  // up to where the next tile of a panel begins
    for (int h = head; h < min(head + HEADS, HEADS_HERE); h++) {
#if TURN_Q
      turn_q(q, positions, ROPE_ARG, m, count, h, M, H, S);
#endif
      if (h < G) write_rows(KL, ROPE, k_new, k, KS_ARG, positions, ROPE_ARG, m, count, h, M, G, S);
      if (V_HEAD(h) >= 0) write_rows(VL, 0, v_new, v, VS_ARG, positions, 0, m, count, V_HEAD(h), M, G, S);
    }
  }
}
