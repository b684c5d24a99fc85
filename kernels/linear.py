"""What the families that multiply by a weight matrix share: cases, tolerances, least cost, defines and layouts.

One packed copy of a weight feeds all of them, so formats, layouts and the tensors of a case are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from kernels.jobs import Ask, Job, Matrix, phase_of
from kernels.layouts import CODES, Layout, pack_row_scales, pack_scales, pack_words
from kernels.models import ModelSheet
from kernels.spec import Arrays, Case, Config, Cost, DTypes, Rule, Stored, Tolerance, WeightFormat, Workload
from reference.activations import ACTIVATIONS
from reference.matmul import gemm_epilogue, gemv_quantized

Array = np.ndarray[Any, Any]

_ACT: dict[str, Any] = {"fp16": np.float16, "fp32": np.float32}
_FORMATS = {"fp16": 0, "int8": 1, "int4": 2, "e0m4": 3}
_OUTLIERS = 4  # activations per row that are thirty times as large, as transformers have them
_SPREAD = 0.02  # standard deviation of the weights
_INT8_BLOCK = 32  # activations that share an int8 scale: X_BLOCK of int8.clh


# What may follow the product, in `Workload.options`; absent or False: it does not.
#   act       name of an activation: y = act(x · wᵀ)
#   bias      True: a bias per output is added before it
#   gated     True: y = act(x · wᵀ [+ bias]) ⊙ (x · w_upᵀ [+ bias_up]), both matrices in one layout
#   residual  True: a matrix like y is added at the end
OPTIONS = ("act", "bias", "gated", "residual")


def check_options(workload: Workload) -> None:
    """Raise ValueError, naming the choices, for an option or an activation that the products do not have."""
    if unknown := sorted(set(workload.options) - set(OPTIONS)):
        raise ValueError(f'unknown option "{unknown[0]}" of {workload.family}; choose from {", ".join(OPTIONS)}')
    act = workload.options.get("act")
    if act is not None and act not in ACTIVATIONS:
        raise ValueError(f'unknown activation "{act}"; choose one of {", ".join(ACTIVATIONS)}')


@dataclass(frozen=True)
class _Matrix:
    """Codes, scale and bias: uint8 [N, K/2] (4-bit), int8 [N, K] or float16 [N, K], as `gemv_quantized` takes them."""

    weights: WeightFormat
    codes: Array
    scale: Array | None
    bias: Array | None

    def product(self, x: Array) -> Array:
        """x · wᵀ in float64."""
        return gemv_quantized(x, self.weights.kind, self.codes, self.scale, self.bias, self.weights.group)

    def packed(self, layout: Layout) -> tuple[Array, Array | None]:
        """Words, and the scales of formats that have them."""
        words = pack_words(self.codes, layout)
        if self.scale is None:
            return words, None
        if self.bias is None:
            return words, pack_row_scales(self.scale[:, 0], layout.panel)
        return words, pack_scales(self.scale, self.bias, layout.panel)


def make_case(workload: Workload, seed: int) -> Case:
    """Random weights in canonical form, activations with outliers, and y in float64.

    Weights have a standard deviation near 0.02, biases and the residual about that of the products. Codes are drawn as
    raw bytes, and both packing and the reference go through them in slices: 2048 × 256000 takes seconds and its 4-bit
    codes plus one packed copy of memory. Raises ValueError for options that do not exist.
    """
    check_options(workload)
    rng = np.random.default_rng(seed)
    M, N, K = (workload.dims[name] for name in ("M", "N", "K"))
    weights = workload.format
    x = rng.standard_normal((M, K))
    for row in x:
        row[rng.integers(0, K, min(_OUTLIERS, K // 64))] *= 30
    act = np.dtype(_ACT[workload.dtypes.act])
    x = x.astype(act)
    matrices = {name: _draw(rng, weights, N, K) for name in (("w", "w_up") if _has(workload, "gated") else ("w",))}
    plain = {"x": x}
    if _has(workload, "bias"):
        for name in matrices:
            plain[name.replace("w", "bias")] = rng.standard_normal(N).astype(act)
    if _has(workload, "residual"):
        plain["r"] = rng.standard_normal((M, N), np.float32).astype(act)
    products = {name: matrix.product(x) for name, matrix in matrices.items()}
    expected, gain = products["w"], Gain()
    if workload.options:
        gain = _gain(workload, *products.values())
        expected = gemm_epilogue(
            products["w"],
            act=workload.options.get("act"),
            bias=plain.get("bias"),
            up=products.get("w_up"),
            bias_up=plain.get("bias_up"),
            residual=plain.get("r"),
        )
    return Case(
        pack=partial(_pack, plain, matrices),
        outputs={"y": Stored(act, (M, N))},
        expected={"y": expected},
        tolerance=tolerance(workload, x, expected, gain),
    )


def _has(workload: Workload, option: str) -> bool:
    return bool(workload.options.get(option))


def _draw(rng: np.random.Generator, weights: WeightFormat, N: int, K: int) -> _Matrix:
    if weights.kind == "fp16":
        # Random sign and mantissa, exponents 2⁻⁸ … 2⁻⁵: halves without a float copy of the matrix.
        bits = _random_bytes(rng, (N, 2 * K)).view(np.uint16)
        bits &= np.uint16(0x8FFF)
        bits += np.uint16(0x1C00)
        return _Matrix(weights, bits.view(np.float16), None, None)
    if weights.kind == "int8":
        codes = _random_bytes(rng, (N, K)).view(np.int8)
        np.maximum(codes, -127, out=codes)
        return _Matrix(weights, codes, (0.00027 * rng.uniform(0.5, 1.5, (N, 1))).astype(np.float16), None)
    shape = (N, K // weights.group)
    step = 0.0043 * rng.uniform(0.5, 1.5, shape)
    zero = rng.uniform(6.5, 8.5, shape)
    codes = _random_bytes(rng, (N, K // 2))
    if weights.kind == "int4":
        return _Matrix(weights, codes, step.astype(np.float16), (-step * zero).astype(np.float16))
    return _Matrix(weights, codes, (16 * step).astype(np.float16), (-step * (zero + 16)).astype(np.float16))


def _random_bytes(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    words = rng.integers(0, 2**64, -(-shape[0] * shape[1] // 8), dtype=np.uint64)
    return words.view(np.uint8)[: shape[0] * shape[1]].reshape(shape)


def _pack(plain: Mapping[str, Array], matrices: Mapping[str, _Matrix], layouts: Mapping[str, str]) -> Arrays:
    tensors = dict(plain)
    layout = Layout.parse(layouts["w"])
    for name, matrix in matrices.items():
        tensors[name], scales = matrix.packed(layout)
        if scales is not None:
            tensors[name.replace("w", "sb")] = scales
    return tensors


@dataclass(frozen=True)
class Gain:
    """By how much an epilogue magnifies the products' errors: root mean square over the outputs, and at most."""

    rms: float = 1.0
    peak: float = 1.0


_STEEPEST = 1.13  # slope of an activation at most: gelu's is 1.129 at x = √2


def _gain(workload: Workload, gate: Array, up: Array | None = None) -> Gain:
    """From the products: d(act(g) · u)² ≤ (1.13 · u · dg)² + (g · du)², as |act(g)| ≤ |g| for every activation.

    A bias is not counted: it is about as large as the products are, and shifts both alike.
    """
    slope = _STEEPEST if workload.options.get("act") else 1.0
    if up is None:
        return Gain(slope, slope)
    squares, peak = 0.0, 0.0
    for row, other in zip(gate, up, strict=True):
        gains = (slope * other) ** 2 + row**2
        squares += float(gains.sum())
        peak = max(peak, float(gains.max()))
    return Gain((squares / gate.size) ** 0.5, peak**0.5)


def tolerance(workload: Workload, x: Array, expected: Array, gain: Gain = Gain()) -> Tolerance:
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
    output is one draw, given 5 standard deviations. What follows the products magnifies their errors by `gain`, and an
    output that is far larger than the rest is rounded as far more coarsely.
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
    power = float(np.vdot(expected, expected)) / expected.size
    short = max(1.0, gain.rms**2 * usual / power)
    tall = float(max(gain.peak / gain.rms, max(expected.max(), -expected.min()) / (6 * power**0.5), 1.0))
    return Tolerance(nmse=(4 + 24 / expected.size) * squares * short, max_scaled=2 * peak * tall * short**0.5)


def _int8_error(x: Array) -> float:
    """Root mean square of int8 rounding errors over that of x, the worst row's."""
    M, K = x.shape
    padded = np.zeros((M, -(-K // _INT8_BLOCK) * _INT8_BLOCK))
    padded[:, :K] = x
    steps = np.abs(padded.reshape(M, -1, _INT8_BLOCK)).max(axis=2) / 127
    return float(np.sqrt((steps**2).sum(axis=1) * _INT8_BLOCK / 12 / (padded**2).sum(axis=1)).max())


def least_cost(workload: Workload) -> Cost:
    """Two operations per weight and token; weights with their scales, x, y and what is added to it moved once."""
    M, N, K = (workload.dims[name] for name in ("M", "N", "K"))
    act_bytes = np.dtype(_ACT[workload.dtypes.act]).itemsize
    matrices = 2 if _has(workload, "gated") else 1
    row_scales = 2 * N if workload.format.kind == "int8" else 0
    weight_bytes = matrices * (N * K * workload.format.bits_per_weight / 8 + row_scales)
    added = _has(workload, "residual") * M * N + _has(workload, "bias") * matrices * N
    return Cost(
        flops=2.0 * matrices * M * N * K,
        bytes=weight_bytes + act_bytes * (M * (N + K) + added),
        written=act_bytes * M * N,
        cold=weight_bytes,
    )


# ---------------------------------------------------------------- what a model asks


def job(
    family: str,
    sheet: ModelSheet,
    matrix: Matrix,
    m: int,
    form: str,
    ask: Ask,
    notes: list[str],
    *,
    phase: str = "",
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Job:
    """`m` rows times one of a model's matrices, in fp16 (and a note) where the format's group does not divide K."""
    group = WeightFormat.parse(form).group
    if group and matrix.K % group:
        notes.append(
            f"{sheet.name} {matrix.name}: K = {matrix.K} is not a multiple of the group of {form}; planned with fp16"
        )
        form = "fp16"
    dims = {"M": m, "N": matrix.N, "K": matrix.K}
    workload = Workload(family, dims, ask.dtypes(form), form, options, f"{sheet.name} {matrix.name}")
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


# ---------------------------------------------------------------- for orientation

_NUMPY_BYTES = 64 << 20  # of weights in float32 that a product walks through again and again: more than a CPU caches


def numpy_product(workload: Workload) -> Callable[[], object]:
    """NumPy's product in float32 with weights that are no longer quantised; of a fused job the products alone.

    A block of 64 MiB stands for the whole matrix, which in float32 may be larger than the memory of the machine.
    """
    M, N, K = (workload.dims[name] for name in ("M", "N", "K"))
    rng = np.random.default_rng(0)
    rows = min(N, max(1, _NUMPY_BYTES // (4 * K)))
    x = rng.standard_normal((M, K), np.float32)
    w = rng.standard_normal((rows, K), np.float32)
    y = np.empty((M, N), np.float32)

    def call() -> object:
        for _ in range(2 if workload.options.get("gated") else 1):
            for start in range(0, N, rows):
                part = min(rows, N - start)
                np.matmul(x, w[:part].T, out=y[:, start : start + part])
        return y

    return call
