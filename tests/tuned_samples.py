"""A small GEMV-like family, devices and a tuned config for it, so that documents can be tested without a device."""

import dataclasses
from typing import Any

from kernels.entry import make_entry
from kernels.spec import (
    Abi,
    Arg,
    Case,
    Ceil,
    Cost,
    DeviceSheet,
    DTypes,
    Family,
    ImageView,
    Launch,
    Rule,
    Schedule,
    Scratch,
    Traffic,
    Variant,
    Workload,
)
from kernels.tuned import (
    Bucket,
    Deny,
    DeviceFacts,
    Entry,
    EntryStats,
    KernelSection,
    Prediction,
    ProvenOn,
    Route,
    TunedConfig,
    Verification,
)

SHEET = DeviceSheet(
    name="adreno-750",
    vendor="qualcomm",
    kind="gpu",
    max_work_group=1024,
    max_work_item_sizes=(1024, 1024, 1024),
    local_bytes=32768,
    max_alloc_bytes=1 << 30,
    global_bytes=8 << 30,
    compute_units=6,
    cache_bytes=1 << 20,
    image2d=(16384, 16384),
    image_pitch_texels=64,
    image_base_texels=64,
    subgroup_sizes=(64, 128),
    extensions=frozenset({"cl_khr_fp16", "cl_khr_image2d_from_buffer"}),
    opencl_c=(3, 0),
)
DEVICE = DeviceFacts(
    vendor="qualcomm",
    family="adreno-7xx",
    model="adreno-750",
    driver="0676.77",
    compiler="E031.45.02",
    raw={"name": "QUALCOMM Adreno(TM)", "version": "OpenCL 3.0 Adreno(TM) 750"},
    sheet=SHEET,
)

DTYPES = DTypes("fp16", "fp32", "fp32")


def _no_case(workload: Workload, seed: int) -> Case:
    raise AssertionError("documents need no inputs: nothing may ask for them")


ROWS = Variant(
    name="rows",
    source="#ifndef WG\n#define WG 64\n#endif\n__kernel void gemv() {}\n",
    params={"WG": (64, 128), "SPLIT": (1, 4)},
    default={"WG": 64, "SPLIT": 1},
    rules=(Rule("each part of K has 1,024", ("SPLIT",), lambda c, w, s: w.dims["K"] // c["SPLIT"] >= 1024),),
    schedule=lambda c, w: Schedule(
        (
            Launch("gemv", ((Ceil("N", 4), c["WG"]), (Ceil("M", 4),)), (c["WG"], 1), ("x", "w", "part", "M", "N", "K")),
            Launch("sum", ((Ceil("N", 64), 64),), None, ("part", "y", "M", "N")),
        ),
        (Scratch("part", (4, c["SPLIT"], Ceil("M", 1), Ceil("N", 1))),),
    ),
    traffic=lambda c, w, s: Traffic(1.0, 1.0, 1.0, local_bytes=c["WG"] * 16),
    layouts=lambda c, w: {"w": "n16k8"},
)
IMAGE = Variant(
    name="image",
    source="__kernel void gemv(read_only image2d_t w) {}\n",
    params={"WG": (64,)},
    default={"WG": 64},
    rules=(),
    schedule=lambda c, w: Schedule(
        (
            Launch(
                "gemv",
                ((Ceil("N", 1), 64),),
                (64,),
                ("x", ImageView("w", "RGBA", "uint32", (Ceil("K", 32),), (Ceil("N", 1),)), "y", "M", "N", "K"),
            ),
        )
    ),
    traffic=lambda c, w, s: Traffic(1.0, 1.0, 1.0),
    layouts=lambda c, w: {"w": "n1k8"},
    needs=("cl_khr_image2d_from_buffer",),
)
FAMILY = Family(
    name="gemv_decode",
    about="y = x · wᵀ",
    abi=Abi(
        2,
        (
            Arg("x", "input", "[M, K]"),
            Arg("w", "weight", "packed"),
            Arg("y", "output", "[M, N]"),
            *(Arg(dim, "dim", "") for dim in "MNK"),
        ),
    ),
    dims=("M", "N", "K"),
    case=_no_case,
    cost=lambda w: Cost(1.0, 1.0),
    defines=lambda w: {"GROUP": w.format.group},
    variants=(ROWS, IMAGE),
    default=lambda w, s: ROWS.config(WG=64),
    workload_rules=(
        Rule("K is a multiple of the group", (), lambda c, w, s: w.dims["K"] % (w.format.group or 8) == 0),
        Rule("M is 1 to 16", (), lambda c, w, s: w.dims["M"] <= 16),
    ),
    awkward=lambda w: (),
    cover=lambda: (),
    jobs=lambda sheet, ask: ([], []),
    bounds={"M": (1, 16)},
)


def workload(m: int = 1, n: int = 2048, k: int = 2048, weights: str = "int4/g128") -> Workload:
    return Workload("gemv_decode", {"M": m, "N": n, "K": k}, DTYPES, weights)


STATS = EntryStats(123456.5, (120000.0, 125000.25), 200000.0, 130000.0, 81.5, "bandwidth")
VERIFIED = Verification(
    "nmse", 1.5e-7, 1e-6, ("M=1 N=2048 K=2048", "M=1 N=33 K=128"), ProvenOn("adreno-750", "native", 64)
)


def entry(
    name: str,
    bucket: Bucket | None,
    *,
    job: Workload | None = None,
    variant: Variant = ROWS,
    predicted: bool = False,
    alternates: tuple[str, ...] = (),
    **params: int,
) -> Entry:
    return make_entry(
        FAMILY,
        job or workload(),
        variant.config(**params),
        SHEET,
        id=name,
        bucket=bucket,
        verification=VERIFIED,
        stats=None if predicted else STATS,
        prediction=Prediction(1000.0, "bandwidth", "1") if predicted else None,
        alternates=alternates,
    )


def box(m: tuple[int, int | None], n: tuple[int, int | None], k: tuple[int, int | None] = (1, None)) -> Bucket:
    return {"M": m, "N": n, "K": k}


ONE = entry("one", box((1, 1), (1, 8191)), alternates=("spare",))
WIDE = entry("wide", box((1, 1), (8192, None)), job=workload(n=16384), variant=IMAGE, alternates=("spare",))
FEW = entry("few", box((2, 16), (1, None)), job=workload(m=4), WG=128)
SPARE = entry("spare", None, WG=128)


def config(
    *entries: Entry, device: DeviceFacts = DEVICE, deny: tuple[Deny, ...] = (), default: str = ""
) -> TunedConfig:
    entries = entries or (ONE, WIDE, FEW, SPARE)
    section = KernelSection(FAMILY.abi, entries, default or entries[-1].id, deny)
    return TunedConfig(
        device=device,
        protocol={"statistic": "median", "clock_mhz": None},
        provenance={"seed": 0, "counts": {"ok": 3}},
        ops={"matmul": (Route("gemv_decode", None, {"M": (1, 16)}),)},
        kernels={"gemv_decode": section},
    )


def on(device: DeviceFacts = DEVICE, **changes: Any) -> DeviceFacts:
    """The same device with other facts; those of the sheet may be given too."""
    own = {f.name for f in dataclasses.fields(DeviceFacts)}
    limits = {name: value for name, value in changes.items() if name not in own}
    facts = {name: value for name, value in changes.items() if name in own}
    return dataclasses.replace(device, **facts, sheet=dataclasses.replace(device.sheet, **limits))
