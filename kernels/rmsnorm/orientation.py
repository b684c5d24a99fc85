"""A norm as NumPy does it in float32, for orientation beside measured times."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kernels.spec import Workload


def numpy_norm(workload: Workload) -> Callable[[], object]:
    """Residual and norm of random rows; of an int8 output the float one."""
    M, N = workload.dims["M"], workload.dims["N"]
    rng = np.random.default_rng(0)
    x, r = (rng.standard_normal((M, N), np.float32) for _ in range(2))
    w, b = (rng.standard_normal(N, np.float32) for _ in range(2))
    kind, residual = workload.options.get("norm", "rms"), workload.options.get("residual", False)
    eps = np.float32(workload.options.get("eps", 1e-6))

    def call() -> object:
        s = x + r if residual else x
        if kind == "layer":
            s = s - s.mean(axis=1, keepdims=True)
        y = s / np.sqrt(np.mean(s * s, axis=1, keepdims=True) + eps)
        return y * (1 + w if kind == "rms1p" else w) + (b if kind == "layer" else 0)

    return call
