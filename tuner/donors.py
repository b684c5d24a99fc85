"""What is known of other devices and workloads, as an expectation that the search's own trials confirm or outvote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kernels.spec import Config
from tuner.features import Features
from tuner.surrogate import Matrix, Surrogate, Vector
from tuner.table import Rows, Table

_SLOW = 0.9  # quantile of a donor's times above which slow is slow
_FIT_POINTS = 200  # a donor's trials that its surrogate is fitted to where it does not cover the space
_TRUST_SD = 0.5  # prior deviation of a donor's weight about an equal share


@dataclass(frozen=True)
class Donor:
    """Times of configurations of the same family: on another device, at another size, or a model's predictions."""

    source: str  # for people
    configs: Sequence[Config]
    costs_ns: Sequence[float]  # infinity: failed there


class Expectations:
    """For every row of a table, each donor's logarithm of time (about zero): what it measured, else its surrogate's."""

    def __init__(self, table: Table, features: Features, donors: Sequence[Donor]) -> None:
        self._table, self._features = table, features
        heard = [self._heard(donor) for donor in donors]
        self._heard_rows = [(rows, costs) for rows, costs in heard if len(rows) > 2 and np.ptp(costs) > 0]
        self._surrogates: dict[int, tuple[Surrogate, Rows, Vector]] = {}  # of donors that leave gaps

    def __len__(self) -> int:
        return len(self._heard_rows)

    def _heard(self, donor: Donor) -> tuple[Rows, Vector]:
        found = {}
        for config, cost in zip(donor.configs, donor.costs_ns, strict=True):
            if (row := self._table.row(config)) is not None:
                found[row] = np.log(cost) if np.isfinite(cost) else np.nan
        rows, costs = np.array(list(found), dtype=np.intp), np.array(list(found.values()))
        if not len(rows) or np.isnan(costs).all():
            return rows[:0], costs[:0]
        ceiling = np.nanquantile(costs, _SLOW)
        costs = np.where(np.isnan(costs), ceiling, np.minimum(costs, ceiling))
        return rows, costs - costs.mean()

    def _learnt(self, rows: Rows, costs: Vector) -> tuple[Surrogate, Rows, Vector]:
        best = np.argsort(costs, kind="stable")
        rng = np.random.default_rng(0)
        half = _FIT_POINTS // 2
        chosen = best if len(best) <= _FIT_POINTS else np.append(best[:half], rng.choice(best[half:], half, False))
        points, values = self._features(self._table.codes[rows[chosen]]), costs[chosen]
        surrogate = Surrogate(points.shape[1])
        surrogate.fit(points, (values - values.mean()) / (values.std() + 1e-9))
        return surrogate, rows[chosen], values

    def favourites(self, rows: Rows) -> list[int]:
        """Of some rows, the one that each donor expects to be fastest."""
        return rows[self.at(rows).argmin(axis=0)].tolist() if len(self) else []

    def at(self, pool: Rows) -> Matrix:
        """Pool × donors."""
        return (
            np.stack([self._one(i, pool) for i in range(len(self))], axis=1) if len(self) else np.zeros((len(pool), 0))
        )

    def _one(self, donor: int, pool: Rows) -> Vector:
        rows, costs = self._heard_rows[donor]
        place = np.full(len(self._table), -1)
        place[rows] = np.arange(len(rows))
        found = np.where(place[pool] >= 0, costs[place[pool]], np.nan)
        if np.isnan(found).any():
            if donor not in self._surrogates:
                self._surrogates[donor] = self._learnt(rows, costs)
            surrogate, learnt, values = self._surrogates[donor]
            gaps = np.flatnonzero(np.isnan(found))
            points = self._features(self._table.codes[learnt])
            surrogate.condition(points, np.zeros(len(points)), self._features(self._table.codes[pool[gaps]]), 0)
            found[gaps] = values.mean() + surrogate.means(surrogate.solve(values - values.mean()))
        return found


def weights(expected: Matrix, costs: Vector) -> Vector:
    """How much each donor is believed: ridge regression of the trials' times on what the donors expected of them.

    Before any trial the donors share alike. One that is contradicted loses its weight, and never has a negative one.
    """
    count = expected.shape[1]
    prior = np.full(count, 1 / max(1, count))
    if len(costs) < 2 or not count:
        return prior
    centred, rest = expected - expected.mean(0), costs - costs.mean()
    ridge = rest.var() / _TRUST_SD**2
    moved = np.linalg.solve(
        centred.T @ centred + ridge * np.eye(count) + 1e-9 * np.eye(count), centred.T @ (rest - centred @ prior)
    )
    believed: Vector = np.maximum(prior + moved, 0.0)
    return believed
