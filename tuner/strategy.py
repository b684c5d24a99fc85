"""Which configuration to try next: expected improvement over all that are not measured yet.

A search begins with what it is told to (the default first), else with the most typical configurations, then with each
donor's favourite.
Until LOCAL_UNTIL trials it changes one parameter of the incumbent at a time: a surrogate of ten points is right about
single steps long before it is right about far corners. Then it looks everywhere. A failed trial counts as a slow one,
and as evidence that its neighbours fail. Whatever is chosen is a function of the table, the seed and the trials so far,
so that a search that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from tuner.donors import Donor, Expectations, weights
from tuner.features import Features, Points
from tuner.seen import Seen, log_improvement, targets
from tuner.surrogate import Surrogate, Vector
from tuner.table import Rows, Table

START = 2  # trials that the surrogate needs at least
DONATED = 4  # donors whose favourite is tried at once, whatever they are worth
LOCAL_UNTIL = 25
POOL = 16_384  # candidates compared at a time
KEEP = 500  # trials that the surrogate remembers, the best and a random rest
FIT_POINTS = 200  # of them, that its lengths are fitted to
_EVERY = 40  # up to here each trial refits the surrogate, which costs a millisecond or two; then ever fewer do
_GROWTH = 1.2
_PENDING = 32  # trials of other workers that are expected to tell something
_AT_MOST = 100  # trials without a refit, which bounds the memory set aside for them
_AROUND = 5  # best trials whose neighbourhood joins the pool of a space too large to compare whole
_DRAWS = 200  # fresh ones a refit, where a space is too large to enumerate
_TYPICAL = (400, 800)  # candidates and witnesses when looking for a typical configuration

Mask = npt.NDArray[np.bool_]


class Strategy:
    """Proposes rows of a table."""

    def __init__(self, table: Table, seed: int, donors: Sequence[Donor] = ()) -> None:
        self._table, self._seed = table, seed
        # Threads that share matrices this small wait for each other: on two busy cores, 15 times as long as one alone.
        self._blas = ThreadpoolController()
        self._features = Features(table.values)
        with self._one_thread():
            self._expected = Expectations(table, self._features, donors)
            self._favourites = self._expected.favourites(np.arange(table.base))[:DONATED]
        self._expected_of: dict[int, Vector] = {}
        self._trusting = False  # in donors
        self._fitted_at = -1  # trials there were when the surrogate was fitted
        self._taken = 0  # trials looked at since, as of when

    def propose(self, seen: Seen, free: Mask) -> int:
        """The row to try next, one of those that are `free`; `free` may be shorter than a table that has grown."""
        with self._one_thread():
            return self._propose(seen, free)

    def _propose(self, seen: Seen, free: Mask) -> int:
        if len(seen) < START or np.isnan(seen.costs).all():
            return self._typical(seen, free)
        for row in self._favourites:
            if free[row]:
                return row
        if (count := _last_refit(len(seen))) != self._fitted_at:
            self._refit(seen.first(count))
        for place in range(self._taken, len(seen)):
            self._surrogate.append(self._points(seen.rows[place : place + 1])[0], seen.noise[place] / self._scale)
            self._members.append(place)
        self._taken = len(seen)
        return self._best(seen, free)

    def foresee(self, seen: Seen, free: Mask, running: int, count: int) -> list[int]:
        """The rows that it will propose next, if `running` and they come out as its surrogate expects.

        A guess, which changes nothing: what the surrogate expects moves none of its means, and makes it surer there.
        None where it has not proposed `running` itself and would have to fit first.
        """
        if self._fitted_at < 0 or self._taken != len(seen):
            return []
        pending, free = [running], free.copy()
        with self._one_thread():
            for _ in range(min(count, int(free.sum()))):
                row = self._best(replace(seen, pending=pending), free)
                if row < len(free):
                    free[row] = False
                pending.append(row)
        return pending[1:]

    def _best(self, seen: Seen, free: Mask) -> int:
        """The free row that promises most, as the surrogate stands."""
        gain = self._gain(seen)
        gain[~_free(free, self._pool)] = -np.inf
        if len(seen) < LOCAL_UNTIL:
            incumbent = seen.rows[int(np.nanargmin(seen.costs))]
            near = np.where(self._table.distance(self._pool, incumbent) <= 1, gain, -np.inf)
            gain = near if near.max() > -np.inf else gain
        if gain.max() == -np.inf:  # a pool that is a part of the space may be used up
            return int(self._rng(len(seen)).choice(np.flatnonzero(free)))
        return int(self._pool[np.argmax(gain)])

    def _typical(self, seen: Seen, free: Mask) -> int:
        """The sum of distances from everywhere to it, or to a measured row where one is nearer, is least."""
        rng = self._rng(len(seen))
        rows = np.flatnonzero(free)
        some, witnesses = (rng.choice(rows, min(len(rows), count), replace=False) for count in _TYPICAL)
        apart = self._apart(some, witnesses)
        if len(seen):
            apart = np.minimum(apart, self._apart(np.array(seen.rows), witnesses).min(axis=0))
        return int(some[apart.sum(axis=1).argmin()])

    def _refit(self, seen: Seen) -> None:
        """Choose the pool, fit the surrogate and give it what was seen."""
        rng = self._rng(len(seen))
        order = np.argsort(targets(seen), kind="stable")
        draws = 0 if len(seen) < LOCAL_UNTIL else _DRAWS
        self._pool = self._candidates([seen.rows[place] for place in order[:_AROUND]], draws, rng)
        self._pool_expected = self._expected.at(self._pool)
        self._members = _best_and_some(order, KEEP, rng).tolist()
        points = self._points([seen.rows[place] for place in self._members])
        chosen = _best_and_some(np.arange(len(points)), FIT_POINTS, rng)
        # Donors that obscure more than they explain are not listened to until the next refit.
        ways = {trusting: self._fitted(seen, points, chosen, trusting) for trusting in {False, len(self._expected) > 0}}
        self._trusting = min(ways, key=lambda trusting: ways[trusting][0])
        _, self._surrogate, self._scale = ways[self._trusting]
        self._surrogate.condition(
            points,
            np.array(seen.noise)[self._members] / self._scale,
            self._points(self._pool),
            _next_refit(len(seen)) - len(seen) + _PENDING,
        )
        self._fitted_at = self._taken = len(seen)

    def _fitted(self, seen: Seen, points: Points, chosen: Rows, trusting: bool) -> tuple[float, Surrogate, float]:
        """A surrogate of what the donors, if they are trusted, do not explain; how ill it fits, and the variance."""
        rest = self._rest(seen, trusting)[0][self._members]
        variance = float(rest.var()) + 1e-12
        surrogate = Surrogate(points.shape[1])
        misfit = surrogate.fit(points[chosen], (rest - rest.mean())[chosen] / np.sqrt(variance))
        return misfit + 0.5 * len(chosen) * np.log(variance), surrogate, variance

    def _candidates(self, best: list[int], draws: int, rng: np.random.Generator) -> Rows:
        table = self._table
        if not table.complete:
            return np.unique(np.append(np.arange(table.base), table.more(best, draws, rng)))
        everything = np.arange(len(table))
        if len(table) <= POOL:
            return everything
        near = [np.flatnonzero(table.distance(everything, row) <= 2) for row in best]
        return np.unique(np.concatenate([rng.choice(everything, POOL // 2, replace=False), *near]))

    def _rest(self, seen: Seen, trusting: bool) -> tuple[Vector, Vector]:
        """What of each trial's time the donors do not explain, and how much each donor is believed."""
        times = targets(seen)
        if not trusting:
            return times, np.zeros(len(self._expected))
        if unknown := [row for row in seen.rows if row not in self._expected_of]:
            self._expected_of.update(zip(unknown, self._expected.at(np.array(unknown)), strict=True))
        expected = np.stack([self._expected_of[row] for row in seen.rows])
        believed = weights(expected, times)
        return times - expected @ believed, believed

    def _gain(self, seen: Seen) -> Vector:
        """Logarithm of the expected improvement over the incumbent, for the pool."""
        rest, believed = self._rest(seen, self._trusting)
        explained, rest = (targets(seen) - rest)[self._members], rest[self._members]
        offset, scale = rest.mean(), rest.std() + 1e-9
        standard = (rest - offset) / scale
        failed = np.isnan(seen.costs)[self._members]
        # One trial more than there are, half failed: where nothing is known, anything may fail.
        rate = (failed.sum() + 0.5) / (len(failed) + 1)
        solved = self._surrogate.solve(np.stack([standard, failed - rate], axis=1))
        mean, fails = self._surrogate.means(solved)
        mean = self._pool_expected @ believed + offset + scale * mean
        pending = self._points(seen.pending[:_PENDING]) if seen.pending else None
        deviation = scale * self._surrogate.deviations(solved[:, 0], pending)
        works = np.log(np.clip(1 - rate - fails, 0.01, 1.0)) if failed.any() else 0.0
        # The incumbent as the surrogate sees it: a lucky measurement sets no bar that nothing reaches.
        bar = (explained + offset + scale * self._surrogate.smoothed(standard, solved[:, 0])).min()
        gain: Vector = log_improvement((bar - mean) / deviation) + np.log(deviation) + works
        return gain

    def _one_thread(self) -> AbstractContextManager[object]:
        limit: AbstractContextManager[object] = self._blas.limit(limits=1, user_api="blas")
        return limit

    def _points(self, rows: Sequence[int] | Rows) -> Points:
        return self._features(self._table.codes[np.asarray(rows, dtype=np.intp)])

    def _apart(self, some: Rows, others: Rows) -> Vector:
        difference = self._points(some)[:, None, :] - self._points(others)[None]
        apart: Vector = np.einsum("ijk,ijk->ij", difference, difference)
        return apart

    def _rng(self, count: int) -> np.random.Generator:
        return np.random.default_rng((self._seed, count))


def _free(free: Mask, pool: Rows) -> Mask:
    """Which of a pool's rows are free; those that came after the mask are."""
    known = pool < len(free)
    mask: Mask = np.where(known, free[np.where(known, pool, 0)], True)
    return mask


def _some(rows: Rows, most: int, rng: np.random.Generator) -> Rows:
    return rows if len(rows) <= most else rng.choice(rows, most, replace=False)


def _best_and_some(order: Rows, most: int, rng: np.random.Generator) -> Rows:
    """The best half of `most`, and a random rest."""
    return order if len(order) <= most else np.append(order[: most // 2], _some(order[most // 2 :], most // 2, rng))


def _last_refit(count: int) -> int:
    """The number of trials, up to `count`, at which the surrogate is fitted anew."""
    at = min(count, _EVERY)
    while (after := _next_refit(at)) <= count:
        at = after
    return at


def _next_refit(at: int) -> int:
    return at + 1 if at < _EVERY else min(int(at * _GROWTH), at + _AT_MOST)
