"""`codes_subgroup` and `codes_tree`: a team of work-items per head row of a quantised cache, for GPUs."""

from __future__ import annotations

from kernels.cache import cache_layouts
from kernels.kv_concat import shared
from kernels.source import source
from kernels.spec import Ceil, Config, DeviceSheet, Launch, Rule, Schedule, Size, Traffic, Variant, Workload, evaluate


def _grid(config: Config, workload: Workload) -> tuple[Size, ...]:
    together = config["WG"] // config["LANES"]
    return (Ceil(shared.heads(workload), together), config["WG"]), (Ceil("M", 1),), (shared.tensors(workload),)


def _schedule(config: Config, workload: Workload) -> Schedule:
    return Schedule((Launch("concat", _grid(config, workload), (config["WG"], 1, 1), shared.arguments(workload)),))


def _traffic(config: Config, workload: Workload, local: int) -> Traffic:
    items = 1
    for size in _grid(config, workload):
        items *= evaluate(size, workload.dims)
    return shared.traffic(workload, items, local=local, registers=4 * config["VEC"] + 16)


def _neighbours(config: Config, workload: Workload, sheet: DeviceSheet) -> bool:
    """Half-split pairs put the two dims of an int4 byte in neighbouring lanes of a vector."""
    return bool(config["VEC"] > 1 or workload.dtypes.cache != "int4" or workload.options.get("rope") != "half")


_PARAMS = {**shared.LAYOUTS, "VEC": (1, 2, 4), "LANES": (8, 16, 32, 64, 128), "WG": (16, 32, 64, 128, 256)}
_DEFAULT = {"KL": 1, "VL": 1, "VEC": 2, "LANES": 16, "WG": 64}
_RULES = (
    shared.PAIRS_RULE,
    Rule("a byte's two dims are in one work-item", ("VEC",), _neighbours),
    Rule("a work-group holds whole teams", ("WG", "LANES"), lambda c, w, s: c["WG"] % c["LANES"] == 0),
    Rule(
        "every lane has a share of the head",
        ("LANES", "VEC"),
        lambda c, w, s: c["LANES"] * c["VEC"] <= w.dims["D"] // 2 + c["VEC"] - 1,
    ),
    shared.WG_RULE,
)
_QUANTISED = Rule("the cache is quantised", (), lambda c, w, s: w.dtypes.cache != "fp16")

CODES_SUBGROUP = Variant(
    name="codes_subgroup",
    source=source("kv_concat", "codes_subgroup.cl"),
    params=_PARAMS,
    default=_DEFAULT,
    rules=(
        *_RULES,
        Rule("the device has subgroups of this size", ("LANES",), lambda c, w, s: c["LANES"] in s.subgroup_sizes),
    ),
    schedule=_schedule,
    traffic=lambda c, w, s: _traffic(c, w, 0),
    layouts=cache_layouts,
    workload_rules=(
        _QUANTISED,
        Rule("the device has subgroups", (), lambda c, w, s: bool(s.subgroup_sizes)),
    ),
)

CODES_TREE = Variant(
    name="codes_tree",
    source=source("kv_concat", "codes_tree.cl"),
    params=_PARAMS,
    default=_DEFAULT,
    rules=_RULES,
    schedule=_schedule,
    traffic=lambda c, w, s: _traffic(c, w, 4 * c["WG"]),
    layouts=cache_layouts,
    workload_rules=(_QUANTISED, shared.GPU_RULE),
)
