"""`split_k`: K split over work-groups, partial sums in scratch, a second launch that adds them."""

from __future__ import annotations

from kernels import linear
from kernels.gemv_decode import outputs
from kernels.source import source
from kernels.spec import (
    Ceil,
    Config,
    DeviceSheet,
    Launch,
    Rule,
    Schedule,
    Scratch,
    Size,
    Traffic,
    Variant,
    Workload,
    evaluate,
)


def _grid(config: Config) -> tuple[Size, ...]:
    per_group = config["WG"] * config["VEC"] * config["BLOCKS"]
    return (Ceil("N", per_group), config["WG"]), (config["SPLITS"],), outputs.token_tiles(config)


def _schedule(config: Config, workload: Workload) -> Schedule:
    lanes = config["WG"]
    products = Launch("gemv", _grid(config), (lanes, 1, 1), outputs.arguments(workload, "partial"))
    reduction = Launch("reduce", ((Ceil("N", lanes), lanes), (Ceil("M", 1),)), (lanes, 1), ("partial", "y", "M", "N"))
    return Schedule((products, reduction), (Scratch("partial", _partial_bytes(config)),))


def _partial_bytes(config: Config) -> Size:
    return (4, config["SPLITS"], Ceil("M", 1), Ceil("N", 1))


def _traffic(config: Config, workload: Workload, sheet: DeviceSheet) -> Traffic:
    items = 1
    for size in _grid(config):
        items *= evaluate(size, workload.dims)
    once = outputs.traffic(config, workload, items, outputs.local_bytes(config, workload))
    partial = evaluate(_partial_bytes(config), workload.dims)
    return Traffic(
        once.read_bytes + partial,
        once.write_bytes + partial,
        once.flops + partial / 4,
        once.local_bytes,
        once.registers,
        items,
    )


SPLIT_K = Variant(
    name="split_k",
    source=source("gemv_decode", "split_k.cl"),
    params={
        "P": linear.PANELS,
        "VEC": (1, 2, 4, 8, 16),
        "BLOCKS": (1, 2, 4),
        "WG": (1, 64, 128, 256),
        "SPLITS": (2, 4, 8, 16),
        "MT": outputs.TOKENS,
        "XLOCAL": (0, 1),
        "UNROLL": (2,),
        "DECODE": (1, 2),
    },
    default={"P": 64, "VEC": 1, "BLOCKS": 1, "WG": 64, "SPLITS": 4, "MT": 1, "XLOCAL": 0, "UNROLL": 2, "DECODE": 1},
    rules=(
        outputs.DECODE_RULE,
        outputs.PANEL_RULE,
        outputs.TOKENS_RULE,
        outputs.HALF_RULE,
        outputs.LOAD_RULE,
        outputs.WG_RULE,
        Rule(
            "a CPU has explicit vectors and one work-item a group, a GPU whole waves",
            ("WG", "VEC"),
            lambda c, w, s: (c["WG"] == 1 and c["VEC"] >= 8) if s.kind == "cpu" else c["WG"] > 1,
        ),
        Rule(
            "every range of K has a group",
            ("SPLITS",),
            lambda c, w, s: w.dims["K"] >= c["SPLITS"] * linear.chunk(w),
        ),
        outputs.CODE_RULE,
        outputs.register_rule("VEC", "BLOCKS", "MT"),
        outputs.STAGED_RULE,
    ),
    schedule=_schedule,
    traffic=_traffic,
    layouts=linear.layouts,
    workload_rules=(outputs.FLOAT_ONLY,),
)
