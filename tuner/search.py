"""Finds fast configurations of one workload: asks, measures, tells, until time, trials, patience or the space ends."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import optuna

from kernels.space import Space
from kernels.spec import Config, Measurement, Verdict
from tuner.board import Alone, Board, Trial
from tuner.donors import Donor
from tuner.sampler import config_key, make_sampler
from tuner.table import SearchSpace, Table

__all__ = ["Outcome", "Stop", "Trial", "first_tries", "search"]

PATIENCE = 60  # trials without an improvement of IMPROVEMENT after which a search has converged
IMPROVEMENT = 0.01
FORESEEN = 3  # configurations, each less likely than the one before


@dataclass(frozen=True)
class Stop:
    """When a search ends: whichever comes first."""

    seconds: float
    trials: int = 10**9  # new ones
    patience: int = PATIENCE  # trials without an improvement, known ones counted


@dataclass(frozen=True)
class Outcome:
    """Everything measured for one workload, and why the search ended."""

    trials: tuple[Trial, ...]
    resumed: int  # of them, known before this search began
    why_stopped: str

    @property
    def ok(self) -> list[Trial]:
        """Successful trials, fastest first; equal times keep their order."""
        return sorted((t for t in self.trials if t.measurement.verdict is Verdict.OK), key=lambda t: t.cost_ns)

    def after(self, earlier: Sequence[Trial]) -> Outcome:
        """The same with trials of an earlier search of this workload before its own."""
        return replace(self, trials=(*earlier, *self.trials), resumed=self.resumed + len(earlier))


def search(
    space: SearchSpace,
    measure: Callable[[Config, float | None], Measurement],
    *,
    stop: Stop,
    seeds: Sequence[Config] = (),
    known: Sequence[Trial] = (),
    seed: int = 0,
    sampler: str = "kiln",
    donors: Sequence[Donor] = (),
    table: Table | None = None,
    board: Board | None = None,
    must: Config | None = None,
    watch: Callable[[Trial, Outcome], None] | None = None,
    foretell: Callable[[Sequence[Config]], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Measure configurations of `space` until `stop`.

    `measure(config, best_ns)` runs one; `best_ns` is the incumbent's median, for early abort. `seeds` are tried first
    (illegal ones are passed over), `known` trials are not repeated, `donors` are results from elsewhere, `sampler` is
    one of `tuner.sampler.SAMPLERS`, `table` spares enumerating the space again, `board` is where trials stand that
    several workers share. Until `must`, one of the seeds, is among the trials, only exhaustion ends the search. `watch`
    hears of every new trial, other workers' too; `foretell`, before each measurement, what will probably be measured
    after it. Raises ValueError for an unknown sampler. An exception of `measure`
    ends the search; what it finished before is the caller's journal to keep.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    chooser = make_sampler(sampler, table or Table(space), seeds, seed, donors)
    board = board or Alone()
    try:
        return _Search(board, measure, stop, must, watch, foretell, clock).run(board.open(chooser, known))
    finally:
        board.close()


class _Search:
    """The loop: hear what others found, ask, measure, tell."""

    def __init__(
        self,
        board: Board,
        measure: Callable[[Config, float | None], Measurement],
        stop: Stop,
        must: Config | None,
        watch: Callable[[Trial, Outcome], None] | None,
        foretell: Callable[[Sequence[Config]], None] | None,
        clock: Callable[[], float],
    ) -> None:
        self._board, self._measure, self._stop, self._watch, self._clock = board, measure, stop, watch, clock
        self._foretell = foretell
        self._must = None if must is None else config_key(must)  # None: not wanted, or had
        self._trials: list[Trial] = []
        self._since_best = 0
        self._best_ns = math.inf

    def run(self, known: list[Trial]) -> Outcome:
        """Until something stops it."""
        for trial in known:
            self._count(trial)
        self._resumed = len(known)
        start = self._clock()
        while True:
            for trial in self._board.news():
                self._take(trial)
            if why := self._ended(start):
                break
            config = self._board.claim()
            if config is not None:
                if self._foretell:
                    self._foretell(self._board.foresee(config, FORESEEN))
                trial = Trial(config, self._measure(config, self._best_ns if math.isfinite(self._best_ns) else None))
                self._board.tell(trial)
                self._take(trial)
            elif not self._board.wait():
                why = "exhausted"
                break
        return Outcome(tuple(self._trials), self._resumed, why)

    def _ended(self, start: float) -> str | None:
        if self._must is not None:
            return None
        if len(self._trials) - self._resumed >= self._stop.trials:
            return "trials"
        if self._trials and self._clock() - start >= self._stop.seconds:
            return "time"
        return "patience" if self._since_best >= self._stop.patience else None

    def _count(self, trial: Trial) -> None:
        self._trials.append(trial)
        if config_key(trial.config) == self._must:
            self._must = None
        self._since_best = 0 if trial.cost_ns < self._best_ns * (1 - IMPROVEMENT) else self._since_best + 1
        self._best_ns = min(self._best_ns, trial.cost_ns)

    def _take(self, trial: Trial) -> None:
        self._count(trial)
        if self._watch:
            self._watch(trial, Outcome(tuple(self._trials), self._resumed, "running"))


def first_tries(space: Space, neighbours: Sequence[Sequence[Trial]], each: int = 3) -> list[dict[str, Any]]:
    """Configurations to try first: the family's default, each variant's default, then the best of the neighbours.

    `neighbours` are the successful trials of related workloads, fastest first, nearest workload first.
    """
    family, workload, sheet = space.family, space.workload, space.sheet
    wanted: list[Config] = [family.default(workload, sheet)]
    for rank in range(each):
        wanted.extend(trials[rank].config for trials in neighbours if rank < len(trials))
    wanted.extend(variant.config() for variant in family.variants)
    unique = {config_key(config): dict(config) for config in wanted if space.reject(config) is None}
    return list(unique.values())
