"""`tile`: a tile of rows in one work-item, sixteen rows a vector, K and V as float block by block. For CPUs."""

from __future__ import annotations

from kernels.cache import LAYOUT_PARAMS, cache_layouts, row_bytes, workload_kind
from kernels.flash_attention import ranges
from kernels.flash_attention.problem import act_bytes, cache_args, least_cost
from kernels.source import source
from kernels.spec import Ceil, Config, DeviceSheet, Launch, Rule, Schedule, Size, Traffic, Variant, Workload, evaluate

CPU_RULE = Rule("the device is a CPU, with wide vectors in one work-item", (), lambda c, w, s: s.kind == "cpu")


def queries(config: Config) -> int:
    """Queries of a work-item's tiles."""
    return int(config["TILES"]) * max(1, 16 * int(config["RV"]) // int(config["HEADS"]))


def _grid(config: Config) -> tuple[Size, ...]:
    return (Ceil("M", queries(config)),), (Ceil("H", config["HEADS"]),)


def _schedule(config: Config, workload: Workload) -> Schedule:
    args = ("q", *cache_args(workload), "o", "M", "T", "H", "G", "S")
    return Schedule((Launch("attend", _grid(config), (1, 1), args),))


def _traffic(config: Config, workload: Workload, sheet: DeviceSheet) -> Traffic:
    """Every tile reads the keys that it sees, converts them, and computes whole vectors of rows."""
    M, T, H, D = (workload.dims[name] for name in ("M", "T", "H", "D"))
    least = least_cost(workload)
    tiles = evaluate((Ceil("M", queries(config)), Ceil("H", config["HEADS"])), workload.dims)
    share = least.flops / (4.0 * D * M * T * H)  # of all pairs, those that are visible
    keys = tiles * T * share
    rows = 16 * config["RV"] * config["TILES"]
    return Traffic(
        read_bytes=max(least.bytes - least.written, 2 * keys * row_bytes(workload_kind(workload), D)),
        write_bytes=float(M * H * D * act_bytes(workload)),
        flops=max(least.flops, keys * (4.0 * D * rows + 12 * rows + 8 * D)),
        registers=16 * int(config["RV"] * (max(config["KC"], config["DC"]) + 1)),
        work_items=tiles,
    )


def _vectors(config: Config, workload: Workload, sheet: DeviceSheet) -> bool:
    """Enough independent sums to hide the latency of a multiply-add, and no more than the registers hold."""
    rows = config["RV"] * sheet.registers(16)
    return all(8 <= rows * config[name] <= sheet.vector_registers * 3 // 4 for name in ("KC", "DC"))


def _suits(config: Config, workload: Workload, sheet: DeviceSheet) -> bool:
    """The last vector and the last tile have a row."""
    rows = workload.dims["M"] * config["HEADS"]
    most = max(16 * (config["RV"] - 1), 16 * config["RV"] * (config["TILES"] - 1))
    return bool(most < rows)


TILE = Variant(
    name="tile",
    source=source("flash_attention", "tile.cl"),
    params={
        "KL": LAYOUT_PARAMS,
        "VL": LAYOUT_PARAMS,
        "HEADS": ranges.HEADS,
        "RV": (1, 2, 3, 4),
        "TILES": (1, 2, 4),
        "BN": (32, 64),
        "KC": (2, 4, 8),  # within a panel, the smallest of which has 8 positions
        "DC": (2, 4, 8),
    },
    default={"KL": 1, "VL": 1, "HEADS": 1, "RV": 2, "TILES": 1, "BN": 32, "KC": 8, "DC": 8},
    rules=(
        ranges.HEADS_RULE,
        Rule(
            "a block is whole panels",
            ("KL", "VL", "BN"),
            lambda c, w, s: c["BN"] % max(1, c["KL"]) == 0 and c["BN"] % max(1, c["VL"]) == 0,
        ),
        Rule("sums fill the registers and fit three quarters of them", ("RV", "KC", "DC"), _vectors, prunes=True),
        Rule("every vector and tile has rows", ("HEADS", "RV", "TILES"), _suits, prunes=True),
    ),
    schedule=_schedule,
    traffic=_traffic,
    layouts=cache_layouts,
    workload_rules=(CPU_RULE,),
)
