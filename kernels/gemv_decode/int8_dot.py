"""The variants of `gemv_decode` for the dtype policy compute=int8: activations quantised on the fly, integer products.

The first launch quantises x, symmetric int8 with one float scale per token and block of 32 along K; the second
multiplies. `int8_dot` uses cl_khr_integer_dot_product, `int8_mul` the 32-bit multiplications that every device has: on
CPUs it is the faster one by far, because Intel's runtime (2026.2) calls a scalar function for each dot product
(Zen 5: 3 to 5 GB/s of packed weights against 51 to 54 in the same run).
"""

from __future__ import annotations

from typing import Any

from kernels.gemv_decode.outputs import LOAD_RULE, PANEL_RULE, TOKENS, TOKENS_RULE, token_tiles
from kernels.layouts import CODES
from kernels.linear import PANELS, layouts
from kernels.source import source
from kernels.spec import (
    Ceil,
    Config,
    DeviceSheet,
    Launch,
    Rule,
    Schedule,
    Scratch,
    Traffic,
    Variant,
    Workload,
)

X_BLOCK = 32  # activations along K that share a scale, X_BLOCK of int8.clh
_QUANTISE_WG = 8  # blocks a work-group of the first launch quantises


def _x_ints(config: Config, workload: Workload) -> int:
    """Quantised activations' 32-bit integers per word of weights, X_INTS of int8.clh."""
    if config["variant"] == "int8_mul":
        return 4
    return 1 if workload.format.kind == "int8" else 2


def _schedule(config: Config, workload: Workload) -> Schedule:
    wg, waves = config["WG"], config["WAVES"]
    quantise = Launch(
        entry="quantise_x",
        grid=((Ceil("K", X_BLOCK * _QUANTISE_WG), _QUANTISE_WG), (Ceil("M", 1),)),
        local=(_QUANTISE_WG, 1),
        args=("x", "xq", "xs", "M", "K"),
    )
    multiply = Launch(
        entry="gemv",
        grid=((Ceil("N", wg * config["VEC"] * config["BLOCKS"]), wg), (waves,), token_tiles(config)),
        local=(wg, waves, 1),
        args=("xq", "xs", "w", "sb", "y", "M", "N", "K"),
    )
    block_bytes = X_BLOCK // CODES[workload.format.kind] * _x_ints(config, workload) * 4
    return Schedule(
        launches=(quantise, multiply),
        scratch=(
            Scratch("xq", (Ceil("M", 1), Ceil("K", X_BLOCK), block_bytes)),
            Scratch("xs", (Ceil("M", 1), Ceil("K", X_BLOCK), 8)),
        ),
    )


def _traffic(config: Config, workload: Workload, sheet: DeviceSheet) -> Traffic:
    """Bytes of padded weights once per tile of tokens, of x and its quantised copy; registers of the sums."""
    M, N, K = (workload.dims[d] for d in "MNK")
    P, vec, mt, waves = config["P"], config["VEC"], config["MT"], config["WAVES"]
    padded, tiles = -(-N // P) * P, -(-M // mt)
    form = workload.format
    scales = 4 * K / form.group if form.group else 2
    quantised = M * -(-K // X_BLOCK) * (X_BLOCK // CODES[workload.format.kind] * _x_ints(config, workload) * 4 + 8)
    act = 2 if workload.dtypes.act == "fp16" else 4
    return Traffic(
        read_bytes=tiles * padded * (K * (0.5 if form.group else 1) + scales) + M * K * act + quantised,
        write_bytes=M * N * act + quantised,
        flops=2.0 * M * N * K,
        local_bytes=_local_bytes(config),
        registers=_registers(config),
        work_items=-(-N // (config["WG"] * vec * config["BLOCKS"])) * config["WG"] * waves * tiles,
    )


def _registers(config: Config) -> int:
    """Per output and token a total, a sum, a product and its upper half; words and codes; addresses."""
    return int(config["VEC"] * (4 * config["MT"] + 3) + 8)


def _local_bytes(config: Config) -> int:
    return int((config["WAVES"] - 1) * config["WG"] * config["MT"] * config["VEC"] * 4)


_PARAMS: dict[str, tuple[Any, ...]] = {
    "P": PANELS,
    "VEC": (1, 2, 4, 8, 16),
    "MT": TOKENS,
    "WG": (1, 2, 4, 8, 16, 32, 64, 128, 256),
    "WAVES": (1, 2, 4, 8),
    "BLOCKS": (1, 4, 16),
}

_RULES = (
    PANEL_RULE,
    TOKENS_RULE,
    LOAD_RULE,
    Rule(
        "a work-group reads at least a line of 64 bytes, or a panel's word, at a time",
        ("P", "VEC", "WG"),
        lambda c, w, s: c["WG"] * c["VEC"] >= min(c["P"], 16),
    ),
    # A GPU's work-item has 128 registers at best before it spills, a CPU a first-level cache behind its own.
    Rule(
        "the sums of a work-item fit its registers",
        ("MT", "VEC"),
        lambda c, w, s: _registers(c) <= (1024 if s.kind == "cpu" else 128),
    ),
    Rule(
        "the work-group is within the device's limits",
        ("WG", "WAVES"),
        lambda c, w, s: (
            c["WG"] * c["WAVES"] <= s.max_work_group
            and c["WG"] <= s.max_work_item_sizes[0]
            and c["WAVES"] <= s.max_work_item_sizes[1]
        ),
    ),
    Rule(
        "the waves' sums fit the local memory",
        ("WAVES", "WG", "MT", "VEC"),
        lambda c, w, s: _local_bytes(c) <= s.local_bytes,
    ),
    Rule(
        "every wave has a group of K",
        ("WAVES",),
        lambda c, w, s: c["WAVES"] <= -(-w.dims["K"] // (w.format.group or X_BLOCK)),
    ),
    Rule(
        "several blocks in turn leave work for every compute unit",
        ("WG", "VEC", "BLOCKS"),
        lambda c, w, s: c["BLOCKS"] == 1 or c["WG"] * c["VEC"] * c["BLOCKS"] * s.compute_units <= w.dims["N"],
    ),
)

_INT8 = Rule("the dtype policy asks for compute=int8", (), lambda c, w, s: w.dtypes.compute == "int8")
# Fetching 8 KiB ahead raised a cold 16384 x 2048 from 71 to 103 % of a plain kernel's read bandwidth on Intel's runtime
# and from 62 to 84 % on PoCL (Zen 5, two cores, x quantised within the time).
_FETCH_RULE = Rule(
    "one fetch ahead is one line of 64 bytes, on a CPU",
    ("PREFETCH", "VEC"),
    lambda c, w, s: c["PREFETCH"] == 0 or (s.kind == "cpu" and c["VEC"] == 16),
)
_CL3 = Rule("the device compiles OpenCL C 3.0", (), lambda c, w, s: s.opencl_c >= (3, 0))


INT8_MUL = Variant(
    name="int8_mul",
    source=source("gemv_decode", "int8_mul.cl"),
    params={**_PARAMS, "PREFETCH": (0, 32, 64, 128, 256)},
    default={"P": 16, "VEC": 16, "MT": 1, "WG": 1, "WAVES": 1, "BLOCKS": 1, "PREFETCH": 0},
    rules=(*_RULES, _FETCH_RULE),
    schedule=_schedule,
    traffic=_traffic,
    layouts=layouts,
    workload_rules=(_INT8,),
)

INT8_DOT = Variant(
    name="int8_dot",
    source=source("gemv_decode", "int8_dot.cl"),
    params=_PARAMS,
    default={"P": 64, "VEC": 1, "MT": 1, "WG": 64, "WAVES": 1, "BLOCKS": 1},
    rules=_RULES,
    schedule=_schedule,
    traffic=_traffic,
    layouts=layouts,
    workload_rules=(_INT8, _CL3),
    needs=("cl_khr_integer_dot_product",),
    options=("-cl-std=CL3.0",),
)
