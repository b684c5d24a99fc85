"""Rotary position embedding: pairs of a head's dims turned by an angle that grows with the position; in float64.

The first `rotary` dims of a head are turned, the others stay. Pair i turns by position · base^(−2i / rotary):

    (a, b) → (a · cos − b · sin, b · cos + a · sin)

"half": dims (i, i + rotary/2) are a pair, as in Llama; "interleaved": dims (2i, 2i + 1), as in ChatGLM.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reference.groups import F64

BASE = 10000.0


def angles(positions: ArrayLike, rotary: int, base: float = BASE) -> F64:
    """Angle of each pair at each position, [M, rotary / 2], in radians. Raises ValueError for an odd `rotary`."""
    if rotary % 2:
        raise ValueError(f"rotary = {rotary} is odd; dims turn in pairs")
    pairs = np.arange(rotary // 2, dtype=np.float64)
    turns: F64 = np.outer(np.asarray(positions, np.float64), base ** (-2 * pairs / rotary))
    return turns


def table(positions: int, rotary: int, base: float = BASE) -> NDArray[np.float32]:
    """(cos, sin) of positions 0, 1, …: float32 [positions, rotary / 2, 2], what a kernel reads."""
    turns = angles(np.arange(positions), rotary, base)
    both = np.empty((*turns.shape, 2), np.float32)
    both[..., 0], both[..., 1] = np.cos(turns), np.sin(turns)
    return both


def rope(x: ArrayLike, turns: F64, kind: str) -> F64:
    """Heads x [M, H, D] turned by the angles [M, rotary / 2] of their rows.

    Raises ValueError for a kind that is neither "half" nor "interleaved", and more angles than dims.
    """
    turned = np.array(x, np.float64)
    pairs = turns.shape[1]
    if 2 * pairs > turned.shape[2]:
        raise ValueError(f"{pairs} pairs do not fit the {turned.shape[2]} dims of a head")
    if kind == "half":
        first, second = slice(0, pairs), slice(pairs, 2 * pairs)
    elif kind == "interleaved":
        first, second = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
    else:
        raise ValueError(f'unknown rope "{kind}"; choose half or interleaved')
    cos, sin = np.cos(turns)[:, None, :], np.sin(turns)[:, None, :]
    a, b = turned[..., first].copy(), turned[..., second].copy()
    turned[..., first] = a * cos - b * sin
    turned[..., second] = b * cos + a * sin
    return turned
