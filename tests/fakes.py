"""A small family and a fake `measure`, so that deciding can be tested without a device."""

from collections.abc import Mapping

import numpy as np

from kernels.spec import (
    Abi,
    Arg,
    Case,
    Config,
    Cost,
    DeviceSheet,
    DTypes,
    Family,
    Launch,
    Measurement,
    Rule,
    Schedule,
    Stats,
    Stored,
    Tolerance,
    Traffic,
    Variant,
    Verdict,
    Workload,
)

SHEET = DeviceSheet(
    name="fake",
    vendor="nobody",
    kind="gpu",
    max_work_group=256,
    max_work_item_sizes=(256, 256, 64),
    local_bytes=32768,
    max_alloc_bytes=1 << 30,
    global_bytes=4 << 30,
    compute_units=4,
    cache_bytes=1 << 20,
    image2d=None,
    image_pitch_texels=0,
    image_base_texels=0,
    subgroup_sizes=(),
    extensions=frozenset(),
    opencl_c=(1, 2),
)

DTYPES = DTypes("fp32", "fp32", "fp32")

SOURCE = """
#ifndef WG
#define WG 64 // work-items in a group
#endif
#ifndef VEC
#define VEC 1 // elements a work-item
#endif
__kernel void scale_add(__global const float *x, __global float *y, int N) {
    for (int i = 0; i < VEC; i++) {
        int n = get_global_id(0) * VEC + i;
        if (n < N) y[n] = 2.0f * x[n] + 1.0f;
    }
}
"""


def _variant(name: str, vectors: tuple[int, ...]) -> Variant:
    return Variant(
        name=name,
        source=SOURCE,
        params={"WG": (32, 64, 128, 256), "VEC": vectors},
        default={"WG": 64, "VEC": vectors[0]},
        rules=(Rule("a group handles at most 512 elements", ("WG", "VEC"), lambda c, w, s: c["WG"] * c["VEC"] <= 512),),
        schedule=lambda c, w: Schedule((Launch("scale_add", ((4096,),), (c["WG"],), ("x", "y", "N")),)),
        traffic=lambda c, w, s: Traffic(4.0 * w.dims["N"], 4.0 * w.dims["N"], 2.0 * w.dims["N"]),
        layouts=lambda c, w: {"x": f"v{c['VEC']}"},
    )


def _case(workload: Workload, seed: int) -> Case:
    x = np.random.default_rng(seed).standard_normal(workload.dims["N"]).astype(np.float32)

    def pack(layouts: Mapping[str, str]) -> Mapping[str, np.ndarray]:
        return {"x": x}

    return Case(
        pack,
        {"y": Stored(np.dtype(np.float32), x.shape)},
        {"y": 2.0 * x.astype(np.float64) + 1.0},
        Tolerance(1e-12, 1e-5),
    )


FAMILY = Family(
    name="scale_add",
    about="y = 2x + 1",
    abi=Abi(1, (Arg("x", "input", ""), Arg("y", "output", ""), Arg("N", "dim", ""))),
    dims=("N",),
    case=_case,
    cost=lambda w: Cost(2.0 * w.dims["N"], 8.0 * w.dims["N"]),
    defines=lambda w: {},
    variants=(_variant("plain", (1, 2, 4, 8)), _variant("wide", (2, 4, 8, 16))),
    default=lambda w, s: {"variant": "plain", "WG": 64, "VEC": 1},
    workload_rules=(),
    awkward=lambda w: (w.with_dims(N=1), w.with_dims(N=33)),
    cover=lambda: (),
    jobs=lambda sheet, ask: ([], []),
)

WORKLOAD = Workload("scale_add", {"N": 4096}, DTYPES)


def fake_ns(config: Config) -> float:
    """A bowl with its bottom at wide, WG 64, VEC 8."""
    distance = abs(np.log2(config["WG"] / 64)) + abs(np.log2(config["VEC"] / 8)) + (config["variant"] == "plain")
    return 1000.0 * (1.0 + 0.2 * float(distance))


def ok(median_ns: float) -> Measurement:
    return Measurement(
        Verdict.OK, stats=Stats(median_ns, (median_ns * 0.99, median_ns * 1.01), 9), samples_ns=(median_ns,)
    )
