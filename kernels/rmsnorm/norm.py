"""What a norm is asked: its options, cases and tolerances, least cost, and how the sources read all that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernels.models import NORMS
from kernels.spec import Case, Cost, Stored, Tolerance, Workload
from reference.norms import add_residual, int8_steps, layer_norm, rms_norm

Array = np.ndarray[Any, Any]

_ACT: dict[str, Any] = {"fp16": np.float16, "fp32": np.float32}
_OUTLIERS = 4  # of a row, thirty times as large, as transformers have them
_SMALL = 2.0**-6  # of the usual: a row in which eps is felt, and halves are not yet subnormal
_MEAN = 24.0  # of LayerNorm's rows, in units of their deviation: one-pass formulas lose nine bits by it


@dataclass(frozen=True)
class Options:
    """A workload's options, with their defaults."""

    norm: str  # of NORMS
    residual: bool  # r is added first, and the sum written out
    eps: float
    int8: bool  # y as int8 codes with one scale per row, for an integer product

    @staticmethod
    def of(workload: Workload) -> Options:
        """Read and check them. Raises ValueError naming the choices."""
        given = dict(workload.options)
        norm, out = given.pop("norm", "rms"), given.pop("out", "act")
        found = Options(norm, bool(given.pop("residual", False)), float(given.pop("eps", 1e-6)), out == "int8")
        if given:
            raise ValueError(f"unknown option {', '.join(given)} of a norm; it has norm, residual, eps and out")
        if norm not in NORMS:
            raise ValueError(f'unknown norm "{norm}"; choose {", ".join(NORMS)}')
        if out not in ("act", "int8"):
            raise ValueError(f'unknown output "{out}" of a norm; choose act or int8')
        if not found.eps > 0:
            raise ValueError(f"eps is above 0, not {found.eps}: a row of zeros would be divided by 0")
        return found

    @property
    def inputs(self) -> tuple[str, ...]:
        """The tensors that are read, in the ABI's order."""
        return ("x", *(("r",) if self.residual else ()), "w", *(("b",) if self.norm == "layer" else ()))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The tensors that are written, in the ABI's order."""
        return (*(("sum",) if self.residual else ()), "y", *(("ys",) if self.int8 else ()))

    @property
    def arguments(self) -> tuple[str, ...]:
        """What a kernel that does everything in one launch takes."""
        return (*self.inputs, *self.outputs, "M", "N")


def defines(workload: Workload) -> Mapping[str, int | float]:
    """Policy and options as norm.clh reads them; products are in float under every policy."""
    options = Options.of(workload)
    return {
        "ACT_FP16": int(workload.dtypes.act == "fp16"),
        "COMPUTE_FP16": 0,
        "NORM": NORMS.index(options.norm),
        "RESIDUAL": int(options.residual),
        "OUT_INT8": int(options.int8),
        "EPS": options.eps,
    }


def least_cost(workload: Workload) -> Cost:
    """Every tensor touched once; operations of an element with nothing computed twice.

    RMSNorm: square and add, scale, weigh (4). LayerNorm: add, subtract the mean, square and add, scale, weigh, add the
    bias (7). The residual adds 1, int8 codes a comparison and a product (2). What happens once a row is left out.
    """
    options = Options.of(workload)
    M, N = workload.dims["M"], workload.dims["N"]
    act_bytes = np.dtype(_ACT[workload.dtypes.act]).itemsize
    vectors = 2 if options.norm == "layer" else 1
    written = M * N * (1 if options.int8 else act_bytes) + options.residual * M * N * act_bytes + 4 * M * options.int8
    read = (1 + options.residual) * M * N * act_bytes + vectors * N * act_bytes
    element = (7 if options.norm == "layer" else 4) + options.residual + 2 * options.int8
    return Cost(flops=float(M * N * element), bytes=float(read + written), written=float(written))


# ---------------------------------------------------------------- cases


def make_case(workload: Workload, seed: int) -> Case:
    """Rows with outliers; LayerNorm's far from zero; the second of three or more is all zeros, the third small."""
    rng = np.random.default_rng(seed)
    options = Options.of(workload)
    M, N = workload.dims["M"], workload.dims["N"]
    act = _ACT[workload.dtypes.act]
    tensors = {"x": _rows(rng, options, M, N).astype(act)}
    if options.residual:
        tensors["r"] = rng.standard_normal((M, N), np.float32).astype(act)
    if M >= 3:
        for rows in tensors.values():
            rows[1] = 0
            rows[2] *= act(_SMALL)
    tensors["w"] = (0.1 * rng.standard_normal(N) + (options.norm != "rms1p")).astype(act)
    if options.norm == "layer":
        tensors["b"] = (0.1 * rng.standard_normal(N)).astype(act)
    s = add_residual(tensors["x"], tensors["r"]) if options.residual else tensors["x"]
    y = _answer(options, s, tensors)
    outputs = {"y": Stored(np.dtype(np.int8 if options.int8 else act), (M, N))}
    expected = {"y": y}
    if options.residual:
        outputs["sum"] = Stored(np.dtype(act), (M, N))
        expected["sum"] = s.astype(np.float64)
    if options.int8:
        outputs["ys"] = Stored(np.dtype(np.float32), (M,))
        expected["ys"] = int8_steps(y)
    return Case(
        pack=lambda layouts: tensors,
        outputs=outputs,
        expected=expected,
        tolerance=tolerance(workload, s, expected),
        read=_decoded if options.int8 else None,
    )


def _rows(rng: np.random.Generator, options: Options, M: int, N: int) -> Array:
    x = rng.standard_normal((M, N), np.float32)
    for row in x:
        row[rng.integers(0, N, min(_OUTLIERS, N // 64))] *= 30
    return x + _MEAN if options.norm == "layer" else x


def _answer(options: Options, s: Array, tensors: Mapping[str, Array]) -> Array:
    if options.norm == "layer":
        return layer_norm(s, tensors["w"], tensors["b"], options.eps)
    return rms_norm(s, tensors["w"], options.eps, offset=float(options.norm == "rms1p"))


def _decoded(stored: Mapping[str, Array], layouts: Mapping[str, str]) -> Mapping[str, Array]:
    return {**stored, "y": stored["y"].astype(np.float64) * stored["ys"][:, None].astype(np.float64)}


def tolerance(workload: Workload, s: Array, expected: Mapping[str, Array]) -> Tolerance:
    """What storing and rounding may cost, as relative root-mean-square errors that add in squares, doubled.

    - Storing y and the sum as half: at most 2⁻¹¹ relative, uniform within it.
    - Float sums of N terms in any order: errors of 2⁻²⁴ that add like a random walk, √N · 2⁻²⁴, and half of that in
      the root; 8 · 2⁻²⁴ for the root, the products and the conversions.
    - LayerNorm's mean, known to √N · 2⁻²⁴ of its own size, is subtracted from deviations that are smaller by
      |mean| / sqrt(var + eps); the worst row's counts. A one-pass variance would lose the square of that.
    - int8: half a step of max |y| / 127 at most, uniform within it, from this very y.

    Single elements: the bounds themselves, relative to the largest element; three times what is random.
    """
    options = Options.of(workload)
    N = workload.dims["N"]
    crest = max(float(np.abs(array).max()) / _rms(array) for array in expected.values())
    relative = (8 + N**0.5) * 2.0**-24
    shifted = 0.0
    if options.norm == "layer":
        rows = s.astype(np.float64)
        shifted = float((np.abs(rows.mean(axis=1)) / np.sqrt(rows.var(axis=1) + options.eps)).max())
        shifted *= (1 + N**0.5) * 2.0**-24
    squares = relative**2 + shifted**2
    peak = 3 * (relative * crest + shifted)
    if workload.dtypes.act == "fp16":
        squares += 2.0**-22 / 3
        peak += 2.0**-11 * crest
    if options.int8:
        steps = int8_steps(expected["y"])
        squares += float(np.square(steps).mean()) / 12 / _rms(expected["y"]) ** 2
        peak += 0.51 * float(steps.max()) / _rms(expected["y"])
    size = expected["y"].size
    return Tolerance(nmse=(4 + 24 / size) * squares, max_scaled=2 * peak)


def _rms(array: Array) -> float:
    return float(np.sqrt(np.mean(np.square(array)))) or 1.0
