"""Attention as NumPy does it in float32, with a score matrix, for orientation beside measured times."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kernels.flash_attention.problem import scale_of
from kernels.spec import Workload


def numpy_attention(workload: Workload) -> Callable[[], object]:
    """All heads of one kv head at a time, so that NumPy multiplies matrices; padding is left out, softcap is not."""
    M, T, H, G, D = (workload.dims[name] for name in ("M", "T", "H", "G", "D"))
    rng = np.random.default_rng(0)
    q = rng.standard_normal((G, H // G * M, D), np.float32) * np.float32(scale_of(workload))
    k, v = (rng.standard_normal((G, T, D), np.float32) for _ in range(2))
    options = workload.options
    hidden = None
    if options.get("causal"):
        query, key = np.arange(T - M, T)[:, None], np.arange(T)
        unseen = (key > query) | (key <= query - options.get("window", T))
        hidden = np.tile(np.where(unseen, np.float32(-np.inf), np.float32(0)), (H // G, 1))

    def call() -> object:
        out = np.empty_like(q)
        for g in range(G):
            s = q[g] @ k[g].T
            if "softcap" in options:
                s = options["softcap"] * np.tanh(s / options["softcap"])
            if hidden is not None:
                s += hidden
            s -= s.max(axis=1, keepdims=True)
            np.exp(s, out=s)
            out[g] = s @ v[g] / s.sum(axis=1, keepdims=True)
        return out

    return call
