"""`pairs`: one work-item per some pairs of a head row, for GPUs and fp16 caches."""

from __future__ import annotations

from kernels.cache import cache_layouts
from kernels.kv_concat import shared
from kernels.source import source
from kernels.spec import Ceil, Config, DeviceSheet, Launch, Rule, Schedule, Size, Traffic, Variant, Workload, evaluate


def _lanes(config: Config, workload: Workload) -> int:
    """Work-items of one head row; a row shorter than a vector is refused by a rule."""
    return max(1, workload.dims["D"] // 2 // int(config["VEC"]))


def _heads_together(config: Config, workload: Workload) -> int:
    """Heads of a work-group whose neighbours are pairs: as many as WG work-items need."""
    return -(-int(config["WG"]) // _lanes(config, workload))


def _local(config: Config, workload: Workload) -> tuple[int, ...]:
    if config["ALONG"]:
        return config["WG"], 1, 1
    return _lanes(config, workload) * _heads_together(config, workload), 1, 1


def _grid(config: Config, workload: Workload) -> tuple[Size, ...]:
    tensors, heads, lanes = shared.tensors(workload), shared.heads(workload), _lanes(config, workload)
    if config["ALONG"]:
        return (Ceil("M", config["WG"]), config["WG"]), (lanes, Ceil(heads, 1)), (tensors,)
    together = _heads_together(config, workload)
    return (lanes * together, Ceil(heads, together)), (Ceil("M", 1),), (tensors,)


def _schedule(config: Config, workload: Workload) -> Schedule:
    grid, local = _grid(config, workload), _local(config, workload)
    return Schedule((Launch("concat", grid, local, shared.arguments(workload)),))


def _traffic(config: Config, workload: Workload, sheet: DeviceSheet) -> Traffic:
    items = 1
    for size in _grid(config, workload):
        items *= evaluate(size, workload.dims)
    return shared.traffic(workload, items, registers=4 * config["VEC"] + 12)


PAIRS = Variant(
    name="pairs",
    source=source("kv_concat", "pairs.cl"),
    params={**shared.LAYOUTS, "VEC": (1, 2, 4), "ALONG": (0, 1), "WG": (16, 32, 64, 128, 256)},
    default={"KL": 1, "VL": 1, "VEC": 2, "ALONG": 0, "WG": 64},
    rules=(
        shared.PAIRS_RULE,
        Rule(
            "neighbouring work-items are new rows only where a panel puts them side by side",
            ("ALONG", "KL", "VL"),
            lambda c, w, s: c["ALONG"] == 0 or max(c["KL"], c["VL"]) >= 8,
            prunes=True,
        ),
        Rule(
            "the work-group is allowed",
            ("WG", "VEC", "ALONG"),
            lambda c, w, s: _local(c, w)[0] <= min(s.max_work_group, s.max_work_item_sizes[0]),
        ),
    ),
    schedule=_schedule,
    traffic=_traffic,
    layouts=cache_layouts,
    workload_rules=(
        Rule(
            "the cache is fp16: nothing about a head row needs the whole row",
            (),
            lambda c, w, s: w.dtypes.cache == "fp16",
        ),
        shared.GPU_RULE,
    ),
    any_local=True,
)
