"""The KV cache: rows written at their positions, and head rows as int8 or int4 codes with fp16 scales; in float64.

A cache tensor is [S, G, D]: S positions, G kv heads, D dims. A head row is the D numbers of one position and head; a
quantised cache has one scale (int8: x = scale · q, q −127…127) or one scale and bias (int4: x = scale · q + bias,
q 0…15) for each. Scales are rounded up to a half and biases down, so that the codes cover the row unclamped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reference.groups import F16, F64, half_at_least, over


def quantise_rows_int8(x: ArrayLike) -> tuple[NDArray[np.int8], F16]:
    """Codes −127…127 [..., D] and scale [...] of head rows x [..., D]: scale = max |x| / 127, code = round(x / scale).

    Raises ValueError where a scale exceeds fp16.
    """
    rows = np.asarray(x, np.float64)
    scale = half_at_least(np.abs(rows).max(axis=-1) / 127, "scale")
    return np.rint(over(rows, scale[..., None])).astype(np.int8), scale


def quantise_rows_int4(x: ArrayLike) -> tuple[NDArray[np.uint8], F16, F16]:
    """Codes 0…15 [..., D], scale and bias [...] of head rows x [..., D]: bias = min, scale = (max − bias) / 15.

    Raises ValueError where a scale or bias exceeds fp16.
    """
    rows = np.asarray(x, np.float64)
    bias = -half_at_least(-rows.min(axis=-1), "bias")
    scale = half_at_least((rows.max(axis=-1) - bias) / 15, "scale")
    codes = np.rint(over(rows - bias[..., None].astype(np.float64), scale[..., None]))
    return np.clip(codes, 0, 15).astype(np.uint8), scale, bias


def dequantise_rows(codes: NDArray[Any], scale: F16 | None = None, bias: F16 | None = None) -> F64:
    """What stored head rows [..., D] stand for: halves without a scale, else codes · scale [...] + bias [...]."""
    rows = codes.astype(np.float64)
    if scale is not None:
        rows *= scale.astype(np.float64)[..., None]
    if bias is not None:
        rows += bias.astype(np.float64)[..., None]
    return rows


def write_rows(cache: ArrayLike, new: ArrayLike, positions: ArrayLike) -> F64:
    """The cache [S, G, D] after row m of new [M, G, D] went to positions[m]; rows beyond the cache go nowhere.

    Where a position appears twice, the later row stays. Returns a copy.
    """
    written = np.array(cache, np.float64)
    for row, position in zip(np.asarray(new, np.float64), np.asarray(positions), strict=True):
        if 0 <= position < written.shape[0]:
            written[position] = row
    return written
