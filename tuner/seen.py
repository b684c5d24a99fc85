"""What a search has seen, as its surrogate takes it, and what an improvement on that is worth."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtr

from tuner.surrogate import Vector

_SLOW = 0.9  # quantile of the times above which slow is slow
_FAILED = np.log(2.0)  # a failed trial counts as so much slower than the best, at least
_ROOT_2PI = np.sqrt(2 * np.pi)


@dataclass
class Seen:
    """What a search knows, in the order in which it learnt it."""

    rows: list[int] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)  # logarithms; not a number: failed
    noise: list[float] = field(default_factory=list)  # variance of each logarithm, as far as the measurement told
    pending: list[int] = field(default_factory=list)  # rows that others are measuring

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, row: int, cost: float, noise: float) -> None:
        """One more finished trial."""
        self.rows.append(row)
        self.costs.append(cost)
        self.noise.append(noise)

    def first(self, count: int) -> Seen:
        """As it was when there were so many trials."""
        return Seen(self.rows[:count], self.costs[:count], self.noise[:count])


def log_improvement(ahead: Vector) -> Vector:
    """Logarithm of the expected improvement of a standard normal over a bar that its mean is `ahead` of."""
    far = np.minimum(ahead, -5.0)
    near = np.maximum(ahead, -5.0)
    # Below five deviations it is the difference of two tiny numbers; there the asymptotic series takes over.
    exact = np.log(near * ndtr(near) + np.exp(-0.5 * near * near) / _ROOT_2PI)
    series = np.log((1 - 3 / far**2 + 15 / far**4) / far**2) - 0.5 * far * far - np.log(_ROOT_2PI)
    gain: Vector = np.where(ahead > -5.0, exact, series)
    return gain


def targets(seen: Seen) -> Vector:
    """Logarithms of times, the slowest brought to one level: how slow hardly matters. Failed ones are no better."""
    costs = np.array(seen.costs)
    ceiling = np.nanquantile(costs, _SLOW)
    failed = max(ceiling, np.nanmin(costs) + _FAILED)
    levelled: Vector = np.where(np.isnan(costs), failed, np.minimum(costs, ceiling))
    return levelled
