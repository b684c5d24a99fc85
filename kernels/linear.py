"""What the families that multiply by a weight matrix share: cases, tolerances, least cost, defines and layouts.

One packed copy of a weight feeds all of them, so formats, layouts and the tensors of a case are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from kernels.jobs import Ask, Job, Matrix, phase_of
from kernels.layouts import CODES, Layout, pack_row_scales, pack_scales, pack_words
from kernels.models import ModelSheet
from kernels.spec import Case, Config, Cost, DTypes, Rule, Stored, Tolerance, WeightFormat, Workload
from reference.matmul import gemv_quantized

Array = np.ndarray[Any, Any]

_ACT: dict[str, Any] = {"fp16": np.float16, "fp32": np.float32}
_FORMATS = {"fp16": 0, "int8": 1, "int4": 2, "e0m4": 3}
_OUTLIERS = 4  # activations per row that are thirty times as large, as transformers have them
_SPREAD = 0.02  # standard deviation of the weights
_INT8_BLOCK = 32  # activations that share an int8 scale: X_BLOCK of int8.clh


def make_case(workload: Workload, seed: int) -> Case:
    """Random weights in canonical form, activations with outliers, and y in float64.

    Weights have a standard deviation near 0.02. Codes are drawn as raw bytes, and both packing and the reference go
    through them in slices: 2048 × 256000 takes seconds and its 4-bit codes plus one packed copy of memory.
    """
    rng = np.random.default_rng(seed)
    M, N, K = (workload.dims[name] for name in ("M", "N", "K"))
    weights = workload.format
    x = rng.standard_normal((M, K))
    for row in x:
        row[rng.integers(0, K, min(_OUTLIERS, K // 64))] *= 30
    x = x.astype(_ACT[workload.dtypes.act])
    codes, scale, bias = _draw(rng, weights, N, K)
    expected = gemv_quantized(x, weights.kind, codes, scale, bias, weights.group)
    return Case(
        pack=partial(_pack, x, weights, codes, scale, bias),
        outputs={"y": Stored(np.dtype(_ACT[workload.dtypes.act]), (M, N))},
        expected={"y": expected},
        tolerance=tolerance(workload, x, expected),
    )


def _draw(rng: np.random.Generator, weights: WeightFormat, N: int, K: int) -> tuple[Array, Array | None, Array | None]:
    """Codes, scale and bias: uint8 [N, K/2] (4-bit), int8 [N, K] or float16 [N, K], as `gemv_quantized` takes them."""
    if weights.kind == "fp16":
        # Random sign and mantissa, exponents 2⁻⁸ … 2⁻⁵: halves without a float copy of the matrix.
        bits = _random_bytes(rng, (N, 2 * K)).view(np.uint16)
        bits &= np.uint16(0x8FFF)
        bits += np.uint16(0x1C00)
        return bits.view(np.float16), None, None
    if weights.kind == "int8":
        codes = _random_bytes(rng, (N, K)).view(np.int8)
        np.maximum(codes, -127, out=codes)
        return codes, (0.00027 * rng.uniform(0.5, 1.5, (N, 1))).astype(np.float16), None
    shape = (N, K // weights.group)
    step = 0.0043 * rng.uniform(0.5, 1.5, shape)
    zero = rng.uniform(6.5, 8.5, shape)
    codes = _random_bytes(rng, (N, K // 2))
    if weights.kind == "int4":
        return codes, step.astype(np.float16), (-step * zero).astype(np.float16)
    return codes, (16 * step).astype(np.float16), (-step * (zero + 16)).astype(np.float16)


def _random_bytes(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    words = rng.integers(0, 2**64, -(-shape[0] * shape[1] // 8), dtype=np.uint64)
    return words.view(np.uint8)[: shape[0] * shape[1]].reshape(shape)


def _pack(
    x: Array, weights: WeightFormat, codes: Array, scale: Array | None, bias: Array | None, layouts: Mapping[str, str]
) -> Mapping[str, Array]:
    layout = Layout.parse(layouts["w"])
    tensors = {"x": x, "w": pack_words(codes, layout)}
    if scale is not None and bias is not None:
        tensors["sb"] = pack_scales(scale, bias, layout.panel)
    elif scale is not None:
        tensors["sb"] = pack_row_scales(scale[:, 0], layout.panel)
    return tensors


def tolerance(workload: Workload, x: Array, expected: Array) -> Tolerance:
    """What the dtype policy may cost, as relative root-mean-square errors that add in squares, doubled.

    - Storing y as half: at most 2⁻¹¹ relative, uniform within it.
    - Float arithmetic: 2⁻²⁴ per operation, magnified sixteen to 256 times by the leading ones of bit decoding, over
      sums of a group: 2⁻¹⁵ bounds what was measured (2⁻¹⁸, groups of 32 to 128).
    - Half arithmetic: 2⁻¹¹ per operation, sums of eight terms whose common part is several times the signal: 8 · 2⁻¹¹;
      with half sums over a whole group of g, 3 · √g · 2⁻¹¹.
    - int8 activations: rounding errors uniform within half a step of max / 127 per block, summed from this very x,
      in units of its own energy: both meet the same independent weights.

    Errors follow the size of the terms, not of their sum: where the few outputs of a small shape happen to cancel,
    the limits grow by as much as y falls short of what independent weights give on average; and the error of a single
    output is one draw, given 5 standard deviations.
    """
    dtypes = workload.dtypes
    squares = 2.0**-30
    peak = 6 * 2.0**-15
    if dtypes.act == "fp16":
        squares += 2.0**-22 / 3
        peak += 6 * 2.0**-11
    if dtypes.compute == "fp16":
        relative = 2.0**-11 * (8 if dtypes.acc == "fp32" else 3 * (workload.format.group or 128) ** 0.5)
        squares += relative**2
        peak += 6 * relative
    if dtypes.compute == "int8":
        relative = _int8_error(x)
        squares += relative**2
        peak += 6 * relative
    usual = _SPREAD**2 * float(np.square(x, dtype=np.float64).sum(axis=1).mean())
    short = max(1.0, usual / float(np.square(expected).mean()))
    return Tolerance(nmse=(4 + 24 / expected.size) * squares * short, max_scaled=2 * peak * short**0.5)


def _int8_error(x: Array) -> float:
    """Root mean square of int8 rounding errors over that of x, the worst row's."""
    M, K = x.shape
    padded = np.zeros((M, -(-K // _INT8_BLOCK) * _INT8_BLOCK))
    padded[:, :K] = x
    steps = np.abs(padded.reshape(M, -1, _INT8_BLOCK)).max(axis=2) / 127
    return float(np.sqrt((steps**2).sum(axis=1) * _INT8_BLOCK / 12 / (padded**2).sum(axis=1)).max())


def least_cost(workload: Workload) -> Cost:
    """Two operations per weight and token; weights with their scales, x and y moved once."""
    M, N, K = (workload.dims[name] for name in ("M", "N", "K"))
    act_bytes = np.dtype(_ACT[workload.dtypes.act]).itemsize
    row_scales = 2 * N if workload.format.kind == "int8" else 0
    weight_bytes = N * K * workload.format.bits_per_weight / 8 + row_scales
    return Cost(flops=2.0 * M * N * K, bytes=weight_bytes + act_bytes * M * (N + K), written=act_bytes * M * N)


# ---------------------------------------------------------------- what a model asks


def job(
    family: str, sheet: ModelSheet, matrix: Matrix, m: int, form: str, ask: Ask, notes: list[str], *, phase: str = ""
) -> Job:
    """`m` rows times one of a model's matrices, in fp16 (and a note) where the format's group does not divide K."""
    group = WeightFormat.parse(form).group
    if group and matrix.K % group:
        notes.append(
            f"{sheet.name} {matrix.name}: K = {matrix.K} is not a multiple of the group of {form}; planned with fp16"
        )
        form = "fp16"
    dims = {"M": m, "N": matrix.N, "K": matrix.K}
    workload = Workload(family, dims, ask.dtypes(form), form, label=f"{sheet.name} {matrix.name}")
    return Job(workload, matrix.count if phase != "overlap" else 1, phase or phase_of(m))


# ---------------------------------------------------------------- as the sources read it

PANELS = (4, 8, 16, 32, 64, 128)  # outputs side by side


def chunk(workload: Workload) -> int:
    """K that is worked through at a time: the group, or 128 for formats without one."""
    return workload.format.group or 128


def defines(workload: Workload) -> Mapping[str, int | float]:
    """Weight format and dtype policy, as `_common/weights.clh` and `_common/types.clh` read them."""
    return {
        "FORMAT": _FORMATS[workload.format.kind],
        "GROUP": chunk(workload),
        "ACT_FP16": int(workload.dtypes.act == "fp16"),
        "COMPUTE_FP16": int(workload.dtypes.compute == "fp16"),
        "ACC_FP16": int(workload.dtypes.acc == "fp16"),
    }


def layouts(config: Config, workload: Workload) -> Mapping[str, str]:
    """Weights in panels of P outputs, words of what the format holds."""
    return {"w": f"n{config['P']}k{CODES[workload.format.kind]}"}


def default_panel(workload: Workload, kind: str) -> int:
    """The panel that every family's default reads on a kind of device, so that untuned families share one copy too."""
    if kind != "cpu":
        return 64
    return 16 if workload.dtypes.compute != "fp16" else 8


ALL_FORMATS = ("fp16", "int8", *(f"{kind}/g{group}" for kind in ("int4", "e0m4") for group in (32, 64, 128)))
POLICIES = (
    DTypes("fp16", "fp32", "fp32"),
    DTypes("fp32", "fp32", "fp32"),
    DTypes("fp16", "fp16", "fp32"),
    DTypes("fp16", "fp16", "fp16"),
    DTypes("fp16", "int8", "int32"),
)

RULES = (
    Rule(
        "integer products need integer weights",
        (),
        lambda c, w, s: not (w.dtypes.compute == "int8" and w.format.kind == "fp16"),
    ),
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
)
