"""Matrices in groups and halves with a chosen rounding: what the weight formats share."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

F64 = NDArray[np.float64]
F16 = NDArray[np.float16]

GROUPS = (32, 64, 128)
HALF_MAX = 65504.0  # the largest finite fp16


def finite_matrix(w: ArrayLike) -> F64:
    """The weights as a float64 matrix. Raises ValueError naming the first weight that is not finite."""
    weights = np.asarray(w, dtype=np.float64)
    if weights.ndim != 2 or weights.size == 0:
        raise ValueError(f"weights are a matrix [N, K] with N and K at least 1, not of shape {weights.shape}")
    if not np.isfinite(weights).all():
        row, column = np.argwhere(~np.isfinite(weights))[0]
        raise ValueError(f"weight [{row}, {column}] is {weights[row, column]}; only finite weights can be quantised")
    return weights


def grouped(w: ArrayLike, group: int) -> F64:
    """The weights as [N, K / group, group]. Raises ValueError for another group or a K that it does not divide."""
    weights = finite_matrix(w)
    N, K = weights.shape
    if group not in GROUPS:
        raise ValueError(f"a group is 32, 64 or 128 weights, not {group}")
    if K % group:
        raise ValueError(f"K = {K} is not a multiple of the group of {group}; choose a smaller group, int8 or fp16")
    return weights.reshape(N, K // group, group)


def half(values: F64, what: str) -> F16:
    """The nearest halves. Raises ValueError, naming `what` and where, if a value exceeds fp16."""
    beyond = np.abs(values) > HALF_MAX
    if beyond.any():
        where = ", ".join(map(str, np.argwhere(beyond)[0]))
        raise ValueError(
            f"{what} [{where}] would be {values[beyond][0]:.6g}, beyond the 65504 that fp16 holds; "
            "rescale these weights or keep them in another format"
        )
    return values.astype(np.float16)


def half_at_least(values: F64, what: str) -> F16:
    """The smallest halves that are not below the values. Raises as `half` does."""
    nearest = half(values, what)
    with np.errstate(over="ignore"):  # the neighbour of 65504, which is never taken
        above = np.nextafter(nearest, np.float16(np.inf))
    return np.where(nearest < values, above, nearest)


def over(numerator: F64, scale: F16) -> F64:
    """The quotient, 0 where the scale is 0 (a group whose weights are all 0, or all equal to a float bias)."""
    divisor = scale.astype(np.float64)
    quotient: F64 = numerator / np.where(divisor == 0, 1, divisor)
    return np.where(divisor == 0, 0, quotient)
