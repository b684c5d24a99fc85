"""A Gaussian process over a fixed pool of candidates, cheap to extend by one observation.

It keeps L, the Cholesky factor of the observations' covariance, and V = L⁻¹ K(observed, pool): one more observation is
one more row of each, so that a prediction for the whole pool costs observations × pool, not their square. What was
observed is given only when asking for a prediction: one process serves several targets (times, failures).

Kernel: Matérn 5/2 with a length per axis, fitted by the greatest posterior density with analytic derivatives
(Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, chapters 4 and 5). The amplitude is profiled.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular
from scipy.linalg.lapack import dpotri
from scipy.optimize import minimize

from tuner.features import Points

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

# Priors of the logarithms (mean, deviation). Axes run from 0 to 1: a length of 0.6 says that a parameter matters and
# that half its range tells something about the other half. Device times repeat to a percent or so of what they span.
LENGTH_PRIOR = (np.log(0.6), 0.7)
NOISE_PRIOR = (np.log(1e-3), 1.0)  # variance, relative to the amplitude
_LENGTH_BOUNDS = (np.log(0.03), np.log(30.0))
_NOISE_BOUNDS = (np.log(1e-6), 0.0)
_JITTER = 1e-8
_PSEUDO = 2.0  # imaginary observations of unit variance that keep the amplitude sane while there are few real ones
_ITERATIONS = 30


class Surrogate:
    """Fit, then condition on observations, then predict; `append` between fits."""

    def __init__(self, axes: int) -> None:
        self.lengths: Vector = np.full(axes, np.exp(LENGTH_PRIOR[0]))
        self.noise = float(np.exp(NOISE_PRIOR[0]))
        self._count = 0

    def fit(self, observed: Points, targets: Vector) -> float:
        """Choose lengths and noise for `targets` of mean zero and variance one; returns how ill they fit, the negative
        logarithm of the posterior density. It begins from the priors, so that equal data are fitted equally."""
        count, axes = observed.shape
        squares = ((observed[:, None, :] - observed[None, :, :]) ** 2).reshape(count * count, axes)

        def loss(at: Vector) -> tuple[float, Vector]:
            """Negative log posterior and its gradient at (log lengths, log noise)."""
            weights, noise = np.exp(-2 * at[:axes]), float(np.exp(at[axes]))
            root = np.sqrt(5.0 * (squares @ weights)).reshape(count, count)
            decay = np.exp(-root)
            covariance = (1 + root + root * root / 3) * decay
            covariance[np.diag_indices(count)] += noise + _JITTER
            slope = (-5 / 6) * (1 + root) * decay  # of the kernel by the squared distance
            try:
                factor = np.linalg.cholesky(covariance)
            except np.linalg.LinAlgError:
                return 1e10, np.zeros_like(at)
            inverse = np.tril(dpotri(factor, lower=1)[0])
            inverse += np.tril(inverse, -1).T
            weighted = inverse @ targets
            amplitude = (targets @ weighted + _PSEUDO) / (count + _PSEUDO)
            value = 0.5 * count * np.log(amplitude) + np.log(np.diag(factor)).sum()
            by_covariance = inverse - np.outer(weighted, weighted) * (count / (count + _PSEUDO) / amplitude)
            off = np.append(
                (at[:axes] - LENGTH_PRIOR[0]) / LENGTH_PRIOR[1], (at[axes] - NOISE_PRIOR[0]) / NOISE_PRIOR[1]
            )
            gradient = np.append(
                (0.5 * (by_covariance * slope).reshape(-1) @ squares) * -2 * weights,
                0.5 * np.trace(by_covariance) * noise,
            )
            widths = np.append(np.full(axes, LENGTH_PRIOR[1]), NOISE_PRIOR[1])
            return float(value + 0.5 * off @ off), gradient + off / widths

        start = np.append(np.full(axes, LENGTH_PRIOR[0]), NOISE_PRIOR[0])
        bounds = [_LENGTH_BOUNDS] * axes + [_NOISE_BOUNDS]
        best = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _ITERATIONS})
        self.lengths, self.noise = np.exp(best.x[:axes]), float(np.exp(best.x[axes]))
        return float(best.fun)

    def condition(self, observed: Points, extra: Vector, pool: Points, room: int) -> None:
        """Take observations in, with `extra` noise variance each; `room` more may be appended."""
        count = len(observed)
        self._observed = np.zeros((count + room, observed.shape[1]))
        self._observed[:count] = observed / self.lengths
        self._pool = pool / self.lengths
        covariance = _kernel(self._observed[:count], self._observed[:count])
        covariance[np.diag_indices(count)] += self.noise + _JITTER + extra
        self._factor = np.zeros((count + room, count + room))
        self._factor[:count, :count] = np.linalg.cholesky(covariance)
        self._known = np.zeros((count + room, len(pool)))
        self._known[:count] = solve_triangular(
            self._factor[:count, :count], _kernel(self._observed[:count], self._pool), lower=True, check_finite=False
        )
        self._explained = np.einsum("ij,ij->j", self._known[:count], self._known[:count])
        self._extra = np.append(extra, np.zeros(room))
        self._count = count

    def append(self, point: Vector, extra: float) -> None:
        """Take one more observation in."""
        count, scaled = self._count, (point / self.lengths)[None]
        to_observed = _kernel(self._observed[:count], scaled)[:, 0]
        row = solve_triangular(self._factor[:count, :count], to_observed, lower=True, check_finite=False)
        corner = np.sqrt(max(1 + self.noise + _JITTER + extra - row @ row, _JITTER))
        known = (_kernel(scaled, self._pool)[0] - row @ self._known[:count]) / corner
        self._observed[count], self._known[count] = scaled[0], known
        self._factor[count, :count], self._factor[count, count] = row, corner
        self._extra[count] = extra
        self._explained += known * known
        self._count += 1

    def solve(self, targets: Matrix) -> Matrix:
        """L⁻¹ targets, what `means` takes: targets have one row per observation."""
        factor = self._factor[: self._count, : self._count]
        solved: Matrix = solve_triangular(factor, targets, lower=True, check_finite=False)
        return solved

    def means(self, solved: Matrix) -> Matrix:
        """Posterior means over the pool of a process of mean zero."""
        means: Matrix = solved.T @ self._known[: self._count]
        return means

    def smoothed(self, targets: Vector, solved: Vector) -> Vector:
        """Posterior means at the observations themselves: what is left of them without their noise."""
        count = self._count
        weights = solve_triangular(self._factor[:count, :count], solved, lower=True, trans=1, check_finite=False)
        means: Vector = targets - (self.noise + _JITTER + self._extra[:count]) * weights
        return means

    def deviations(self, solved: Vector, pending: Points | None = None) -> Vector:
        """Posterior standard deviations over the pool, with the amplitude that these targets suggest.

        `pending` observations count as made: what they will say is not known, but not how much it will tell. There may
        be as many as there is room for.
        """
        amplitude = (solved @ solved + _PSEUDO) / (self._count + _PSEUDO)
        explained = self._explained if pending is None else self._explained_with(pending)
        deviations: Vector = np.sqrt(np.maximum(amplitude * (1 - explained), 1e-12))
        return deviations

    def _explained_with(self, pending: Points) -> Vector:
        """What `_explained` would be with these observations; they are taken out again."""
        count, before = self._count, self._explained.copy()
        for point in pending[: len(self._observed) - count]:
            self.append(point, 0.0)
        explained: Vector = self._explained
        self._explained, self._count = before, count
        self._extra[count:] = 0.0
        return explained


def _kernel(one: Points, other: Points) -> Matrix:
    """Matérn 5/2 between points that are scaled by the lengths."""
    squares = (one * one).sum(1)[:, None] + (other * other).sum(1)[None] - 2 * one @ other.T
    root = np.sqrt(5.0 * np.maximum(squares, 0.0))
    covariance: Matrix = (1 + root + root * root / 3) * np.exp(-root)
    return covariance
