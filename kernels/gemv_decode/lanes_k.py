"""`subgroup` and `local_tree`: lanes along K over row-major or nearly row-major weights, reduced at the end."""

from __future__ import annotations

from kernels import linear
from kernels.gemv_decode import outputs
from kernels.layouts import CODES
from kernels.source import source
from kernels.spec import Ceil, Config, DeviceSheet, Launch, Rule, Schedule, Size, Traffic, Variant, Workload, evaluate


def _grid(config: Config) -> tuple[Size, ...]:
    teams = config["WG"] // config["LANES"]
    per_group = teams * config["P"] * config["BLOCKS"]
    return (Ceil("N", per_group), config["WG"]), outputs.token_tiles(config)


def _schedule(config: Config, workload: Workload) -> Schedule:
    return Schedule((Launch("gemv", _grid(config), (config["WG"], 1), outputs.arguments(workload, "y")),))


def _registers(config: Config, workload: Workload) -> int:
    """Totals and sums of every block, one load, and the activations that it meets."""
    activations = config["MT"] * CODES[workload.format.kind] * max(1, 4 // config["P"])
    return int(config["P"] * config["MT"] * (config["BLOCKS"] + 1) + 4 + activations)


def _tree_bytes(config: Config) -> int:
    return 4 * int(config["WG"] * config["P"] * config["BLOCKS"] * config["MT"])


def _traffic(config: Config, workload: Workload, sheet: DeviceSheet, local: int) -> Traffic:
    items = evaluate(_grid(config)[0], workload.dims) * evaluate(_grid(config)[1], workload.dims)
    base = outputs.traffic({**config, "VEC": config["P"]}, workload, items, local)
    return Traffic(base.read_bytes, base.write_bytes, base.flops, local, _registers(config, workload), base.work_items)


def _register_room(sheet: DeviceSheet) -> int:
    return 512 if sheet.kind == "cpu" else 128


def _whole_loads(config: Config, workload: Workload, sheet: DeviceSheet) -> bool:
    """Each lane of a team has a load of 16 bytes at least once."""
    return bool(workload.dims["K"] // CODES[workload.format.kind] * config["P"] >= 4 * config["LANES"])


_RULES = (
    outputs.DECODE_RULE,
    outputs.TOKENS_RULE,
    Rule("a work-group holds whole teams", ("WG", "LANES"), lambda c, w, s: c["WG"] % c["LANES"] == 0),
    outputs.WG_RULE,
    Rule("every lane has a share of K", ("LANES", "P"), _whole_loads),
    Rule(
        "the unrolled loop stays small: BLOCKS · MT ≤ 16",
        ("BLOCKS", "MT"),
        lambda c, w, s: c["BLOCKS"] * c["MT"] <= 16,
    ),
    Rule(
        "accumulators and activations fit the registers",
        ("P", "BLOCKS", "MT"),
        lambda c, w, s: _registers(c, w) <= _register_room(s),
    ),
)
_PARAMS = {
    "P": (1, 2, 4),
    "LANES": (4, 8, 16, 32, 64, 128),
    "WG": (16, 32, 64, 128, 256),
    "BLOCKS": (1, 2, 4),
    "MT": outputs.TOKENS,
    "DECODE": (0, 1, 2),
}
_DEFAULT = {"P": 1, "LANES": 16, "WG": 64, "BLOCKS": 1, "MT": 1, "DECODE": 1}

SUBGROUP = Variant(
    name="subgroup",
    source=source("gemv_decode", "subgroup.cl"),
    params=_PARAMS,
    default=_DEFAULT,
    rules=(
        *_RULES,
        Rule("the device has subgroups of this size", ("LANES",), lambda c, w, s: c["LANES"] in s.subgroup_sizes),
    ),
    schedule=_schedule,
    traffic=lambda c, w, s: _traffic(c, w, s, 0),
    layouts=linear.layouts,
    workload_rules=(
        outputs.FLOAT_ONLY,
        Rule("the device has subgroups", (), lambda c, w, s: bool(s.subgroup_sizes)),
    ),
)

LOCAL_TREE = Variant(
    name="local_tree",
    source=source("gemv_decode", "local_tree.cl"),
    params=_PARAMS,
    default=_DEFAULT,
    rules=(
        *_RULES,
        Rule(
            "the tree fits local memory", ("WG", "P", "BLOCKS", "MT"), lambda c, w, s: _tree_bytes(c) <= s.local_bytes
        ),
    ),
    schedule=_schedule,
    traffic=lambda c, w, s: _traffic(c, w, s, _tree_bytes(c)),
    layouts=linear.layouts,
    workload_rules=(outputs.FLOAT_ONLY,),
)
