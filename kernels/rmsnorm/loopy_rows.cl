// RMSNorm and LayerNorm as loopy writes them, one row per work-group. Generated: do not edit, run
// `python -m kernels.rmsnorm.loopy_generate`. Every branch below is one kernel of loopy's.
#ifndef LANES
#define LANES 64   // work-items of a row: 1, 64, 256
#endif
#define VEC 1

#include "norm.clh"

INLINE float gain(act w) { return NORM == 1 ? 1.0f + widen(w) : widen(w); }

#define lid(N) ((int)get_local_id(N))
#define gid(N) ((int)get_group_id(N))

#if LAYER == 0 && RESIDUAL == 0 && LANES == 1

__kernel void __attribute__ ((reqd_work_group_size(1, 1, 1))) norm(__global act const *__restrict__ x, __global act const *__restrict__ w, __global act *__restrict__ y, int const M, int const N)
{
  float acc_n;
  float scale;
  float total;

  acc_n = 0.0f;
  for (int n = 0; n <= -1 + N; ++n)
    acc_n = acc_n + widen(x[N * gid(0) + n]) * widen(x[N * gid(0) + n]);
  total = acc_n;
  scale = inverse_root(total / N);
  for (int k = 0; k <= -1 + N; ++k)
    y[N * gid(0) + k] = narrow(widen(x[N * gid(0) + k]) * scale * gain(w[k]));
}
#elif LAYER == 0 && RESIDUAL == 0 && LANES == 64

__kernel void __attribute__ ((reqd_work_group_size(64, 1, 1))) norm(__global act const *__restrict__ x, __global act const *__restrict__ w, __global act *__restrict__ y, int const M, int const N)
{
  __local float acc_n_inner[64];
  float acc_n_outer;
  float neutral_n_inner;
  float scale;
  __local float total;

  acc_n_inner[lid(0)] = 0.0f;
  neutral_n_inner = 0.0f;
  if (-1 + -1 * lid(0) + N >= 0)
  {
    acc_n_outer = 0.0f;
    for (int n_outer = 0; n_outer <= -1 + -1 * lid(0) + (63 + N + 63 * lid(0)) / 64; ++n_outer)
      acc_n_outer = acc_n_outer + widen(x[N * gid(0) + 64 * n_outer + lid(0)]) * widen(x[N * gid(0) + 64 * n_outer + lid(0)]);
    acc_n_inner[lid(0)] = neutral_n_inner + acc_n_outer;
  }
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_0 depends on total_n_inner_init) */;
  if (31 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[32 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_1 depends on red_n_inner_stage_0) */;
  if (15 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[16 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_2 depends on red_n_inner_stage_1) */;
  if (7 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[8 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_3 depends on red_n_inner_stage_2) */;
  if (3 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[4 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_4 depends on red_n_inner_stage_3) */;
  if (1 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[2 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_5 depends on red_n_inner_stage_4) */;
  if (lid(0) == 0)
  {
    acc_n_inner[0] = acc_n_inner[0] + acc_n_inner[1];
    total = acc_n_inner[0];
  }
  barrier(CLK_LOCAL_MEM_FENCE) /* Barrier inserted due to l_barrier */;
  if (-1 + -1 * lid(0) + N >= 0)
  {
    scale = inverse_root(total / N);
    for (int k_outer = 0; k_outer <= -1 + -1 * lid(0) + (63 + N + 63 * lid(0)) / 64; ++k_outer)
      y[N * gid(0) + 64 * k_outer + lid(0)] = narrow(widen(x[N * gid(0) + 64 * k_outer + lid(0)]) * scale * gain(w[64 * k_outer + lid(0)]));
  }
}
#elif LAYER == 0 && RESIDUAL == 0 && LANES == 256

__kernel void __attribute__ ((reqd_work_group_size(256, 1, 1))) norm(__global act const *__restrict__ x, __global act const *__restrict__ w, __global act *__restrict__ y, int const M, int const N)
{
  __local float acc_n_inner[256];
  float acc_n_outer;
  float neutral_n_inner;
  float scale;
  __local float total;

  acc_n_inner[lid(0)] = 0.0f;
  neutral_n_inner = 0.0f;
  if (-1 + -1 * lid(0) + N >= 0)
  {
    acc_n_outer = 0.0f;
    for (int n_outer = 0; n_outer <= -1 + -1 * lid(0) + (255 + N + 255 * lid(0)) / 256; ++n_outer)
      acc_n_outer = acc_n_outer + widen(x[N * gid(0) + 256 * n_outer + lid(0)]) * widen(x[N * gid(0) + 256 * n_outer + lid(0)]);
    acc_n_inner[lid(0)] = neutral_n_inner + acc_n_outer;
  }
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_0 depends on total_n_inner_init) */;
  if (127 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[128 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_1 depends on red_n_inner_stage_0) */;
  if (63 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[64 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_2 depends on red_n_inner_stage_1) */;
  if (31 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[32 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_3 depends on red_n_inner_stage_2) */;
  if (15 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[16 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_4 depends on red_n_inner_stage_3) */;
  if (7 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[8 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_5 depends on red_n_inner_stage_4) */;
  if (3 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[4 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_6 depends on red_n_inner_stage_5) */;
  if (1 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[2 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_7 depends on red_n_inner_stage_6) */;
  if (lid(0) == 0)
  {
    acc_n_inner[0] = acc_n_inner[0] + acc_n_inner[1];
    total = acc_n_inner[0];
  }
  barrier(CLK_LOCAL_MEM_FENCE) /* Barrier inserted due to l_barrier */;
  if (-1 + -1 * lid(0) + N >= 0)
  {
    scale = inverse_root(total / N);
    for (int k_outer = 0; k_outer <= -1 + -1 * lid(0) + (255 + N + 255 * lid(0)) / 256; ++k_outer)
      y[N * gid(0) + 256 * k_outer + lid(0)] = narrow(widen(x[N * gid(0) + 256 * k_outer + lid(0)]) * scale * gain(w[256 * k_outer + lid(0)]));
  }
}
#elif LAYER == 0 && RESIDUAL == 1 && LANES == 1

__kernel void __attribute__ ((reqd_work_group_size(1, 1, 1))) norm(__global act const *__restrict__ x, __global act const *__restrict__ r, __global act const *__restrict__ w, __global act *__restrict__ sum, __global act *__restrict__ y, int const M, int const N)
{
  float acc_n;
  float scale;
  float total;

  acc_n = 0.0f;
  for (int n = 0; n <= -1 + N; ++n)
    acc_n = acc_n + widen(narrow(widen(x[N * gid(0) + n]) + widen(r[N * gid(0) + n]))) * widen(narrow(widen(x[N * gid(0) + n]) + widen(r[N * gid(0) + n])));
  total = acc_n;
  scale = inverse_root(total / N);
  for (int k = 0; k <= -1 + N; ++k)
  {
    sum[N * gid(0) + k] = narrow(widen(x[N * gid(0) + k]) + widen(r[N * gid(0) + k]));
    y[N * gid(0) + k] = narrow(widen(narrow(widen(x[N * gid(0) + k]) + widen(r[N * gid(0) + k]))) * scale * gain(w[k]));
  }
}
#elif LAYER == 0 && RESIDUAL == 1 && LANES == 64

__kernel void __attribute__ ((reqd_work_group_size(64, 1, 1))) norm(__global act const *__restrict__ x, __global act const *__restrict__ r, __global act const *__restrict__ w, __global act *__restrict__ sum, __global act *__restrict__ y, int const M, int const N)
{
  __local float acc_n_inner[64];
  float acc_n_outer;
  float neutral_n_inner;
  float scale;
  __local float total;

  acc_n_inner[lid(0)] = 0.0f;
  neutral_n_inner = 0.0f;
  if (-1 + -1 * lid(0) + N >= 0)
  {
    acc_n_outer = 0.0f;
    for (int n_outer = 0; n_outer <= -1 + -1 * lid(0) + (63 + N + 63 * lid(0)) / 64; ++n_outer)
      acc_n_outer = acc_n_outer + widen(narrow(widen(x[N * gid(0) + 64 * n_outer + lid(0)]) + widen(r[N * gid(0) + 64 * n_outer + lid(0)]))) * widen(narrow(widen(x[N * gid(0) + 64 * n_outer + lid(0)]) + widen(r[N * gid(0) + 64 * n_outer + lid(0)])));
    acc_n_inner[lid(0)] = neutral_n_inner + acc_n_outer;
  }
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_0 depends on total_n_inner_init) */;
  if (31 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[32 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_1 depends on red_n_inner_stage_0) */;
  if (15 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[16 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_2 depends on red_n_inner_stage_1) */;
  if (7 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[8 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_3 depends on red_n_inner_stage_2) */;
  if (3 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[4 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_4 depends on red_n_inner_stage_3) */;
  if (1 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[2 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_5 depends on red_n_inner_stage_4) */;
  if (lid(0) == 0)
  {
    acc_n_inner[0] = acc_n_inner[0] + acc_n_inner[1];
    total = acc_n_inner[0];
  }
  barrier(CLK_LOCAL_MEM_FENCE) /* Barrier inserted due to l_barrier */;
  if (-1 + -1 * lid(0) + N >= 0)
  {
    scale = inverse_root(total / N);
    for (int k_outer = 0; k_outer <= -1 + -1 * lid(0) + (63 + N + 63 * lid(0)) / 64; ++k_outer)
    {
      sum[N * gid(0) + 64 * k_outer + lid(0)] = narrow(widen(x[N * gid(0) + 64 * k_outer + lid(0)]) + widen(r[N * gid(0) + 64 * k_outer + lid(0)]));
      y[N * gid(0) + 64 * k_outer + lid(0)] = narrow(widen(narrow(widen(x[N * gid(0) + 64 * k_outer + lid(0)]) + widen(r[N * gid(0) + 64 * k_outer + lid(0)]))) * scale * gain(w[64 * k_outer + lid(0)]));
    }
  }
}
#elif LAYER == 0 && RESIDUAL == 1 && LANES == 256

__kernel void __attribute__ ((reqd_work_group_size(256, 1, 1))) norm(__global act const *__restrict__ x, __global act const *__restrict__ r, __global act const *__restrict__ w, __global act *__restrict__ sum, __global act *__restrict__ y, int const M, int const N)
{
  __local float acc_n_inner[256];
  float acc_n_outer;
  float neutral_n_inner;
  float scale;
  __local float total;

  acc_n_inner[lid(0)] = 0.0f;
  neutral_n_inner = 0.0f;
  if (-1 + -1 * lid(0) + N >= 0)
  {
    acc_n_outer = 0.0f;
    for (int n_outer = 0; n_outer <= -1 + -1 * lid(0) + (255 + N + 255 * lid(0)) / 256; ++n_outer)
      acc_n_outer = acc_n_outer + widen(narrow(widen(x[N * gid(0) + 256 * n_outer + lid(0)]) + widen(r[N * gid(0) + 256 * n_outer + lid(0)]))) * widen(narrow(widen(x[N * gid(0) + 256 * n_outer + lid(0)]) + widen(r[N * gid(0) + 256 * n_outer + lid(0)])));
    acc_n_inner[lid(0)] = neutral_n_inner + acc_n_outer;
  }
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_0 depends on total_n_inner_init) */;
  if (127 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[128 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_1 depends on red_n_inner_stage_0) */;
  if (63 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[64 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_2 depends on red_n_inner_stage_1) */;
  if (31 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[32 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_3 depends on red_n_inner_stage_2) */;
  if (15 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[16 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_4 depends on red_n_inner_stage_3) */;
  if (7 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[8 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_5 depends on red_n_inner_stage_4) */;
  if (3 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[4 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_6 depends on red_n_inner_stage_5) */;
  if (1 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[2 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_7 depends on red_n_inner_stage_6) */;
  if (lid(0) == 0)
  {
    acc_n_inner[0] = acc_n_inner[0] + acc_n_inner[1];
    total = acc_n_inner[0];
  }
  barrier(CLK_LOCAL_MEM_FENCE) /* Barrier inserted due to l_barrier */;
  if (-1 + -1 * lid(0) + N >= 0)
  {
    scale = inverse_root(total / N);
    for (int k_outer = 0; k_outer <= -1 + -1 * lid(0) + (255 + N + 255 * lid(0)) / 256; ++k_outer)
    {
      sum[N * gid(0) + 256 * k_outer + lid(0)] = narrow(widen(x[N * gid(0) + 256 * k_outer + lid(0)]) + widen(r[N * gid(0) + 256 * k_outer + lid(0)]));
      y[N * gid(0) + 256 * k_outer + lid(0)] = narrow(widen(narrow(widen(x[N * gid(0) + 256 * k_outer + lid(0)]) + widen(r[N * gid(0) + 256 * k_outer + lid(0)]))) * scale * gain(w[256 * k_outer + lid(0)]));
    }
  }
}
#elif LAYER == 1 && RESIDUAL == 0 && LANES == 1

__kernel void __attribute__ ((reqd_work_group_size(1, 1, 1))) norm(__global act const *__restrict__ x, __global act const *__restrict__ w, __global act const *__restrict__ b, __global act *__restrict__ y, int const M, int const N)
{
  float acc_n;
  float acc_n2;
  float mean;
  float scale;
  float total;

  acc_n = 0.0f;
  acc_n2 = 0.0f;
  for (int n = 0; n <= -1 + N; ++n)
    acc_n = acc_n + widen(x[N * gid(0) + n]);
  mean = acc_n / N;
  for (int n2 = 0; n2 <= -1 + N; ++n2)
    acc_n2 = acc_n2 + (widen(x[N * gid(0) + n2]) + -1.0f * mean) * (widen(x[N * gid(0) + n2]) + -1.0f * mean);
  total = acc_n2;
  scale = inverse_root(total / N);
  for (int k = 0; k <= -1 + N; ++k)
    y[N * gid(0) + k] = narrow((widen(x[N * gid(0) + k]) + -1.0f * mean) * scale * gain(w[k]) + widen(b[k]));
}
#elif LAYER == 1 && RESIDUAL == 0 && LANES == 64

__kernel void __attribute__ ((reqd_work_group_size(64, 1, 1))) norm(__global act const *__restrict__ x, __global act const *__restrict__ w, __global act const *__restrict__ b, __global act *__restrict__ y, int const M, int const N)
{
  __local float acc_n2_inner[64];
  float acc_n2_outer;
  __local float acc_n_inner[64];
  float acc_n_outer;
  __local float mean;
  float neutral_n2_inner;
  float neutral_n_inner;
  float scale;
  __local float total;

  acc_n_inner[lid(0)] = 0.0f;
  neutral_n_inner = 0.0f;
  if (-1 + -1 * lid(0) + N >= 0)
    acc_n_outer = 0.0f;
  acc_n2_inner[lid(0)] = 0.0f;
  neutral_n2_inner = 0.0f;
  if (-1 + -1 * lid(0) + N >= 0)
    acc_n2_outer = 0.0f;
  if (-1 + -1 * lid(0) + N >= 0)
  {
    for (int n_outer = 0; n_outer <= -1 + -1 * lid(0) + (63 + N + 63 * lid(0)) / 64; ++n_outer)
      acc_n_outer = acc_n_outer + widen(x[N * gid(0) + 64 * n_outer + lid(0)]);
    acc_n_inner[lid(0)] = neutral_n_inner + acc_n_outer;
  }
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_0 depends on mean_n_inner_init) */;
  if (31 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[32 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_1 depends on red_n_inner_stage_0) */;
  if (15 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[16 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_2 depends on red_n_inner_stage_1) */;
  if (7 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[8 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_3 depends on red_n_inner_stage_2) */;
  if (3 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[4 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_4 depends on red_n_inner_stage_3) */;
  if (1 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[2 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_5 depends on red_n_inner_stage_4) */;
  if (lid(0) == 0)
  {
    acc_n_inner[0] = acc_n_inner[0] + acc_n_inner[1];
    mean = acc_n_inner[0] / N;
  }
  barrier(CLK_LOCAL_MEM_FENCE) /* Barrier inserted due to l_barrier */;
  if (-1 + -1 * lid(0) + N >= 0)
  {
    for (int n2_outer = 0; n2_outer <= -1 + -1 * lid(0) + (63 + N + 63 * lid(0)) / 64; ++n2_outer)
      acc_n2_outer = acc_n2_outer + (widen(x[N * gid(0) + 64 * n2_outer + lid(0)]) + -1.0f * mean) * (widen(x[N * gid(0) + 64 * n2_outer + lid(0)]) + -1.0f * mean);
    acc_n2_inner[lid(0)] = neutral_n2_inner + acc_n2_outer;
  }
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n2_inner (red_n2_inner_stage_0 depends on total_n2_inner_transfer) */;
  if (31 + -1 * lid(0) >= 0)
    acc_n2_inner[lid(0)] = acc_n2_inner[lid(0)] + acc_n2_inner[32 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n2_inner (red_n2_inner_stage_1 depends on red_n2_inner_stage_0) */;
  if (15 + -1 * lid(0) >= 0)
    acc_n2_inner[lid(0)] = acc_n2_inner[lid(0)] + acc_n2_inner[16 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n2_inner (red_n2_inner_stage_2 depends on red_n2_inner_stage_1) */;
  if (7 + -1 * lid(0) >= 0)
    acc_n2_inner[lid(0)] = acc_n2_inner[lid(0)] + acc_n2_inner[8 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n2_inner (red_n2_inner_stage_3 depends on red_n2_inner_stage_2) */;
  if (3 + -1 * lid(0) >= 0)
    acc_n2_inner[lid(0)] = acc_n2_inner[lid(0)] + acc_n2_inner[4 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n2_inner (red_n2_inner_stage_4 depends on red_n2_inner_stage_3) */;
  if (1 + -1 * lid(0) >= 0)
    acc_n2_inner[lid(0)] = acc_n2_inner[lid(0)] + acc_n2_inner[2 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n2_inner (red_n2_inner_stage_5 depends on red_n2_inner_stage_4) */;
  if (lid(0) == 0)
  {
    acc_n2_inner[0] = acc_n2_inner[0] + acc_n2_inner[1];
    total = acc_n2_inner[0];
  }
  barrier(CLK_LOCAL_MEM_FENCE) /* Barrier inserted due to l_barrier_0 */;
  if (-1 + -1 * lid(0) + N >= 0)
  {
    scale = inverse_root(total / N);
    for (int k_outer = 0; k_outer <= -1 + -1 * lid(0) + (63 + N + 63 * lid(0)) / 64; ++k_outer)
      y[N * gid(0) + 64 * k_outer + lid(0)] = narrow((widen(x[N * gid(0) + 64 * k_outer + lid(0)]) + -1.0f * mean) * scale * gain(w[64 * k_outer + lid(0)]) + widen(b[64 * k_outer + lid(0)]));
  }
}
#elif LAYER == 1 && RESIDUAL == 0 && LANES == 256

__kernel void __attribute__ ((reqd_work_group_size(256, 1, 1))) norm(__global act const *__restrict__ x, __global act const *__restrict__ w, __global act const *__restrict__ b, __global act *__restrict__ y, int const M, int const N)
{
  __local float acc_n2_inner[256];
  float acc_n2_outer;
  __local float acc_n_inner[256];
  float acc_n_outer;
  __local float mean;
  float neutral_n2_inner;
  float neutral_n_inner;
  float scale;
  __local float total;

  acc_n_inner[lid(0)] = 0.0f;
  neutral_n_inner = 0.0f;
  if (-1 + -1 * lid(0) + N >= 0)
    acc_n_outer = 0.0f;
  acc_n2_inner[lid(0)] = 0.0f;
  neutral_n2_inner = 0.0f;
  if (-1 + -1 * lid(0) + N >= 0)
    acc_n2_outer = 0.0f;
  if (-1 + -1 * lid(0) + N >= 0)
  {
    for (int n_outer = 0; n_outer <= -1 + -1 * lid(0) + (255 + N + 255 * lid(0)) / 256; ++n_outer)
      acc_n_outer = acc_n_outer + widen(x[N * gid(0) + 256 * n_outer + lid(0)]);
    acc_n_inner[lid(0)] = neutral_n_inner + acc_n_outer;
  }
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_0 depends on mean_n_inner_init) */;
  if (127 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[128 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_1 depends on red_n_inner_stage_0) */;
  if (63 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[64 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_2 depends on red_n_inner_stage_1) */;
  if (31 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[32 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_3 depends on red_n_inner_stage_2) */;
  if (15 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[16 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_4 depends on red_n_inner_stage_3) */;
  if (7 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[8 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_5 depends on red_n_inner_stage_4) */;
  if (3 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[4 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_6 depends on red_n_inner_stage_5) */;
  if (1 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[2 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_7 depends on red_n_inner_stage_6) */;
  if (lid(0) == 0)
  {
    acc_n_inner[0] = acc_n_inner[0] + acc_n_inner[1];
    mean = acc_n_inner[0] / N;
  }
  barrier(CLK_LOCAL_MEM_FENCE) /* Barrier inserted due to l_barrier */;
  if (-1 + -1 * lid(0) + N >= 0)
  {
    for (int n2_outer = 0; n2_outer <= -1 + -1 * lid(0) + (255 + N + 255 * lid(0)) / 256; ++n2_outer)
      acc_n2_outer = acc_n2_outer + (widen(x[N * gid(0) + 256 * n2_outer + lid(0)]) + -1.0f * mean) * (widen(x[N * gid(0) + 256 * n2_outer + lid(0)]) + -1.0f * mean);
    acc_n2_inner[lid(0)] = neutral_n2_inner + acc_n2_outer;
  }
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n2_inner (red_n2_inner_stage_0 depends on total_n2_inner_transfer) */;
  if (127 + -1 * lid(0) >= 0)
    acc_n2_inner[lid(0)] = acc_n2_inner[lid(0)] + acc_n2_inner[128 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n2_inner (red_n2_inner_stage_1 depends on red_n2_inner_stage_0) */;
  if (63 + -1 * lid(0) >= 0)
    acc_n2_inner[lid(0)] = acc_n2_inner[lid(0)] + acc_n2_inner[64 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n2_inner (red_n2_inner_stage_2 depends on red_n2_inner_stage_1) */;
  if (31 + -1 * lid(0) >= 0)
    acc_n2_inner[lid(0)] = acc_n2_inner[lid(0)] + acc_n2_inner[32 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n2_inner (red_n2_inner_stage_3 depends on red_n2_inner_stage_2) */;
  if (15 + -1 * lid(0) >= 0)
    acc_n2_inner[lid(0)] = acc_n2_inner[lid(0)] + acc_n2_inner[16 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n2_inner (red_n2_inner_stage_4 depends on red_n2_inner_stage_3) */;
  if (7 + -1 * lid(0) >= 0)
    acc_n2_inner[lid(0)] = acc_n2_inner[lid(0)] + acc_n2_inner[8 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n2_inner (red_n2_inner_stage_5 depends on red_n2_inner_stage_4) */;
  if (3 + -1 * lid(0) >= 0)
    acc_n2_inner[lid(0)] = acc_n2_inner[lid(0)] + acc_n2_inner[4 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n2_inner (red_n2_inner_stage_6 depends on red_n2_inner_stage_5) */;
  if (1 + -1 * lid(0) >= 0)
    acc_n2_inner[lid(0)] = acc_n2_inner[lid(0)] + acc_n2_inner[2 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n2_inner (red_n2_inner_stage_7 depends on red_n2_inner_stage_6) */;
  if (lid(0) == 0)
  {
    acc_n2_inner[0] = acc_n2_inner[0] + acc_n2_inner[1];
    total = acc_n2_inner[0];
  }
  barrier(CLK_LOCAL_MEM_FENCE) /* Barrier inserted due to l_barrier_0 */;
  if (-1 + -1 * lid(0) + N >= 0)
  {
    scale = inverse_root(total / N);
    for (int k_outer = 0; k_outer <= -1 + -1 * lid(0) + (255 + N + 255 * lid(0)) / 256; ++k_outer)
      y[N * gid(0) + 256 * k_outer + lid(0)] = narrow((widen(x[N * gid(0) + 256 * k_outer + lid(0)]) + -1.0f * mean) * scale * gain(w[256 * k_outer + lid(0)]) + widen(b[256 * k_outer + lid(0)]));
  }
}
#elif LAYER == 1 && RESIDUAL == 1 && LANES == 1

__kernel void __attribute__ ((reqd_work_group_size(1, 1, 1))) norm(__global act const *__restrict__ x, __global act const *__restrict__ r, __global act const *__restrict__ w, __global act const *__restrict__ b, __global act *__restrict__ sum, __global act *__restrict__ y, int const M, int const N)
{
  float acc_n;
  float acc_n2;
  float mean;
  float scale;
  float total;

  acc_n = 0.0f;
  acc_n2 = 0.0f;
  for (int n = 0; n <= -1 + N; ++n)
    acc_n = acc_n + widen(narrow(widen(x[N * gid(0) + n]) + widen(r[N * gid(0) + n])));
  mean = acc_n / N;
  for (int n2 = 0; n2 <= -1 + N; ++n2)
    acc_n2 = acc_n2 + (widen(narrow(widen(x[N * gid(0) + n2]) + widen(r[N * gid(0) + n2]))) + -1.0f * mean) * (widen(narrow(widen(x[N * gid(0) + n2]) + widen(r[N * gid(0) + n2]))) + -1.0f * mean);
  total = acc_n2;
  scale = inverse_root(total / N);
  for (int k = 0; k <= -1 + N; ++k)
  {
    sum[N * gid(0) + k] = narrow(widen(x[N * gid(0) + k]) + widen(r[N * gid(0) + k]));
    y[N * gid(0) + k] = narrow((widen(narrow(widen(x[N * gid(0) + k]) + widen(r[N * gid(0) + k]))) + -1.0f * mean) * scale * gain(w[k]) + widen(b[k]));
  }
}
#elif LAYER == 1 && RESIDUAL == 1 && LANES == 64

__kernel void __attribute__ ((reqd_work_group_size(64, 1, 1))) norm(__global act const *__restrict__ x, __global act const *__restrict__ r, __global act const *__restrict__ w, __global act const *__restrict__ b, __global act *__restrict__ sum, __global act *__restrict__ y, int const M, int const N)
{
  __local float acc_n2_inner[64];
  float acc_n2_outer;
  __local float acc_n_inner[64];
  float acc_n_outer;
  __local float mean;
  float neutral_n2_inner;
  float neutral_n_inner;
  float scale;
  __local float total;

  acc_n_inner[lid(0)] = 0.0f;
  neutral_n_inner = 0.0f;
  if (-1 + -1 * lid(0) + N >= 0)
    acc_n_outer = 0.0f;
  acc_n2_inner[lid(0)] = 0.0f;
  neutral_n2_inner = 0.0f;
  if (-1 + -1 * lid(0) + N >= 0)
    acc_n2_outer = 0.0f;
  if (-1 + -1 * lid(0) + N >= 0)
  {
    for (int n_outer = 0; n_outer <= -1 + -1 * lid(0) + (63 + N + 63 * lid(0)) / 64; ++n_outer)
      acc_n_outer = acc_n_outer + widen(narrow(widen(x[N * gid(0) + 64 * n_outer + lid(0)]) + widen(r[N * gid(0) + 64 * n_outer + lid(0)])));
    acc_n_inner[lid(0)] = neutral_n_inner + acc_n_outer;
  }
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_0 depends on mean_n_inner_init) */;
  if (31 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[32 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_1 depends on red_n_inner_stage_0) */;
  if (15 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[16 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_2 depends on red_n_inner_stage_1) */;
  if (7 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[8 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_3 depends on red_n_inner_stage_2) */;
  if (3 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[4 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_4 depends on red_n_inner_stage_3) */;
  if (1 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[2 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_5 depends on red_n_inner_stage_4) */;
  if (lid(0) == 0)
  {
    acc_n_inner[0] = acc_n_inner[0] + acc_n_inner[1];
    mean = acc_n_inner[0] / N;
  }
  barrier(CLK_LOCAL_MEM_FENCE) /* Barrier inserted due to l_barrier */;
  if (-1 + -1 * lid(0) + N >= 0)
  {
    for (int n2_outer = 0; n2_outer <= -1 + -1 * lid(0) + (63 + N + 63 * lid(0)) / 64; ++n2_outer)
      acc_n2_outer = acc_n2_outer + (widen(narrow(widen(x[N * gid(0) + 64 * n2_outer + lid(0)]) + widen(r[N * gid(0) + 64 * n2_outer + lid(0)]))) + -1.0f * mean) * (widen(narrow(widen(x[N * gid(0) + 64 * n2_outer + lid(0)]) + widen(r[N * gid(0) + 64 * n2_outer + lid(0)]))) + -1.0f * mean);
    acc_n2_inner[lid(0)] = neutral_n2_inner + acc_n2_outer;
  }
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n2_inner (red_n2_inner_stage_0 depends on total_n2_inner_transfer) */;
  if (31 + -1 * lid(0) >= 0)
    acc_n2_inner[lid(0)] = acc_n2_inner[lid(0)] + acc_n2_inner[32 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n2_inner (red_n2_inner_stage_1 depends on red_n2_inner_stage_0) */;
  if (15 + -1 * lid(0) >= 0)
    acc_n2_inner[lid(0)] = acc_n2_inner[lid(0)] + acc_n2_inner[16 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n2_inner (red_n2_inner_stage_2 depends on red_n2_inner_stage_1) */;
  if (7 + -1 * lid(0) >= 0)
    acc_n2_inner[lid(0)] = acc_n2_inner[lid(0)] + acc_n2_inner[8 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n2_inner (red_n2_inner_stage_3 depends on red_n2_inner_stage_2) */;
  if (3 + -1 * lid(0) >= 0)
    acc_n2_inner[lid(0)] = acc_n2_inner[lid(0)] + acc_n2_inner[4 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n2_inner (red_n2_inner_stage_4 depends on red_n2_inner_stage_3) */;
  if (1 + -1 * lid(0) >= 0)
    acc_n2_inner[lid(0)] = acc_n2_inner[lid(0)] + acc_n2_inner[2 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n2_inner (red_n2_inner_stage_5 depends on red_n2_inner_stage_4) */;
  if (lid(0) == 0)
  {
    acc_n2_inner[0] = acc_n2_inner[0] + acc_n2_inner[1];
    total = acc_n2_inner[0];
  }
  barrier(CLK_LOCAL_MEM_FENCE) /* Barrier inserted due to l_barrier_0 */;
  if (-1 + -1 * lid(0) + N >= 0)
  {
    scale = inverse_root(total / N);
    for (int k_outer = 0; k_outer <= -1 + -1 * lid(0) + (63 + N + 63 * lid(0)) / 64; ++k_outer)
    {
      sum[N * gid(0) + 64 * k_outer + lid(0)] = narrow(widen(x[N * gid(0) + 64 * k_outer + lid(0)]) + widen(r[N * gid(0) + 64 * k_outer + lid(0)]));
      y[N * gid(0) + 64 * k_outer + lid(0)] = narrow((widen(narrow(widen(x[N * gid(0) + 64 * k_outer + lid(0)]) + widen(r[N * gid(0) + 64 * k_outer + lid(0)]))) + -1.0f * mean) * scale * gain(w[64 * k_outer + lid(0)]) + widen(b[64 * k_outer + lid(0)]));
    }
  }
}
#elif LAYER == 1 && RESIDUAL == 1 && LANES == 256

__kernel void __attribute__ ((reqd_work_group_size(256, 1, 1))) norm(__global act const *__restrict__ x, __global act const *__restrict__ r, __global act const *__restrict__ w, __global act const *__restrict__ b, __global act *__restrict__ sum, __global act *__restrict__ y, int const M, int const N)
{
  __local float acc_n2_inner[256];
  float acc_n2_outer;
  __local float acc_n_inner[256];
  float acc_n_outer;
  __local float mean;
  float neutral_n2_inner;
  float neutral_n_inner;
  float scale;
  __local float total;

  acc_n_inner[lid(0)] = 0.0f;
  neutral_n_inner = 0.0f;
  if (-1 + -1 * lid(0) + N >= 0)
    acc_n_outer = 0.0f;
  acc_n2_inner[lid(0)] = 0.0f;
  neutral_n2_inner = 0.0f;
  if (-1 + -1 * lid(0) + N >= 0)
    acc_n2_outer = 0.0f;
  if (-1 + -1 * lid(0) + N >= 0)
  {
    for (int n_outer = 0; n_outer <= -1 + -1 * lid(0) + (255 + N + 255 * lid(0)) / 256; ++n_outer)
      acc_n_outer = acc_n_outer + widen(narrow(widen(x[N * gid(0) + 256 * n_outer + lid(0)]) + widen(r[N * gid(0) + 256 * n_outer + lid(0)])));
    acc_n_inner[lid(0)] = neutral_n_inner + acc_n_outer;
  }
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_0 depends on mean_n_inner_init) */;
  if (127 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[128 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_1 depends on red_n_inner_stage_0) */;
  if (63 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[64 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_2 depends on red_n_inner_stage_1) */;
  if (31 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[32 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_3 depends on red_n_inner_stage_2) */;
  if (15 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[16 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_4 depends on red_n_inner_stage_3) */;
  if (7 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[8 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_5 depends on red_n_inner_stage_4) */;
  if (3 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[4 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_6 depends on red_n_inner_stage_5) */;
  if (1 + -1 * lid(0) >= 0)
    acc_n_inner[lid(0)] = acc_n_inner[lid(0)] + acc_n_inner[2 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n_inner (red_n_inner_stage_7 depends on red_n_inner_stage_6) */;
  if (lid(0) == 0)
  {
    acc_n_inner[0] = acc_n_inner[0] + acc_n_inner[1];
    mean = acc_n_inner[0] / N;
  }
  barrier(CLK_LOCAL_MEM_FENCE) /* Barrier inserted due to l_barrier */;
  if (-1 + -1 * lid(0) + N >= 0)
  {
    for (int n2_outer = 0; n2_outer <= -1 + -1 * lid(0) + (255 + N + 255 * lid(0)) / 256; ++n2_outer)
      acc_n2_outer = acc_n2_outer + (widen(narrow(widen(x[N * gid(0) + 256 * n2_outer + lid(0)]) + widen(r[N * gid(0) + 256 * n2_outer + lid(0)]))) + -1.0f * mean) * (widen(narrow(widen(x[N * gid(0) + 256 * n2_outer + lid(0)]) + widen(r[N * gid(0) + 256 * n2_outer + lid(0)]))) + -1.0f * mean);
    acc_n2_inner[lid(0)] = neutral_n2_inner + acc_n2_outer;
  }
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n2_inner (red_n2_inner_stage_0 depends on total_n2_inner_transfer) */;
  if (127 + -1 * lid(0) >= 0)
    acc_n2_inner[lid(0)] = acc_n2_inner[lid(0)] + acc_n2_inner[128 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n2_inner (red_n2_inner_stage_1 depends on red_n2_inner_stage_0) */;
  if (63 + -1 * lid(0) >= 0)
    acc_n2_inner[lid(0)] = acc_n2_inner[lid(0)] + acc_n2_inner[64 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n2_inner (red_n2_inner_stage_2 depends on red_n2_inner_stage_1) */;
  if (31 + -1 * lid(0) >= 0)
    acc_n2_inner[lid(0)] = acc_n2_inner[lid(0)] + acc_n2_inner[32 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n2_inner (red_n2_inner_stage_3 depends on red_n2_inner_stage_2) */;
  if (15 + -1 * lid(0) >= 0)
    acc_n2_inner[lid(0)] = acc_n2_inner[lid(0)] + acc_n2_inner[16 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n2_inner (red_n2_inner_stage_4 depends on red_n2_inner_stage_3) */;
  if (7 + -1 * lid(0) >= 0)
    acc_n2_inner[lid(0)] = acc_n2_inner[lid(0)] + acc_n2_inner[8 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n2_inner (red_n2_inner_stage_5 depends on red_n2_inner_stage_4) */;
  if (3 + -1 * lid(0) >= 0)
    acc_n2_inner[lid(0)] = acc_n2_inner[lid(0)] + acc_n2_inner[4 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n2_inner (red_n2_inner_stage_6 depends on red_n2_inner_stage_5) */;
  if (1 + -1 * lid(0) >= 0)
    acc_n2_inner[lid(0)] = acc_n2_inner[lid(0)] + acc_n2_inner[2 + lid(0)];
  barrier(CLK_LOCAL_MEM_FENCE) /* for acc_n2_inner (red_n2_inner_stage_7 depends on red_n2_inner_stage_6) */;
  if (lid(0) == 0)
  {
    acc_n2_inner[0] = acc_n2_inner[0] + acc_n2_inner[1];
    total = acc_n2_inner[0];
  }
  barrier(CLK_LOCAL_MEM_FENCE) /* Barrier inserted due to l_barrier_0 */;
  if (-1 + -1 * lid(0) + N >= 0)
  {
    scale = inverse_root(total / N);
    for (int k_outer = 0; k_outer <= -1 + -1 * lid(0) + (255 + N + 255 * lid(0)) / 256; ++k_outer)
    {
      sum[N * gid(0) + 256 * k_outer + lid(0)] = narrow(widen(x[N * gid(0) + 256 * k_outer + lid(0)]) + widen(r[N * gid(0) + 256 * k_outer + lid(0)]));
      y[N * gid(0) + 256 * k_outer + lid(0)] = narrow((widen(narrow(widen(x[N * gid(0) + 256 * k_outer + lid(0)]) + widen(r[N * gid(0) + 256 * k_outer + lid(0)]))) + -1.0f * mean) * scale * gain(w[256 * k_outer + lid(0)]) + widen(b[256 * k_outer + lid(0)]));
    }
  }
}
#endif
