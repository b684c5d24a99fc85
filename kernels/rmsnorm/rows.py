"""`rows`: whole rows by one work-item in wide vectors, for CPUs."""

from __future__ import annotations

from kernels.rmsnorm.norm import Options, least_cost
from kernels.source import source
from kernels.spec import Ceil, Config, DeviceSheet, Launch, Rule, Schedule, Size, Traffic, Variant, Workload, evaluate


def _grid(config: Config) -> tuple[Size, ...]:
    return ((Ceil("M", config["ROWS"] * config["WG"]), config["WG"]),)


def _schedule(config: Config, workload: Workload) -> Schedule:
    return Schedule((Launch("norm", _grid(config), (config["WG"],), Options.of(workload).arguments),))


def _traffic(config: Config, workload: Workload, sheet: DeviceSheet) -> Traffic:
    """Rows are read again from a cache that holds them: only the first reading counts."""
    cost = least_cost(workload)
    registers = config["VEC"] * (config["UNROLL"] * (2 if Options.of(workload).norm == "layer" else 1) + 4)
    items = evaluate(_grid(config)[0], workload.dims)
    return Traffic(cost.bytes - cost.written, cost.written, cost.flops, 0, registers, items)


ROWS = Variant(
    name="rows",
    source=source("rmsnorm", "rows.cl"),
    params={
        "VEC": (4, 8, 16),
        "UNROLL": (1, 2, 4, 8),
        "ROWS": (1, 4, 16, 64),
        "WG": (1, 4, 16, 64),
        "PREFETCH": (0, 1),
    },
    default={"VEC": 8, "UNROLL": 2, "ROWS": 1, "WG": 1, "PREFETCH": 0},
    rules=(
        Rule(
            "a GPU loads 128 bits at most and gives each work-item one row",
            ("VEC", "UNROLL", "ROWS", "WG"),
            lambda c, w, s: s.kind == "cpu" or (c["VEC"], c["UNROLL"], c["ROWS"], c["WG"]) == (4, 4, 1, 64),
            prunes=True,
        ),
        Rule(
            "only a CPU fetches ahead, and for one row",
            ("PREFETCH", "ROWS"),
            lambda c, w, s: c["PREFETCH"] == 0 or (s.kind == "cpu" and c["ROWS"] == 1),
        ),
        Rule(
            "there are rows enough for every work-item and compute unit",
            ("ROWS", "WG"),
            lambda c, w, s: c["ROWS"] * c["WG"] == 1 or c["ROWS"] * c["WG"] * s.compute_units <= w.dims["M"],
            prunes=True,
        ),
    ),
    schedule=_schedule,
    traffic=_traffic,
    layouts=lambda c, w: {},
    any_local=True,
)
