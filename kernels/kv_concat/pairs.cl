// New K and V go to their positions in an fp16 cache, and Q is turned in place; one work-item per VEC pairs of a head.
//
// ALONG says what neighbouring work-items are. 0: pairs of one head row, so that rows are read and, in row layouts,
// written as a wave's one stretch. 1: new rows, so that panels are. For GPUs. Right at every work-group size.
#ifndef VEC
#define VEC 2      // pairs of a work-item: 1, 2, 4
#endif
#ifndef ALONG
#define ALONG 0    // what neighbouring work-items are: 0 pairs of a head row, 1 new rows
#endif
#ifndef WG
#define WG 64      // work-items of a work-group, at least
#endif

#include "lanes.clh"

#define BLOCKS (PAIRS / VEC)

__kernel void concat(CONCAT_PARAMS) {
#if ALONG == 0
  const int i = (int)get_global_id(0), m = (int)get_global_id(1);
#else
  const int i = (int)get_global_id(1), m = (int)get_global_id(0);
#endif
  const int what = (int)get_global_id(2), h = i / BLOCKS, p = i % BLOCKS * VEC;
  const int s = m < M ? positions[m] : -1;
  if (s < 0 || s >= S) return;
#if ROPE
  __global const float *turn = rope + (size_t)s * ROTARY;
#else
  __global const float *turn = 0;
#endif
  floatV a, b;
  if (what == 0 && h < G) {
    load_pairs(&a, &b, ROPE, k_new + ((size_t)m * G + h) * HEAD_DIM, turn, p);
    write_pairs(a, b, KL, ROPE, k + cache_row(KL, s, h, S, G), p);
  }
  if (what == 1 && h < G) {
    load_pairs(&a, &b, 0, v_new + ((size_t)m * G + h) * HEAD_DIM, turn, p);
    write_pairs(a, b, VL, 0, v + cache_row(VL, s, h, S, G), p);
  }
#if TURN_Q
  if (what == 2 && h < H && p < TURNS) {
    __global act *row = q + ((size_t)m * H + h) * HEAD_DIM;
    load_pairs(&a, &b, 1, row, turn, p);
    store_pairs(a, b, row, p);
  }
#endif
}
