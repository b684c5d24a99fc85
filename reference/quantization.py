"""Weights as codes: INT4 and E0M4 in groups along K, int8 per row, fp16; and the way back, in float64.

A weight matrix is [N, K]: one row an output, groups of 32, 64 or 128 neighbours along K. What a kernel reads is the
same for both 4-bit formats, codes 0…15 and an fp16 `scale` and `bias` per group, with

    w = scale · v + bias        v = code (int4)        v = 1 + code / 16 (e0m4: the half whose exponent is that of 1.0)

which represents integer and float zero-points alike. What rounding the two to fp16 costs: a weight of 0 comes back
with a residual of at most 2⁻¹¹ · |bias| (2⁻²⁵ where bias is subnormal), 0.008 steps of INT4 and 0.016 of E0M4 at worst,
since `bias` is computed from the *rounded* scale and only its own rounding remains. INT4's codes are chosen with the
rounded scale. The paper's form of E0M4, in which 0 stays exactly 0, and the choices behind it are in `reference.e0m4`.

INT4 with an integer zero-point z: scale = (hi − lo) / 15 with lo ≤ 0 ≤ hi, z = round(−lo / scale),
code = clamp(round(w / scale) + z, 0, 15), bias = −z · scale. With a float zero-point: bias = min, scale =
(max − bias) / 15, code = round((w − bias) / scale). Scales are rounded up and a float bias is rounded down, so that the
sixteen codes cover the group and no weight is further than half a step from its code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reference.e0m4 import PaperE0M4, quantize_e0m4_paper
from reference.groups import F16, F64, finite_matrix, grouped, half, half_at_least, over

Kind = Literal["fp16", "int8", "int4", "e0m4"]
ZeroPoint = Literal["integer", "float"]


@dataclass(frozen=True, eq=False)
class Quantized:
    """One weight matrix [N, K] as a kernel reads it, before any layout."""

    kind: Kind
    group: int  # weights along K that share a scale and a bias; 0 for fp16 and int8
    codes: NDArray[Any]  # [N, K]: uint8 0…15 (int4, e0m4), int8 −127…127, or the float16 weights themselves
    scale: F16 | None  # [N, K / group]; [N, 1] for int8; None for fp16
    bias: F16 | None  # [N, K / group]; None for int8 and fp16


def quantize(w: ArrayLike, kind: Kind, group: int = 0) -> Quantized:
    """Quantise weights [N, K] with the default choices of a format. Raises what the format's own function raises."""
    if kind == "fp16":
        return quantize_fp16(w)
    if kind == "int8":
        return quantize_int8(w)
    if kind == "int4":
        return quantize_int4(w, group)
    return quantize_e0m4(w, group)


def quantize_int4(w: ArrayLike, group: int, zero_point: ZeroPoint = "integer") -> Quantized:
    """Asymmetric 4-bit integers in groups along K, with an integer or a float zero-point (formulas above).

    Raises ValueError for a matrix that is not 2-D or not finite, K that is no multiple of the group, and a group so
    wide that its scale or bias exceeds fp16.
    """
    groups = grouped(w, group)
    low, high = groups.min(axis=2), groups.max(axis=2)
    if zero_point == "float":
        bias = -half_at_least(-low, "minimum")
        scale = half_at_least((high - bias) / 15, "scale")
        codes = np.rint(over(groups - bias[:, :, None], scale[:, :, None]))
    elif zero_point == "integer":
        low, high = np.minimum(low, 0), np.maximum(high, 0)
        with np.errstate(over="ignore"):  # an infinite span is refused as any that exceeds fp16
            scale = half_at_least((high - low) / 15, "scale")
        zero = np.rint(over(-low, scale))
        bias = half(-zero * scale, "bias")
        codes = np.rint(over(groups, scale[:, :, None])) + zero[:, :, None]
    else:
        raise ValueError(f'unknown zero-point "{zero_point}"; choose integer or float')
    codes = np.clip(codes, 0, 15).astype(np.uint8)
    return Quantized("int4", group, codes.reshape(groups.shape[0], -1), scale, bias)


def quantize_int8(w: ArrayLike) -> Quantized:
    """Symmetric int8 with one fp16 scale per output row: scale = max |w| / 127, code = round(w / scale).

    Raises ValueError for a matrix that is not 2-D or not finite, or whose scale exceeds fp16.
    """
    weights = finite_matrix(w)
    scale = half_at_least(np.abs(weights).max(axis=1, keepdims=True) / 127, "scale")
    return Quantized("int8", 0, np.rint(over(weights, scale)).astype(np.int8), scale, None)


def quantize_fp16(w: ArrayLike) -> Quantized:
    """Weights rounded to the nearest half. Raises ValueError if not 2-D, not finite or beyond fp16."""
    return Quantized("fp16", 0, half(finite_matrix(w), "weight"), None, None)


def quantize_e0m4(w: ArrayLike, group: int, n: int = 1) -> Quantized:
    """E0M4 codes as the paper finds them, with the kernels' scale and bias.

    Raises ValueError as `quantize_e0m4_paper` and `kernel_form` do.
    """
    return kernel_form(quantize_e0m4_paper(w, group, n))


def kernel_form(p: PaperE0M4) -> Quantized:
    """The same codes with scale' = 2^n / scale and bias' = −(bias / 2^n) · scale', so that w = scale' · v + bias'.

    v = 1 + code / 16 whatever n was. Rounding both to fp16 moves a weight by at most 0.023 steps where they are normal
    halves. Raises ValueError where a group is too wide for them (about 32 000).
    """
    start = 2.0**p.n
    scale = half(start / p.scale.astype(np.float64), "scale")
    bias = half(-p.bias.astype(np.float64) / start * scale, "bias")
    return Quantized("e0m4", p.group, p.codes, scale, bias)


def dequantize(q: Quantized) -> F64:
    """The weights [N, K] that the codes stand for, in float64."""
    return dequantize_codes(q.kind, q.codes, q.scale, q.bias, q.group)


def dequantize_codes(kind: Kind, codes: NDArray[Any], scale: F16 | None, bias: F16 | None, group: int) -> F64:
    """The weights [rows, K] of any rows of a matrix, in float64; shapes as in `Quantized`, int8's scale also [rows].

    Eight bytes a weight: give it slices of a huge matrix. Raises ValueError where the shapes contradict each other.
    """
    if kind == "fp16":
        return codes.astype(np.float64)
    rows, K = codes.shape
    if kind == "int8":
        return codes.astype(np.float64) * _wide("scale", scale, (rows, 1), (rows,)).reshape(rows, 1)
    if K % group:
        raise ValueError(f"K = {K} is not a multiple of the group of {group}; are the codes still packed?")
    # In place: fresh temporaries for each slice cost page faults, 0.5 against 4.7 s over all of 2048 × 256000.
    w = codes.astype(np.float64).reshape(rows, K // group, group)
    if kind == "e0m4":
        w /= 16
        w += 1
    w *= _wide("scale", scale, (rows, K // group))[:, :, None]
    w += _wide("bias", bias, (rows, K // group))[:, :, None]
    return w.reshape(rows, K)


def pack_nibbles(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """4-bit codes [N, K] two per byte, [N, K / 2]: the low nibble is the even k. Raises ValueError for an odd K."""
    if codes.shape[1] % 2:
        raise ValueError(f"K = {codes.shape[1]} is odd; codes are packed two per byte along K")
    return codes[:, 0::2] | codes[:, 1::2] << np.uint8(4)


def unpack_nibbles(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What `pack_nibbles` packed: codes 0…15 [N, K]."""
    codes = np.empty((packed.shape[0], packed.shape[1] * 2), np.uint8)
    codes[:, 0::2] = packed & 15
    codes[:, 1::2] = packed >> 4
    return codes


def _wide(what: str, array: F16 | None, *shapes: tuple[int, ...]) -> F64:
    if array is None or array.shape not in shapes:
        found = "missing" if array is None else f"of shape {array.shape}"
        raise ValueError(f"{what} is {found}; these codes need {' or '.join(map(str, shapes))}")
    return array.astype(np.float64)
