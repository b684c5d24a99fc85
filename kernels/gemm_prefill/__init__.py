"""y [M, N] = epilogue(x [M, K] · wᵀ) for many tokens: prefill and towers. A weight is decoded once for many rows."""

from __future__ import annotations

import itertools
from typing import Any

from kernels import linear
from kernels.gemm_prefill import shapes
from kernels.gemm_prefill.blocks import BLOCKS, spread
from kernels.gemm_prefill.int8 import INT8_DOT, INT8_MUL
from kernels.gemm_prefill.jobs import jobs
from kernels.gemm_prefill.tiles import DEQUANT, IMAGE, STAGED, TILE
from kernels.spec import Abi, Arg, Config, DeviceSheet, Family, Rule, Workload

ROWS = 4096  # the largest M of the contract

_EPILOGUES: tuple[dict[str, Any], ...] = (
    {},
    {"act": "silu", "gated": True},
    {"bias": True},
    {"act": "gelu", "bias": True},
    {"residual": True},
    {"act": "gelu_tanh", "gated": True, "bias": True, "residual": True},
    {"act": "quick_gelu", "bias": True},
    {"bias": True, "residual": True},
    {"gated": True},
)


def _awkward(workload: Workload) -> tuple[Workload, ...]:
    """Small hard shapes: one output, tails of every panel and tile, one group, a long K."""
    M = min(workload.dims["M"], 19)
    step = workload.format.group or 8
    shapes = (
        (1, 1, step),
        (M, 131, 3 * step),
        (max(1, M - 2), 67, 8 * step if workload.format.group else 1000),
        (M, 16, 8192),
    )
    return tuple(workload.with_dims(M=m, N=n, K=k) for m, n, k in dict.fromkeys(shapes))


def _cover() -> tuple[Workload, ...]:
    """Every format and policy, each with another epilogue; one token, a tile and a tail."""
    rows, outputs, epilogues = itertools.cycle((5, 17, 1, 33)), itertools.cycle((80, 67, 128)), _EPILOGUES
    options = itertools.cycle(epilogues)
    return tuple(
        Workload("gemm_prefill", {"M": next(rows), "N": next(outputs), "K": 384}, dtypes, form, next(options))
        for form, dtypes in itertools.product(linear.ALL_FORMATS, linear.POLICIES)
        if not (form == "fp16" and dtypes.compute == "int8")
    )


def _default(workload: Workload, sheet: DeviceSheet) -> Config:
    """On a GPU 64 work-items without local memory, under 128 registers; on a CPU the blocks that its caches hold."""
    P, M = linear.default_panel(workload, sheet.kind), workload.dims["M"]
    tokens = max(t for t in (1, 2, 4, 8) if t < 2 * M)
    if workload.dtypes.compute == "int8":
        if sheet.kind == "cpu":
            return INT8_MUL.config(P=P, VEC=P, TM=tokens, WGN=1)
        dot = sheet.has("cl_khr_integer_dot_product") and sheet.opencl_c >= (3, 0)
        return (INT8_DOT if dot else INT8_MUL).config(P=P, VEC=1, TM=tokens, WGN=64)
    if sheet.kind != "cpu":
        tokens, waves = min(4, tokens), 4 if M > 8 else 1
        return TILE.config(P=P, VEC=4, TM=tokens, WGN=64 // waves, WGM=waves)
    if workload.dtypes.compute == "fp16" and sheet.has("cl_khr_fp16"):
        return TILE.config(P=P, VEC=P, TM=tokens, WGN=1, WGM=1)
    config = BLOCKS.config(P=P, VEC=P, TM=tokens, PREFETCH=1)
    if sheet.vector_registers == 16:  # 128 × 2048 × 2048 on two Zen 3 cores, Intel's runtime: 38 → 77 % of the probe
        config |= {"VEC": 8, "TM": min(4, tokens), "TN": 3, "KB": 256}
    return spread(config, workload, sheet)


FAMILY = Family(
    name="gemm_prefill",
    about="y = epilogue(x · wᵀ) for 1 to 4096 tokens, weights in fp16, int8 or 4-bit groups",
    abi=Abi(
        1,
        (
            Arg("x", "input", "activations [M, K]"),
            Arg("w", "weight", "packed codes, by layout"),
            Arg("sb", "weight", "scale and bias per group, or scale per output; absent for fp16 weights"),
            Arg("w_up", "weight", "with option gated: the second matrix, packed as w is"),
            Arg("sb_up", "weight", "with option gated: its scales"),
            Arg("bias", "input", "with option bias: [N], added to x · wᵀ"),
            Arg("bias_up", "input", "with options bias and gated: [N], added to x · w_upᵀ"),
            Arg("r", "input", "with option residual: [M, N], added at the end"),
            Arg("y", "output", "[M, N]"),
            Arg("M", "dim", "tokens"),
            Arg("N", "dim", "outputs"),
            Arg("K", "dim", "inputs"),
        ),
    ),
    dims=("M", "N", "K"),
    case=linear.make_case,
    cost=linear.least_cost,
    defines=shapes.defines,
    variants=(BLOCKS, TILE, STAGED, IMAGE, DEQUANT, INT8_MUL, INT8_DOT),
    default=_default,
    workload_rules=(*linear.RULES, Rule(f"M is 1 to {ROWS}", (), lambda c, w, s: 1 <= w.dims["M"] <= ROWS)),
    awkward=_awkward,
    cover=_cover,
    jobs=jobs,
    bounds={"M": (1, ROWS)},
    shares="weights",
    numpy=linear.numpy_product,
)
