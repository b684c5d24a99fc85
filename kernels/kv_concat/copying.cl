// The concatenation that writing in place replaces (Transformer-Lite, figure 3a): the cached rows and the new ones become
// another tensor, which is then copied back to where the next token finds its cache. A baseline, never searched.
//
// k, v and their copies are rows [T][G][HEAD_DIM] of halves; new row m belongs at position T - M + m. Work-item
// (i, row, what) copies STEPS neighbouring vectors of a row of K (what 0) or V (1), and its share of Q's row m (2).
#ifndef WIDTH
#define WIDTH 4    // uints of a vector: 4, 16
#endif
#ifndef STEPS
#define STEPS 1    // vectors of a work-item; they never reach beyond a row
#endif
#define VEC 1
#include "head.clh"

#define VECTOR CAT(uint, WIDTH)
#define PIECE (2 * WIDTH * STEPS)  // halves of a work-item

INLINE void move_piece(__global const cached *from, __global cached *to) {
  for (int j = 0; j < STEPS; ++j)
    CAT(vstore, WIDTH)(CAT(vload, WIDTH)(j, (__global const uint *)from), j, (__global uint *)to);
}

#if ROPE
// Dim d of a head row, turned by the angles of its position.
INLINE float turned(__global const act *row, int d, __global const float *turn) {
#if ROPE == 1
  const int p = d % TURNS, first = d < TURNS, a = p, b = p + TURNS;
#else
  const int p = d / 2, first = d % 2 == 0, a = 2 * p, b = 2 * p + 1;
#endif
  const float x = load_acts(row + a), y = load_acts(row + b), c = turn[2 * p], s = turn[2 * p + 1];
  return first ? x * c - y * s : y * c + x * s;
}
#endif

__kernel void concat(
    __global const act *k_new, __global const act *v_new, Q_PARAM ROPE_PARAM __global const cached *k,
    __global const cached *v, __global cached *k_all, __global cached *v_all, int M, int T, int G, int H) {
  const int i = (int)get_global_id(0), row = (int)get_global_id(1), what = (int)get_global_id(2);
  const int width = G * HEAD_DIM, m = row - (T - M), at = i * PIECE;
  if (row >= T) return;
  if (what < 2) {
    const size_t place = (size_t)row * width + at;
    if (at >= width) return;
    if (m < 0) {
      move_piece((what ? v : k) + place, (what ? v_all : k_all) + place);
      return;
    }
    __global const act *fresh = (what ? v_new : k_new) + (size_t)m * width + at;
#if ROPE
    if (what == 0) {
      for (int e = 0; e < PIECE; ++e) {
        const int d = (at + e) % HEAD_DIM;
        store_acts(d < ROTARY ? turned(fresh + e - d, d, rope + (size_t)row * ROTARY) : load_acts(fresh + e),
                   (__global act *)(k_all + place + e));
      }
      return;
    }
#endif
    move_piece((__global const cached *)fresh, (what ? v_all : k_all) + place);
    return;
  }
#if TURN_Q
  if (m < 0) return;
  for (int pair = i; pair < H * TURNS; pair += (int)get_global_size(0)) {
    const int p = pair % TURNS, a = ROPE == 1 ? p : 2 * p, b = ROPE == 1 ? p + TURNS : 2 * p + 1;
    __global act *head = q + ((size_t)m * H + pair / TURNS) * HEAD_DIM;
    floatV x = load_acts(head + a), y = load_acts(head + b);
    turn_pairs(&x, &y, rope + (size_t)row * ROTARY + 2 * p);
    store_acts(x, head + a);
    store_acts(y, head + b);
  }
#endif
}

__kernel void take_back(
    __global const cached *k_all, __global const cached *v_all, __global cached *k, __global cached *v, int T, int G) {
  const int at = (int)get_global_id(0) * PIECE, row = (int)get_global_id(1), what = (int)get_global_id(2);
  if (row >= T || at >= G * HEAD_DIM) return;
  const size_t place = (size_t)row * G * HEAD_DIM + at;
  move_piece((what ? v_all : k_all) + place, (what ? v : k) + place);
}
