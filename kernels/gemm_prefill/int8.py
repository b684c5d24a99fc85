"""`int8_mul` and `int8_dot`, for the dtype policy compute=int8: activations quantised on the fly, integer products.

The first launch quantises x, symmetric int8 with one float scale per token and block of 32 along K; the second
multiplies, by cl_khr_integer_dot_product or by the 32-bit multiplications that every device has.
"""

from __future__ import annotations

from typing import Any

from kernels import linear
from kernels.gemm_prefill import shapes
from kernels.layouts import CODES
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

X_BLOCK = 32  # activations along K that share a scale, X_BLOCK of integers.clh
_QUANTISE_WG = 8  # blocks a work-group of the first launch quantises


def _block_bytes(config: Config, workload: Workload) -> int:
    """Of one quantised block: its words times X_INTS of integers.clh."""
    dot = 1 if workload.format.kind == "int8" else 2
    ints = 4 if config["variant"] == "int8_mul" else dot
    return X_BLOCK // CODES[workload.format.kind] * ints * 4


def _scratch(config: Config, workload: Workload) -> tuple[Scratch, Scratch]:
    blocks: Size = (Ceil("M", 1), Ceil("K", X_BLOCK))
    return Scratch("xq", (*blocks, _block_bytes(config, workload))), Scratch("xs", (*blocks, 8))


def _grid(config: Config) -> tuple[Size, ...]:
    return (Ceil("N", config["WGN"] * config["VEC"]), config["WGN"]), (Ceil("M", config["TM"]),)


def _schedule(config: Config, workload: Workload) -> Schedule:
    quantise = Launch(
        entry="quantise_x",
        grid=((Ceil("K", X_BLOCK * _QUANTISE_WG), _QUANTISE_WG), (Ceil("M", 1),)),
        local=(_QUANTISE_WG, 1),
        args=("x", "xq", "xs", "M", "K"),
    )
    multiply = Launch(
        entry="gemm",
        grid=_grid(config),
        local=(config["WGN"], 1),
        args=("xq", "xs", *shapes.weights(workload), *shapes.epilogue(workload), "y", "M", "N", "K"),
    )
    return Schedule((quantise, multiply), _scratch(config, workload))


def _registers(config: Config, workload: Workload) -> int:
    """Per output and token a total for each matrix, a sum, a product and its upper half; codes; addresses."""
    return int(config["VEC"] * ((3 + shapes.matrices(workload)) * config["TM"] + 3) + 8)


def _traffic(config: Config, workload: Workload, sheet: DeviceSheet) -> Traffic:
    items, tiles = (evaluate(size, workload.dims) for size in _grid(config))
    return shapes.traffic(
        config,
        workload,
        tiles,
        moved=sum(evaluate(part.bytes, workload.dims) for part in _scratch(config, workload)),
        registers=_registers(config, workload),
        items=items * tiles,
    )


_PARAMS: dict[str, tuple[Any, ...]] = {
    "P": linear.PANELS,
    "VEC": (1, 2, 4, 8, 16),
    "TM": (1, 2, 4, 8, 16),
    "WGN": (1, 2, 8, 16, 32, 64, 128, 256),
}
_RULES = (
    shapes.PANEL_RULE,
    shapes.LOAD_RULE,
    shapes.TILE_RULE,
    Rule(
        "a work-group reads at least a line of 64 bytes, or a panel's word, at a time",
        ("P", "VEC", "WGN"),
        lambda c, w, s: c["WGN"] * c["VEC"] >= min(c["P"], 16),
        prunes=True,
    ),
    # A GPU's work-item has 128 registers at best before it spills, a CPU a first-level cache behind its own.
    Rule(
        "the sums of a work-item fit its registers",
        ("TM", "VEC"),
        lambda c, w, s: _registers(c, w) <= (1536 if s.kind == "cpu" else 192),
        prunes=True,
    ),
    Rule(
        "the work-group is within the device's limits",
        ("WGN",),
        lambda c, w, s: c["WGN"] <= min(s.max_work_group, s.max_work_item_sizes[0]),
    ),
)
_FIT = Rule(
    "the quantised activations fit one buffer",
    (),
    lambda c, w, s: evaluate(_scratch(c, w)[0].bytes, w.dims) <= s.max_alloc_bytes,
)
_INT8 = Rule("the dtype policy asks for compute=int8", (), lambda c, w, s: w.dtypes.compute == "int8")
_CL3 = Rule("the device compiles OpenCL C 3.0", (), lambda c, w, s: s.opencl_c >= (3, 0))

INT8_MUL = Variant(
    name="int8_mul",
    source=source("gemm_prefill", "int8_mul.cl"),
    params=_PARAMS,
    default={"P": 64, "VEC": 1, "TM": 8, "WGN": 64},
    rules=_RULES,
    schedule=_schedule,
    traffic=_traffic,
    layouts=linear.layouts,
    workload_rules=(_INT8, _FIT),
)

INT8_DOT = Variant(
    name="int8_dot",
    source=source("gemm_prefill", "int8_dot.cl"),
    params=_PARAMS,
    default={"P": 64, "VEC": 1, "TM": 8, "WGN": 64},
    rules=_RULES,
    schedule=_schedule,
    traffic=_traffic,
    layouts=linear.layouts,
    workload_rules=(_INT8, _FIT, _CL3),
    needs=("cl_khr_integer_dot_product",),
    options=("-cl-std=CL3.0",),
)
