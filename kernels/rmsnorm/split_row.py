"""`split_row`: one row over several work-groups, in two launches."""

from __future__ import annotations

from kernels.rmsnorm.norm import Options, least_cost
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
    return (config["SPLITS"], config["WG"]), (Ceil("M", 1),)


def _partial_bytes(config: Config) -> Size:
    return (4, 2, config["SPLITS"], Ceil("M", 1))


def _schedule(config: Config, workload: Workload) -> Schedule:
    options = Options.of(workload)
    grid, local = _grid(config), (config["WG"], 1)
    source_args = ("x", "r", "sum") if options.residual else ("x",)
    gain = ("w", "b") if options.norm == "layer" else ("w",)
    stored = source_args[-1]
    sums = Launch("sums", grid, local, (*source_args, "partial", "M", "N"))
    norm = Launch("norm", grid, local, (stored, *gain, "partial", "y", "M", "N"))
    return Schedule((sums, norm), (Scratch("partial", _partial_bytes(config)),))


def _traffic(config: Config, workload: Workload, sheet: DeviceSheet) -> Traffic:
    """The second launch reads the row again, and the partial sums."""
    cost = least_cost(workload)
    M, N = workload.dims["M"], workload.dims["N"]
    again = M * N * (2 if workload.dtypes.act == "fp16" else 4)
    partial = evaluate(_partial_bytes(config), workload.dims)
    items = M * config["SPLITS"] * config["WG"]
    local = 4 * int(config["WG"])
    return Traffic(
        cost.bytes - cost.written + again + partial,
        cost.written + partial,
        cost.flops + M * config["SPLITS"],
        local,
        6 * int(config["VEC"]),
        items,
    )


SPLIT_ROW = Variant(
    name="split_row",
    source=source("rmsnorm", "split_row.cl"),
    params={"VEC": (1, 2, 4, 8, 16), "WG": (1, 64, 128, 256), "SPLITS": (2, 4, 8, 16)},
    default={"VEC": 4, "WG": 64, "SPLITS": 4},
    rules=(
        Rule("the work-group is allowed", ("WG",), lambda c, w, s: c["WG"] <= s.max_work_group),
        Rule(
            "a CPU has explicit vectors and one work-item a group, a GPU whole waves and loads of 128 bits",
            ("WG", "VEC"),
            lambda c, w, s: (c["WG"] == 1 and c["VEC"] >= 8) if s.kind == "cpu" else (c["WG"] > 1 and c["VEC"] <= 8),
        ),
        Rule(
            "every work-item has a vector of the row",
            ("VEC", "WG", "SPLITS"),
            lambda c, w, s: c["VEC"] * c["WG"] * c["SPLITS"] <= w.dims["N"],
            prunes=True,
        ),
    ),
    schedule=_schedule,
    traffic=_traffic,
    layouts=lambda c, w: {},
    workload_rules=(
        Rule(
            "codes need the largest |y| of a row, which no part of it knows", (), lambda c, w, s: not Options.of(w).int8
        ),
        Rule("there are few rows", (), lambda c, w, s: w.dims["M"] <= 16),
    ),
)
