"""`group_tree` and `subgroup`: lanes along a row, joined at its end."""

from __future__ import annotations

from kernels.rmsnorm.norm import Options, least_cost
from kernels.source import source
from kernels.spec import Ceil, Config, DeviceSheet, Launch, Rule, Schedule, Size, Traffic, Variant, Workload, evaluate


def _grid(config: Config) -> tuple[Size, ...]:
    return ((Ceil("M", config["WG"] // config["LANES"]), config["WG"]),)


def _schedule(config: Config, workload: Workload) -> Schedule:
    return Schedule((Launch("norm", _grid(config), (config["WG"],), Options.of(workload).arguments),))


def _registers(config: Config, workload: Workload) -> int:
    """32-bit registers for what is kept and half a dozen vectors in float."""
    kept = config["KEEP"] * config["VEC"]
    return int((kept + 1) // 2 if workload.dtypes.act == "fp16" else kept) + 6 * int(config["VEC"])


def _traffic(config: Config, workload: Workload, sheet: DeviceSheet, local: int) -> Traffic:
    """Each tensor once, and what of a row is not kept once or twice more; every team reads the weights for itself."""
    cost, options = least_cost(workload), Options.of(workload)
    act_bytes = 2 if workload.dtypes.act == "fp16" else 4
    beyond = max(0, workload.dims["N"] - config["LANES"] * config["VEC"] * config["KEEP"])
    passes = 1 + (options.norm == "layer") + options.int8
    read = cost.bytes - cost.written + workload.dims["M"] * beyond * act_bytes * passes
    items = evaluate(_grid(config)[0], workload.dims)
    return Traffic(read, cost.written, cost.flops, local, _registers(config, workload), items)


def _kept_at_all(config: Config, workload: Workload, sheet: DeviceSheet) -> bool:
    """The last of the vectors that are kept exists, unless one is all there is to keep."""
    return bool(config["KEEP"] == 1 or config["LANES"] * config["VEC"] * config["KEEP"] < 2 * workload.dims["N"])


_RULES = (
    Rule("a work-group holds whole teams", ("WG", "LANES"), lambda c, w, s: c["WG"] % c["LANES"] == 0),
    Rule("the work-group is allowed", ("WG",), lambda c, w, s: c["WG"] <= s.max_work_group),
    Rule(
        "there are rows enough for every team of a work-group",
        ("WG", "LANES"),
        lambda c, w, s: c["WG"] // c["LANES"] <= w.dims["M"],
        prunes=True,
    ),
    Rule("no more is kept than a row has", ("KEEP", "LANES", "VEC"), _kept_at_all, prunes=True),
    Rule(
        "what is kept fits the registers",
        ("KEEP", "VEC"),
        lambda c, w, s: _registers(c, w) <= (512 if s.kind == "cpu" else 96),
    ),
)
_PARAMS = {
    "VEC": (1, 2, 4, 8),
    "WG": (16, 32, 64, 128, 256, 512, 1024),
    "KEEP": (1, 2, 4, 8),
}

GROUP_TREE = Variant(
    name="group_tree",
    source=source("rmsnorm", "group_tree.cl"),
    params={**_PARAMS, "LANES": (16, 32, 64, 128, 256, 512, 1024)},
    default={"VEC": 4, "WG": 64, "KEEP": 4, "LANES": 64},
    rules=(
        *_RULES,
        Rule("the tree fits local memory", ("WG",), lambda c, w, s: 4 * c["WG"] <= s.local_bytes),
    ),
    schedule=_schedule,
    traffic=lambda c, w, s: _traffic(c, w, s, 4 * int(c["WG"])),
    layouts=lambda c, w: {},
)

SUBGROUP = Variant(
    name="subgroup",
    source=source("rmsnorm", "subgroup.cl"),
    params={**_PARAMS, "LANES": (4, 8, 16, 32, 64, 128)},
    default={"VEC": 4, "WG": 64, "KEEP": 4, "LANES": 16},
    rules=(
        *_RULES,
        Rule("the device has subgroups of this size", ("LANES",), lambda c, w, s: c["LANES"] in s.subgroup_sizes),
        Rule(
            "a CPU's subgroup is two of its vectors at most",  # of 64 lanes Intel's compiler makes 12 s, of 32 four
            ("LANES",),
            lambda c, w, s: s.kind != "cpu" or c["LANES"] <= 32,
            prunes=True,
        ),
    ),
    schedule=_schedule,
    traffic=lambda c, w, s: _traffic(c, w, s, 0),
    layouts=lambda c, w: {},
    workload_rules=(Rule("the device has subgroups", (), lambda c, w, s: bool(s.subgroup_sizes)),),
)
