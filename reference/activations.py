"""The activations of feed-forward layers in float64, by the names that a model sheet gives them.

- silu: x · σ(x)
- gelu: x · Φ(x) = x · (1 + erf(x / √2)) / 2
- gelu_tanh: gelu with tanh(√(2/π) · (x + 0.044715 x³)) in place of the error function
- quick_gelu: x · σ(1.702 x)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from reference.groups import F64

_erf = np.frompyfunc(math.erf, 1, 1)  # NumPy has none of its own; 10⁷ elements take two seconds


def silu(x: ArrayLike) -> F64:
    """x · σ(x)."""
    return _times_sigmoid(np.asarray(x, np.float64), 1.0)


def gelu(x: ArrayLike) -> F64:
    """x times the normal distribution's cumulative probability at x, by the error function."""
    values: F64 = np.asarray(x, np.float64)
    return values * (0.5 + 0.5 * np.asarray(_erf(values / math.sqrt(2)), np.float64))


def gelu_tanh(x: ArrayLike) -> F64:
    """The approximation of gelu by a hyperbolic tangent."""
    values: F64 = np.asarray(x, np.float64)
    return values * (0.5 + 0.5 * np.tanh(math.sqrt(2 / math.pi) * (values + 0.044715 * values**3)))


def quick_gelu(x: ArrayLike) -> F64:
    """x · σ(1.702 x), CLIP's approximation of gelu."""
    return _times_sigmoid(np.asarray(x, np.float64), 1.702)


def _times_sigmoid(x: F64, slope: float) -> F64:
    """x · σ(slope · x), as a hyperbolic tangent, which does not overflow."""
    return x * (0.5 + 0.5 * np.tanh(slope * x / 2))


ACTIVATIONS: Mapping[str, Callable[[ArrayLike], F64]] = {
    "silu": silu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
}
