"""`split`: a range of keys in one work-item, for all the heads that share them, in wide vectors. For CPUs."""

from __future__ import annotations

from kernels.cache import LAYOUT_PARAMS, cache_layouts, row_bytes, workload_kind
from kernels.flash_attention import ranges
from kernels.flash_attention.problem import act_bytes, cache_args, least_cost
from kernels.flash_attention.tile import CPU_RULE
from kernels.source import source
from kernels.spec import Ceil, Config, DeviceSheet, Launch, Rule, Schedule, Size, Traffic, Variant, Workload, evaluate


def _grid(config: Config) -> tuple[Size, ...]:
    return ranges.ranges(config), (Ceil("H", config["HEADS"]),), (Ceil("M", config["MT"]),)


def _schedule(config: Config, workload: Workload) -> Schedule:
    args = ("q", *cache_args(workload), "o", "M", "T", "H", "G", "S")
    return ranges.schedule(Launch("attend", _grid(config), (1, 1, 1), args), config, joiners=1)


def _traffic(config: Config, workload: Workload, sheet: DeviceSheet) -> Traffic:
    """K and V once per tile of heads and queries; converting a unit as four operations."""
    M, H, D = (workload.dims[name] for name in ("M", "H", "D"))
    least = least_cost(workload)
    tiles = evaluate((Ceil("M", config["MT"]), Ceil("H", config["HEADS"])), workload.dims)
    keys = least.flops / (4.0 * D * M * H)  # that a query sees on average
    moved = ranges.scratch_bytes(config, workload)
    return Traffic(
        read_bytes=max(least.bytes - least.written, 2 * tiles * keys * row_bytes(workload_kind(workload), D)) + moved,
        write_bytes=float(M * H * D * act_bytes(workload) + moved),
        flops=tiles * keys * D * (4.0 * config["HEADS"] * config["MT"] + 8),
        registers=config["VEC"] * (sums(config, workload) + config["NV"]),
        work_items=ranges.work_items(_grid(config), workload),
    )


def sums(config: Config, workload: Workload) -> int:
    """Vectors of sums that the inner loops hold at most."""
    rows, planes = config["HEADS"] * config["MT"], 2 if workload.dtypes.cache == "int4" else 1
    of_keys = rows * config["NV"] if config["KL"] > 1 else max(rows, config["VEC"])
    of_values = rows * planes * config["NV"] if config["VL"] < 2 else max(rows * planes, config["VEC"])
    return int(max(of_keys, of_values))


def _divides(config: Config, workload: Workload, sheet: DeviceSheet) -> bool:
    units = workload.dims["D"] // (2 if workload.dtypes.cache == "int4" else 1)
    k_fits = (units if config["KL"] < 2 else config["KL"]) % config["VEC"] == 0
    v_fits = (units % (config["NV"] * config["VEC"]) if config["VL"] < 2 else config["VL"] % config["VEC"]) == 0
    return bool(k_fits and v_fits) and workload.dims["D"] >= config["VEC"]


def _used(config: Config, workload: Workload, sheet: DeviceSheet) -> bool:
    """NV is of panels of K and rows of V: with neither it would change nothing."""
    return bool(config["NV"] == 1 or config["KL"] > 1 or config["VL"] < 2)


SPLIT = Variant(
    name="split",
    source=source("flash_attention", "split.cl"),
    params={
        "KL": LAYOUT_PARAMS,
        "VL": LAYOUT_PARAMS,
        "HEADS": ranges.HEADS,
        "MT": (1, 2, 4),
        "VEC": (4, 8, 16),
        "NV": (1, 2, 4),
        "BN": (32, 64),
        "PREFETCH": (0, 1),
        "SPLIT": (0, 256, 512, 1024, 2048),
    },
    default={"KL": 1, "VL": 1, "HEADS": 1, "MT": 1, "VEC": 8, "NV": 1, "BN": 32, "PREFETCH": 0, "SPLIT": 512},
    rules=(
        ranges.HEADS_RULE,
        Rule(
            "a block is whole panels",
            ("KL", "VL", "BN"),
            lambda c, w, s: c["BN"] % max(1, c["KL"]) == 0 and c["BN"] % max(1, c["VL"]) == 0,
        ),
        Rule("vectors divide a row's units, or a panel", ("KL", "VL", "VEC", "NV"), _divides),
        Rule(
            "vectors of four only where eight do not divide",
            ("KL", "VL", "VEC", "NV"),
            lambda c, w, s: c["VEC"] > 4 or not _divides({**c, "VEC": 8}, w, s),
            prunes=True,
        ),
        Rule("NV is one where nothing has vectors side by side", ("KL", "VL", "NV"), _used),
        Rule(
            "sums fit the registers",
            ("KL", "VL", "HEADS", "MT", "VEC", "NV"),
            lambda c, w, s: sums(c, w) * s.registers(c["VEC"]) <= s.vector_registers * 3 // 4,
            prunes=True,
        ),
        Rule(
            "no more queries than there are",
            ("MT",),
            lambda c, w, s: c["MT"] == 1 or c["MT"] < 2 * w.dims["M"],
            prunes=True,
        ),
        Rule("queries are few, or tile shares its keys better", (), lambda c, w, s: w.dims["M"] <= 32, prunes=True),
        ranges.RANGES_RULE,
        ranges.SCRATCH_RULE,
    ),
    schedule=_schedule,
    traffic=_traffic,
    layouts=cache_layouts,
    workload_rules=(CPU_RULE,),
)
