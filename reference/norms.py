"""RMSNorm and LayerNorm in float64, the residual addition before them, and what int8 codes of their output cost.

Rows are [M, N]. The reference takes numbers as they are stored: a norm behind a residual addition sees the sum as the
next block will read it, rounded to the activations' type.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

F64 = NDArray[np.float64]


def add_residual(x: NDArray[Any], r: NDArray[Any]) -> NDArray[Any]:
    """x + r, rounded once to x's type. Raises ValueError where type or shape differ."""
    if x.dtype != r.dtype or x.shape != r.shape:
        raise ValueError(f"x is {x.dtype} {x.shape} and r is {r.dtype} {r.shape}; both are of one type and shape")
    return (x.astype(np.float64) + r.astype(np.float64)).astype(x.dtype)


def rms_norm(s: ArrayLike, w: ArrayLike, eps: float, *, offset: float = 0.0) -> F64:
    """y = s / sqrt(mean(s²) + eps) · (offset + w), the mean over a row. Gemma's weights have an offset of 1.

    Raises ValueError for shapes that contradict each other or eps that is not positive.
    """
    rows, weights = _rows(s, eps), np.asarray(w, np.float64)
    _expect_columns(rows, weights, "w")
    mean_square = np.square(rows).mean(axis=1, keepdims=True)
    y: F64 = rows / np.sqrt(mean_square + eps) * (offset + weights)
    return y


def layer_norm(s: ArrayLike, w: ArrayLike, b: ArrayLike, eps: float) -> F64:
    """y = (s − mean) / sqrt(mean((s − mean)²) + eps) · w + b, means over a row.

    Raises ValueError for shapes that contradict each other or eps that is not positive.
    """
    rows, weights, bias = _rows(s, eps), np.asarray(w, np.float64), np.asarray(b, np.float64)
    _expect_columns(rows, weights, "w")
    _expect_columns(rows, bias, "b")
    away = rows - rows.mean(axis=1, keepdims=True)
    variance = np.square(away).mean(axis=1, keepdims=True)
    y: F64 = away / np.sqrt(variance + eps) * weights + bias
    return y


def int8_steps(y: ArrayLike) -> F64:
    """The scale [M] of each row's symmetric int8 codes: max |y| / 127, by which code 127 is the row's largest."""
    steps: F64 = np.abs(np.asarray(y, np.float64)).max(axis=1) / 127
    return steps


def _rows(s: ArrayLike, eps: float) -> F64:
    rows = np.asarray(s, np.float64)
    if rows.ndim != 2:
        raise ValueError(f"a norm takes rows [M, N], not shape {rows.shape}")
    if not eps > 0:
        raise ValueError(f"eps is above 0, not {eps}: a row of zeros would be divided by 0")
    return rows


def _expect_columns(rows: F64, vector: F64, name: str) -> None:
    if vector.shape != rows.shape[1:]:
        raise ValueError(f"{name} of shape {vector.shape} does not fit rows of {rows.shape[1]}")
