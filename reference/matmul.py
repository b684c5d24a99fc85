"""y = x · wᵀ in float64: what every matrix-vector and matrix-matrix kernel is held to.

x is [M, K], weights are [N, K] (one row an output), y is [M, N]. The reference always takes the activations as they
are stored: a kernel whose dtype policy computes in int8 is held to the product with *unquantised* x, and its tolerance
covers what quantising x costs. `gemv_int8_activations` tells how much that is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reference.activations import ACTIVATIONS
from reference.groups import F16, F64
from reference.quantization import Kind, dequantize_codes, unpack_nibbles

# Weights dequantised at a time, 1 MiB in float64. The time hardly depends on it: 2048 × 256000 takes 0.5 to 0.6 s with
# 2^15 to 2^20 (M = 1, packed codes, 2 cores with AVX-512).
_SLICE_WEIGHTS = 1 << 17


def gemv(x: ArrayLike, w: ArrayLike) -> F64:
    """y [M, N] = x [M, K] · w [N, K]ᵀ in float64. Raises ValueError where the two K differ."""
    activations, weights = np.asarray(x, np.float64), np.asarray(w, np.float64)
    _expect_same_k(activations, weights.shape[1])
    return activations @ weights.T


def gemv_quantized(
    x: ArrayLike, kind: Kind, codes: NDArray[Any], scale: F16 | None, bias: F16 | None, group: int
) -> F64:
    """y [M, N] = x · dequantised wᵀ in float64, a slice of rows at a time, so that memory stays in the megabytes.

    Shapes as in `reference.quantization.Quantized`; 4-bit codes also two per byte, [N, K / 2], low nibble the even k.
    Raises ValueError where shapes contradict each other.
    """
    activations = np.asarray(x, np.float64)
    N, columns = codes.shape
    packed = kind in ("int4", "e0m4") and 2 * columns == activations.shape[1]
    _expect_same_k(activations, columns * (2 if packed else 1))
    y = np.empty((activations.shape[0], N))
    rows = max(1, _SLICE_WEIGHTS // activations.shape[1])
    for start in range(0, N, rows):
        part = slice(start, start + rows)
        part_codes = unpack_nibbles(codes[part]) if packed else codes[part]
        part_scale = None if scale is None else scale[part]
        part_bias = None if bias is None else bias[part]
        y[:, part] = activations @ dequantize_codes(kind, part_codes, part_scale, part_bias, group).T
    return y


def gemm_epilogue(
    product: F64,
    *,
    act: str | None = None,
    bias: ArrayLike | None = None,
    up: F64 | None = None,
    bias_up: ArrayLike | None = None,
    residual: ArrayLike | None = None,
) -> F64:
    """act(product + bias) ⊙ (up + bias_up) + residual in float64, each part only where it is given.

    `product`, `up` and `residual` are [M, N], the biases [N]; `act` is a name of `reference.activations`. It works a
    row at a time, so that little memory is needed beyond the result. Raises KeyError for an unknown activation.
    """
    y = np.empty(product.shape)
    function = ACTIVATIONS[act] if act else np.asarray
    for m, row in enumerate(product):
        y[m] = function(row if bias is None else row + np.asarray(bias, np.float64))
        if up is not None:
            y[m] *= up[m] if bias_up is None else up[m] + np.asarray(bias_up, np.float64)
        if residual is not None:
            y[m] += np.asarray(residual)[m]
    return y


@dataclass(frozen=True, eq=False)
class QuantizedActivations:
    """Activations [M, K] as symmetric int8: x ≈ scale · code, one scale per `block` neighbours along K."""

    block: int
    codes: NDArray[np.int8]  # [M, K], −127…127
    scale: NDArray[np.float32]  # [M, K / block]


def quantize_activations_int8(x: ArrayLike, block: int) -> QuantizedActivations:
    """Symmetric int8 per block along K (block = K: per row): scale = max |x| / 127 in float32, code = round(x / scale).

    An element is within half a step, so the error of x has a root mean square near scale / √12 (uniform rounding).
    A block of zeros has scale 0. Raises ValueError for x that is not 2-D or not finite, or K no multiple of block.
    """
    activations = np.asarray(x, np.float64)
    if activations.ndim != 2:
        raise ValueError(f"activations are a matrix [M, K], not of shape {activations.shape}")
    if not np.isfinite(activations).all():
        raise ValueError("activations are not all finite; int8 cannot hold inf or nan")
    M, K = activations.shape
    if block < 1 or K % block:
        raise ValueError(f"K = {K} is not a multiple of the block of {block}; choose a divisor of K")
    blocks = activations.reshape(M, K // block, block)
    scale = (np.abs(blocks).max(axis=2) / 127).astype(np.float32)
    divisor = np.where(scale == 0, 1, scale).astype(np.float64)[:, :, None]
    codes = np.clip(np.rint(blocks / divisor * (scale != 0)[:, :, None]), -127, 127).astype(np.int8)
    return QuantizedActivations(block, codes.reshape(M, K), scale)


def dequantize_activations(q: QuantizedActivations) -> F64:
    """The activations [M, K] that the codes stand for, in float64."""
    blocks = q.codes.astype(np.float64).reshape(*q.scale.shape, q.block)
    return (blocks * q.scale.astype(np.float64)[:, :, None]).reshape(q.codes.shape)


def gemv_int8_activations(x: ArrayLike, w: ArrayLike, block: int) -> F64:
    """y [M, N] of int8-quantised x and w in float64: what exact arithmetic makes of quantising x, and nothing else.

    It is not the reference of an int8 kernel (that is `gemv`); it separates quantisation's error from a kernel's own.
    """
    return gemv(dequantize_activations(quantize_activations_int8(x, block)), w)


def _expect_same_k(activations: F64, K: int) -> None:
    if activations.ndim != 2 or activations.shape[1] != K:
        raise ValueError(f"activations of shape {activations.shape} do not fit weights with K = {K}; x is [M, K]")
