"""y [M, N] = x [M, K] · wᵀ for few tokens: decode, speculative decoding, short prompts. Weights are read once."""

from __future__ import annotations

from collections.abc import Mapping

from kernels.gemv_decode import outputs
from kernels.gemv_decode.case import awkward, least_cost, make_case
from kernels.gemv_decode.int8_dot import INT8_DOT, INT8_MUL
from kernels.gemv_decode.lanes_k import LOCAL_TREE, SUBGROUP
from kernels.gemv_decode.panel import PANEL
from kernels.gemv_decode.split_k import SPLIT_K
from kernels.gemv_decode.waves import IMAGE, WAVE_K
from kernels.spec import Abi, Arg, Config, DeviceSheet, Family, Rule, Workload

_FORMATS = {"fp16": 0, "int8": 1, "int4": 2, "e0m4": 3}


def _defines(workload: Workload) -> Mapping[str, int]:
    return {
        "FORMAT": _FORMATS[workload.format.kind],
        "GROUP": outputs.chunk(workload),
        "ACT_FP16": int(workload.dtypes.act == "fp16"),
        "COMPUTE_FP16": int(workload.dtypes.compute == "fp16"),
        "ACC_FP16": int(workload.dtypes.acc == "fp16"),
    }


def _default(workload: Workload, sheet: DeviceSheet) -> Config:
    """Moderate in everything a device limits: 128 work-items, under a hundred registers, little local memory."""
    tokens = min(8, outputs.tokens_up(workload))
    if workload.dtypes.compute == "int8":
        if sheet.kind == "cpu":
            return INT8_MUL.config(VEC=8, WG=2, MT=tokens) if tokens == 8 else INT8_MUL.config(MT=tokens)
        dot = sheet.has("cl_khr_integer_dot_product") and sheet.opencl_c >= (3, 0)
        return (INT8_DOT if dot else INT8_MUL).config(P=64, VEC=1, WG=64, MT=tokens)
    if sheet.kind == "cpu":
        vector = 8 if workload.dtypes.compute == "fp16" else 16
        # Four blocks share one reading of x and keep four streams of weights in flight (Zen 5, 16384 × 2048, int4/g128:
        # 1 → 2 → 4 blocks 28 → 78 → 91 % of read bandwidth), as long as every core still has work.
        blocks = 4 if tokens <= 4 and workload.dims["N"] >= 8 * vector * sheet.compute_units else 2
        return PANEL.config(P=vector, VEC=vector, BLOCKS=blocks, WG=1, MT=tokens, UNROLL=1)
    return WAVE_K.config(MT=tokens)


FAMILY = Family(
    name="gemv_decode",
    about="y = x · wᵀ for 1 to 16 tokens, weights in fp16, int8 or 4-bit groups",
    abi=Abi(
        1,
        (
            Arg("x", "input", "activations [M, K]"),
            Arg("w", "weight", "packed codes, by layout"),
            Arg("sb", "weight", "scale and bias per group, or scale per output; absent for fp16 weights"),
            Arg("y", "output", "[M, N]"),
            Arg("M", "dim", "tokens"),
            Arg("N", "dim", "outputs"),
            Arg("K", "dim", "inputs"),
        ),
    ),
    dims=("M", "N", "K"),
    case=make_case,
    cost=least_cost,
    defines=_defines,
    variants=(PANEL, WAVE_K, SUBGROUP, LOCAL_TREE, SPLIT_K, IMAGE, INT8_MUL, INT8_DOT),
    default=_default,
    workload_rules=(
        Rule(
            "integer products need integer weights",
            (),
            lambda c, w, s: not (w.dtypes.compute == "int8" and w.format.kind == "fp16"),
        ),
        Rule("M is 1 to 16", (), lambda c, w, s: 1 <= w.dims["M"] <= 16),
        Rule(
            "K is a multiple of the group (of 8 for fp16 and int8)",
            (),
            lambda c, w, s: w.dims["K"] % (w.format.group or 8) == 0,
        ),
        Rule(
            "the packed weights fit one buffer",
            (),
            lambda c, w, s: w.dims["N"] * w.dims["K"] * w.format.bits_per_weight / 8 <= s.max_alloc_bytes,
        ),
    ),
    awkward=awkward,
    bounds={"M": (1, 16)},
)
