"""`subgroup` and `group`: a team of work-items for a range of keys, lanes along keys and then along dims. For GPUs."""

from __future__ import annotations

from kernels.cache import LAYOUT_PARAMS, cache_layouts, row_bytes, workload_kind
from kernels.flash_attention import ranges
from kernels.flash_attention.problem import act_bytes, cache_args, least_cost
from kernels.source import source
from kernels.spec import Ceil, Config, DeviceSheet, Launch, Rule, Schedule, Size, Traffic, Variant, Workload, evaluate

GPU_RULE = Rule(
    "the device is not a CPU, which takes tile's and split's explicit vectors", (), lambda c, w, s: s.kind != "cpu"
)


def _grid(config: Config) -> tuple[Size, ...]:
    return (*ranges.ranges(config), config["LANES"]), (Ceil("H", config["HEADS"]),), (Ceil("M", config["MT"]),)


def _schedule(config: Config, workload: Workload) -> Schedule:
    args = ("q", *cache_args(workload), "o", "M", "T", "H", "G", "S")
    attend = Launch("attend", _grid(config), (config["LANES"], 1, 1), args)
    return ranges.schedule(attend, config, joiners=config["LANES"])


def _rows(config: Config) -> int:
    return int(config["HEADS"] * config["MT"])


def _planes(workload: Workload) -> int:
    return 2 if workload.dtypes.cache == "int4" else 1


def _steps(config: Config, workload: Workload) -> int:
    """Times that the team's lanes go along a head row's units."""
    units = workload.dims["D"] // _planes(workload)
    return int(-(-units // (config["LANES"] * config["DV"])))


def local_bytes(config: Config, workload: Workload) -> int:
    """q and one weight per row and lane, as float at most."""
    return 4 * _rows(config) * int(workload.dims["D"] + config["LANES"])


def registers(config: Config, workload: Workload) -> int:
    """Outputs and the sums that join them, a chunk of a key, and five numbers a row."""
    outputs = config["DV"] * _planes(workload) * (_steps(config, workload) + 1)
    return int(_rows(config) * (outputs + 5) + 8)


def _traffic(config: Config, workload: Workload, sheet: DeviceSheet) -> Traffic:
    """K and V once per tile of heads and queries."""
    M, H, D = (workload.dims[name] for name in ("M", "H", "D"))
    least = least_cost(workload)
    tiles = evaluate((Ceil("M", config["MT"]), Ceil("H", config["HEADS"])), workload.dims)
    keys = least.flops / (4.0 * D * M * H)  # that a query sees on average
    moved = ranges.scratch_bytes(config, workload)
    return Traffic(
        read_bytes=max(least.bytes - least.written, 2 * tiles * keys * row_bytes(workload_kind(workload), D)) + moved,
        write_bytes=float(M * H * D * act_bytes(workload) + moved),
        flops=tiles * keys * (4.0 * D * _rows(config) + 20 * _rows(config)),
        local_bytes=local_bytes(config, workload),
        registers=registers(config, workload),
        work_items=ranges.work_items(_grid(config), workload),
    )


def _neighbours(config: Config, workload: Workload, sheet: DeviceSheet) -> bool:
    """A lane's neighbours divide a row, and are needed: one lane more would have no unit."""
    units = workload.dims["D"] // _planes(workload)
    return bool(config["DV"] == 1 or (units % config["DV"] == 0 and units * 2 > config["LANES"] * config["DV"]))


_PARAMS = {
    "KL": LAYOUT_PARAMS,
    "VL": LAYOUT_PARAMS,
    "HEADS": ranges.HEADS,
    "MT": (1, 2, 4),
    "LANES": (16, 32, 64, 128),
    "DV": (1, 2, 4),
    "SPLIT": (0, 128, 256, 512, 1024),
}
_DEFAULT = {"KL": 1, "VL": 1, "HEADS": 1, "MT": 1, "LANES": 64, "DV": 1, "SPLIT": 0}
_RULES = (
    ranges.HEADS_RULE,
    Rule("a lane's neighbouring units divide a head row", ("LANES", "DV"), _neighbours),
    Rule(
        "the work-group is allowed, and q and the weights fit its local memory",
        ("HEADS", "MT", "LANES"),
        lambda c, w, s: c["LANES"] <= s.max_work_group and local_bytes(c, w) <= s.local_bytes,
    ),
    Rule(
        "outputs and sums fit the registers",
        ("HEADS", "MT", "LANES", "DV"),
        lambda c, w, s: registers(c, w) <= 128,
    ),
    Rule(
        "no more queries than there are",
        ("MT",),
        lambda c, w, s: c["MT"] == 1 or c["MT"] < 2 * w.dims["M"],
        prunes=True,
    ),
    ranges.RANGES_RULE,
    ranges.SCRATCH_RULE,
)

SUBGROUP = Variant(
    name="subgroup",
    source=source("flash_attention", "subgroup.cl"),
    params=_PARAMS,
    default={**_DEFAULT, "LANES": 16},
    rules=(
        *_RULES,
        Rule("the device has subgroups of this size", ("LANES",), lambda c, w, s: c["LANES"] in s.subgroup_sizes),
    ),
    schedule=_schedule,
    traffic=_traffic,
    layouts=cache_layouts,
    workload_rules=(GPU_RULE, Rule("the device has subgroups", (), lambda c, w, s: bool(s.subgroup_sizes))),
)

GROUP = Variant(
    name="group",
    source=source("flash_attention", "group.cl"),
    params=_PARAMS,
    default=_DEFAULT,
    rules=_RULES,
    schedule=_schedule,
    traffic=_traffic,
    layouts=cache_layouts,
    workload_rules=(GPU_RULE,),
)
