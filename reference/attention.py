"""o = softmax(scale · q · kᵀ) · v in float64: what every attention kernel is held to.

M queries are the last of T cached positions, so query i stands at position T − M + i. q is [M, H, D], k and v are
[T, G, D] with G dividing H: head h reads kv head h // (H / G) (MHA: G = H, MQA: G = 1). o is [M, H, D].

A logit s = scale · q · k becomes c · tanh(s / c) with a softcap c. Key j is visible to the query at position i

    causal     if j ≤ i
    window W   if i − W < j ≤ i: itself and the W − 1 before it
    valid      if valid[j] is not 0, whatever the query: a mask for padded prompts

and a query that sees no key at all gives zeros.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reference.groups import F64

# Logits held at a time, 32 MiB in float64: 1024 × 1024 × 32 heads would be 268 MB at once.
_SLICE_LOGITS = 1 << 22


def attention(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    *,
    scale: float | None = None,
    causal: bool = False,
    window: int | None = None,
    softcap: float | None = None,
    valid: ArrayLike | None = None,
) -> F64:
    """o [M, H, D]; scale is 1 / √D unless given. Raises ValueError where shapes or options contradict each other."""
    queries, keys, values = (np.asarray(x, np.float64) for x in (q, k, v))
    seen = visible(len(queries), len(keys), causal=causal, window=window, valid=valid)
    M, H, D = _shapes(queries, keys, values)
    per_group = H // keys.shape[1]
    factor = D**-0.5 if scale is None else scale
    o = np.empty((M, H, D))
    rows = max(1, _SLICE_LOGITS // len(keys))
    for h in range(H):
        kh, vh = keys[:, h // per_group], values[:, h // per_group]
        for start in range(0, M, rows):
            part = slice(start, start + rows)
            logits = factor * (queries[part, h] @ kh.T)
            if softcap is not None:
                logits = softcap * np.tanh(logits / softcap)
            o[part, h] = softmax(logits, seen[part]) @ vh
    return o


def visible(
    M: int, T: int, *, causal: bool = False, window: int | None = None, valid: ArrayLike | None = None
) -> NDArray[np.bool_]:
    """Which of T keys each of the last M positions sees: [M, T]. Raises ValueError for a contradiction."""
    if not 1 <= M <= T:
        raise ValueError(f"{M} queries cannot be the last of {T} positions")
    if window is not None and not (causal and window >= 1):
        raise ValueError("a window is of at least one key, and only causal queries have one")
    position = np.arange(T - M, T)[:, None]
    key = np.arange(T)[None, :]
    seen = np.ones((M, T), bool)
    if causal:
        seen &= key <= position
    if window is not None:
        seen &= key > position - window
    if valid is not None:
        flags = np.asarray(valid)
        if flags.shape != (T,):
            raise ValueError(f"valid has shape {flags.shape}; it is one flag for each of {T} keys")
        seen &= flags[None, :] != 0
    return seen


def softmax(logits: F64, seen: NDArray[np.bool_]) -> F64:
    """Softmax of each row over the keys it sees; zeros in a row that sees none."""
    hidden = np.where(seen, logits, -np.inf)
    highest = hidden.max(axis=1, keepdims=True)
    weights = np.exp(hidden - np.where(np.isfinite(highest), highest, 0.0))
    total = weights.sum(axis=1, keepdims=True)
    result: F64 = weights / np.where(total == 0.0, 1.0, total)
    return result


def _shapes(q: F64, k: F64, v: F64) -> tuple[int, int, int]:
    if q.ndim != 3 or k.ndim != 3 or k.shape != v.shape or q.shape[2] != k.shape[2]:
        raise ValueError(f"q {q.shape}, k {k.shape}, v {v.shape} are not [M, H, D] and twice [T, G, D]")
    M, H, D = q.shape
    if H % k.shape[1]:
        raise ValueError(f"{k.shape[1]} kv heads do not divide {H} heads")
    return M, H, D
