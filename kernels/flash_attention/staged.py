"""`staged`: a tile of rows in a work-group, K and V staged in local memory. For Adreno's prefill."""

from __future__ import annotations

from kernels.cache import LAYOUT_PARAMS, cache_layouts, row_bytes, workload_kind
from kernels.flash_attention import ranges
from kernels.flash_attention.problem import act_bytes, cache_args, heads_per_group, least_cost
from kernels.flash_attention.team import GPU_RULE
from kernels.source import source
from kernels.spec import Ceil, Config, DeviceSheet, Launch, Rule, Schedule, Size, Traffic, Variant, Workload, evaluate


def _queries(config: Config) -> int:
    return max(1, int(config["BLOCK_M"]) // int(config["HEADS"]))


def _items(config: Config) -> int:
    return int(config["BLOCK_M"] * config["N_SPLIT"])


def _grid(config: Config) -> tuple[Size, ...]:
    return (Ceil("M", _queries(config)), _items(config)), (Ceil("H", config["HEADS"]),)


def _schedule(config: Config, workload: Workload) -> Schedule:
    args = ("q", *cache_args(workload), "o", "M", "T", "H", "G", "S")
    return Schedule((Launch("attend", _grid(config), (_items(config), 1), args),))


def local_bytes(config: Config, workload: Workload, sheet: DeviceSheet) -> int:
    """A block of K and of V, and the scores with the parts that they are summed from."""
    item = 2 if sheet.has("cl_khr_fp16") else 4
    block = 2 * config["BLOCK_N"] * workload.dims["D"] * item
    return int(block + 4 * config["N_SPLIT"] * config["BLOCK_N"] * config["BLOCK_M"])


def registers(config: Config, workload: Workload) -> int:
    """A part of q and of the output."""
    return int(2 * workload.dims["D"] // config["N_SPLIT"] + 12)


def _traffic(config: Config, workload: Workload, sheet: DeviceSheet) -> Traffic:
    """Every tile reads the keys that it sees."""
    M, T, H, D = (workload.dims[name] for name in ("M", "T", "H", "D"))
    least = least_cost(workload)
    tiles = evaluate((Ceil("M", _queries(config)), Ceil("H", config["HEADS"])), workload.dims)
    keys = tiles * T * least.flops / (4.0 * D * M * T * H)  # of all pairs, those that are visible
    return Traffic(
        read_bytes=max(least.bytes - least.written, 2 * keys * row_bytes(workload_kind(workload), D)),
        write_bytes=float(M * H * D * act_bytes(workload)),
        flops=max(least.flops, keys * config["BLOCK_M"] * (4.0 * D + 10 * config["N_SPLIT"])),
        local_bytes=local_bytes(config, workload, sheet),
        registers=registers(config, workload),
        work_items=ranges.work_items(_grid(config), workload),
    )


STAGED = Variant(
    name="staged",
    source=source("flash_attention", "staged.cl"),
    params={
        "KL": LAYOUT_PARAMS,
        "VL": LAYOUT_PARAMS,
        "HEADS": ranges.HEADS,
        "BLOCK_M": (16, 32, 64, 128),
        "BLOCK_N": (8, 16, 32),
        "N_SPLIT": (1, 2, 4, 8, 16),
    },
    default={"KL": 1, "VL": 1, "HEADS": 1, "BLOCK_M": 16, "BLOCK_N": 8, "N_SPLIT": 4},
    rules=(
        ranges.HEADS_RULE,
        Rule(
            "the work-group is allowed",
            ("BLOCK_M", "N_SPLIT"),
            lambda c, w, s: 32 <= _items(c) <= min(512, s.max_work_group),
        ),
        Rule(
            "each work-item of a row has whole vectors of four dims",
            ("N_SPLIT",),
            lambda c, w, s: w.dims["D"] % (4 * c["N_SPLIT"]) == 0,
        ),
        Rule("a part of q and of the output fits the registers", ("N_SPLIT",), lambda c, w, s: registers(c, w) <= 160),
        Rule(
            "K, V and scores fit local memory",
            ("BLOCK_M", "BLOCK_N", "N_SPLIT"),
            lambda c, w, s: local_bytes(c, w, s) <= s.local_bytes,
        ),
        Rule(
            "no more rows than a kv head has, doubled",
            ("BLOCK_M",),
            lambda c, w, s: c["BLOCK_M"] < 2 * w.dims["M"] * heads_per_group(w) or c["BLOCK_M"] == 16,
            prunes=True,
        ),
    ),
    schedule=_schedule,
    traffic=_traffic,
    layouts=cache_layouts,
    workload_rules=(GPU_RULE,),
)
