"""A family small enough to reason about, with bugs that can be switched on: what the harness's tests measure.

y = w * x and acc += x, with one scratch buffer in between.
"""

from collections.abc import Mapping

import numpy as np

from kernels.spec import (
    Abi,
    Arg,
    Case,
    Ceil,
    Cost,
    DeviceSheet,
    DTypes,
    Family,
    Launch,
    Rule,
    Schedule,
    Scratch,
    Stored,
    Tolerance,
    Traffic,
    Variant,
    Workload,
)

SOURCE = """
#ifndef WG
#define WG 64
#endif
#ifndef BUG
#define BUG 0
#endif
__kernel void multiply(__global const float *x, __global const float *w, __global float *s, int N) {
    int i = get_global_id(0);
    if (i < N) s[i] = w[i] * x[i];
    if (BUG == 1 && i == 0) s[N] = 1.0f;
}
__kernel void add(__global const float *x, __global const float *s, __global float *y, __global float *acc, int N) {
    int i = get_global_id(0);
    if (i >= N || (BUG == 2 && i == N - 1)) return;
    y[i] = s[i] + (BUG == 3 && i == 3 ? 0.5f : 0.0f);
    acc[i] += x[i];
    if (BUG == 4 && i == 0) y[N + 2] = 1.0f;
    if (BUG == 5 && i == 0) acc[-1] = 1.0f;
}
#if BUG == 6
this does not compile
#endif
"""

FINE, SCRATCH_OVERRUN, UNWRITTEN, WRONG_VALUE, OUTPUT_OVERRUN, INOUT_UNDERRUN, NO_BUILD = range(7)


def schedule(config: Mapping[str, int], workload: Workload) -> Schedule:
    wg = config["WG"]
    grid = ((wg, Ceil("N", wg)),)
    return Schedule(
        launches=(
            Launch("multiply", grid, (wg,), ("x", "w", "s", "N")),
            Launch("add", grid, (wg,), ("x", "s", "y", "acc", "N")),
        ),
        scratch=(Scratch("s", (4, Ceil("N", 1))),),
    )


def case(workload: Workload, seed: int) -> Case:
    rng = np.random.default_rng(seed)
    x, w, acc = (rng.standard_normal(workload.dims["N"]).astype(np.float32) for _ in range(3))
    return Case(
        pack=lambda layouts: {"x": x, "w": w, "acc": acc},
        outputs={"y": Stored(np.dtype(np.float32), x.shape)},
        expected={"y": w.astype(np.float64) * x, "acc": acc.astype(np.float64) + x},
        tolerance=Tolerance(nmse=1e-12, max_scaled=1e-5),
    )


PLAIN = Variant(
    name="plain",
    source=SOURCE,
    params={"WG": (1, 16, 64, 100_000), "BUG": tuple(range(7))},
    default={"WG": 16, "BUG": FINE},
    rules=(Rule("the group divides 64 or is absurd", ("WG",), lambda c, w, s: c["WG"] in (1, 16, 64, 100_000)),),
    schedule=schedule,
    traffic=lambda config, workload, sheet: Traffic(1, 1, 1),
    layouts=lambda config, workload: {"w": "plain"},
    any_local=True,
)

FAMILY = Family(
    name="toy",
    about="y = w * x and acc += x",
    abi=Abi(
        1,
        (
            Arg("x", "input", "N floats"),
            Arg("w", "weight", "N floats"),
            Arg("y", "output", "N floats"),
            Arg("acc", "inout", "N floats"),
            Arg("N", "dim", ""),
        ),
    ),
    dims=("N",),
    case=case,
    cost=lambda workload: Cost(flops=2.0 * workload.dims["N"], bytes=20.0 * workload.dims["N"]),
    defines=lambda workload: {},
    variants=(PLAIN,),
    default=lambda workload, sheet: PLAIN.config(),
    workload_rules=(),
    awkward=lambda workload: (workload.with_dims(N=1), workload.with_dims(N=33)),
    cover=lambda: (),
    jobs=lambda sheet, ask: ([], []),
)

SHEET = DeviceSheet(
    name="toy",
    vendor="",
    kind="cpu",
    max_work_group=1024,
    max_work_item_sizes=(1024, 1024, 1024),
    local_bytes=32 << 10,
    max_alloc_bytes=1 << 30,
    global_bytes=1 << 32,
    compute_units=2,
    cache_bytes=1 << 20,
    image2d=None,
    image_pitch_texels=0,
    image_base_texels=0,
    subgroup_sizes=(),
    extensions=frozenset(),
    opencl_c=(1, 2),
)


def workload(n: int = 1000) -> Workload:
    return Workload("toy", {"N": n}, DTypes("fp32", "fp32", "fp32"))
