"""`panel`: lanes along outputs, all of K in one work-item."""

from __future__ import annotations

from kernels import linear
from kernels.gemv_decode import outputs
from kernels.source import source
from kernels.spec import Ceil, Config, DeviceSheet, Launch, Rule, Schedule, Traffic, Variant, Workload, evaluate


def _grid(config: Config) -> tuple[tuple[int | Ceil, ...], ...]:
    per_group = config["WG"] * config["VEC"] * config["BLOCKS"]
    return (Ceil("N", per_group), config["WG"]), outputs.token_tiles(config)


def _schedule(config: Config, workload: Workload) -> Schedule:
    return Schedule((Launch("gemv", _grid(config), (config["WG"], 1), outputs.arguments(workload, "y")),))


def _traffic(config: Config, workload: Workload, sheet: DeviceSheet) -> Traffic:
    items = evaluate(_grid(config)[0], workload.dims) * evaluate(_grid(config)[1], workload.dims)
    return outputs.traffic(config, workload, items, outputs.local_bytes(config, workload))


def _suits(config: Config, workload: Workload, sheet: DeviceSheet) -> bool:
    """CPUs want explicit vectors in few work-items, or scalars that the compiler joins; GPUs whole waves."""
    if sheet.kind == "cpu":
        return bool(config["WG"] <= 4 if config["VEC"] >= 4 else config["WG"] in (16, 64))
    return bool(config["WG"] >= 64)


PANEL = Variant(
    name="panel",
    source=source("gemv_decode", "panel.cl"),
    params={
        "P": linear.PANELS,
        "VEC": (1, 2, 4, 8, 16),
        "BLOCKS": (1, 2, 4, 8),
        "WG": (1, 2, 4, 16, 64, 128, 256),
        "MT": outputs.TOKENS,
        "XLOCAL": (0, 1),
        "UNROLL": (1, 2, 4),
        "DECODE": (0, 1, 2),
        "PREFETCH": (0, 64),
    },
    default={"P": 16, "VEC": 4, "BLOCKS": 1, "WG": 64, "MT": 1, "XLOCAL": 0, "UNROLL": 2, "DECODE": 1, "PREFETCH": 0},
    rules=(
        outputs.DECODE_RULE,
        outputs.PANEL_RULE,
        outputs.TOKENS_RULE,
        outputs.HALF_RULE,
        outputs.LOAD_RULE,
        outputs.WG_RULE,
        Rule("the work-group suits the kind of device", ("WG", "VEC"), _suits),
        outputs.CODE_RULE,
        Rule(
            "only a CPU prefetches, one line of 64 bytes at a time",
            ("PREFETCH", "VEC"),
            lambda c, w, s: c["PREFETCH"] == 0 or (s.kind == "cpu" and c["VEC"] == 16),
        ),
        outputs.register_rule("VEC", "BLOCKS", "MT"),
        outputs.STAGED_RULE,
    ),
    schedule=_schedule,
    traffic=_traffic,
    layouts=linear.layouts,
    workload_rules=(outputs.FLOAT_ONLY,),
    any_local=True,
)
