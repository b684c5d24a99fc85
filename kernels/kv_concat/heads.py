"""`heads`: one work-item per head of some new rows, through private memory."""

from __future__ import annotations

from kernels.cache import cache_layouts
from kernels.kv_concat import shared
from kernels.source import source
from kernels.spec import Ceil, Config, DeviceSheet, Launch, Rule, Schedule, Size, Traffic, Variant, Workload, evaluate


def _grid(config: Config, workload: Workload) -> tuple[Size, ...]:
    return (Ceil("M", config["ROWS"] * config["WG"]), config["WG"]), (Ceil(shared.heads(workload), config["HEADS"]),)


def _schedule(config: Config, workload: Workload) -> Schedule:
    return Schedule((Launch("concat", _grid(config, workload), (config["WG"], 1), shared.arguments(workload)),))


def _traffic(config: Config, workload: Workload, sheet: DeviceSheet) -> Traffic:
    rows, heads = (evaluate(size, workload.dims) for size in _grid(config, workload))
    return shared.traffic(workload, rows * heads, registers=min(128, workload.dims["D"]))


def _tiles(config: Config, workload: Workload, sheet: DeviceSheet) -> bool:
    return bool(config["TILE"] == 1 or max(config["KL"], config["VL"]) >= config["TILE"])


def _whole_blocks(config: Config, workload: Workload, sheet: DeviceSheet) -> bool:
    """A tile goes out in blocks of four words of units by four words of positions."""
    units = workload.dims["D"] // (2 if workload.dtypes.cache == "int4" else 1)
    per_word = 2 if workload.dtypes.cache == "fp16" else 4
    return bool(config["TILE"] == 1 or (units % (4 * per_word) == 0 and config["TILE"] % (4 * per_word) == 0))


HEADS = Variant(
    name="heads",
    source=source("kv_concat", "heads.cl"),
    params={
        **shared.LAYOUTS,
        "VEC": (1, 2, 4, 8, 16),
        "ROWS": (1, 16, 64),
        "TILE": (1, 8, 16),
        "AHEAD": (0, 1, 16),
        "HEADS": (1, 2, 8, 32),
        "WG": (1, 4, 64, 256),
    },
    default={"KL": 1, "VL": 1, "VEC": 4, "ROWS": 1, "TILE": 1, "AHEAD": 0, "HEADS": 1, "WG": 64},
    rules=(
        shared.PAIRS_RULE,
        Rule(
            "vectors are the widest that the head allows, or half or a quarter",
            ("VEC",),
            lambda c, w, s: c["VEC"] * 4 >= shared.widest(w),
            prunes=True,
        ),
        Rule("a GPU loads 128 bits at most", ("VEC",), lambda c, w, s: s.kind == "cpu" or c["VEC"] <= 8),
        Rule("rows go together where a panel puts them side by side", ("TILE", "KL", "VL"), _tiles),
        Rule("a tile is whole blocks of words", ("TILE",), _whole_blocks),
        Rule("rows are whole tiles", ("ROWS", "TILE"), lambda c, w, s: c["ROWS"] >= c["TILE"]),
        Rule(
            "a work-item's rows are no more than there are",
            ("ROWS",),
            lambda c, w, s: c["ROWS"] < 2 * w.dims["M"],
            prunes=True,
        ),
        Rule("rows ahead exist", ("AHEAD",), lambda c, w, s: c["AHEAD"] < w.dims["M"], prunes=True),
        Rule("a CPU alone fetches ahead", ("AHEAD",), lambda c, w, s: c["AHEAD"] == 0 or s.kind == "cpu"),
        Rule(
            "a CPU's work-groups are small, a GPU's are waves",
            ("WG",),
            lambda c, w, s: (c["WG"] <= 4) == (s.kind == "cpu"),
            prunes=True,
        ),
        shared.WG_RULE,
    ),
    schedule=_schedule,
    traffic=_traffic,
    layouts=cache_layouts,
    any_local=True,
)
