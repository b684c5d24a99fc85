"""A candidate in a contest, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness import timing
from harness.answers import Run
from harness.candidate import Candidate
from harness.measure import Lane
from kernels.spec import Measurement, Verdict

LEAST = 3  # samples that a candidate takes in a round


@dataclass(frozen=True)
class Contestant:
    """A candidate and what came of it: where it is ok, `samples_ns` holds one median a round.

    One that was surely beaten is ok, and has the first rounds only.
    """

    candidate: Candidate
    measurement: Measurement
    launches_ns: tuple[float, ...] = ()  # median of each of its launches alone, where it is ok
    energy_j: float | None = None  # of one call, by the median round; None where no sensor counts it


class Entrant:
    """A candidate in the race: its lane while the runner lives, its rounds, its failure."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.lane: Lane | None = None
        self.facts: Mapping[str, Any] = {}
        self.failure: Measurement | None = None
        self.samples = LEAST
        self.slow = False
        self.out = False  # surely beaten
        self.rounds_ns: list[float] = []
        self.launches_ns: list[tuple[float, ...]] = []  # as rounds_ns, of each launch alone
        self.energies_j: list[float] = []  # of one call, of the rounds in which a sensor counted it

    @property
    def rivals(self) -> tuple[tuple[str, str], ...]:
        """Whoever has the same is a rival: candidates of other layouts are not compared one by one."""
        return tuple(sorted(self.candidate.layouts.items()))

    def ran(self, run: Run, used_j: float | None) -> None:
        """Keep a round: its median, each launch's, and the energy of one call where a sensor counted it."""
        self.rounds_ns.append(float(np.median(timing.durations(run.samples_ns))))
        self.launches_ns.append(timing.launches(run.samples_ns))
        if used_j is not None and used_j > 0:  # a counter that ran over or stood still counted nothing
            self.energies_j.append(used_j)

    @property
    def outcome(self) -> Contestant:
        """What came of it."""
        if self.failure is not None:
            return Contestant(self.candidate, self.failure)
        times = self.rounds_ns
        found = Measurement(Verdict.OK, stats=timing.stats(times), samples_ns=tuple(times), **self.facts)
        launches_ns = tuple(map(float, np.median(self.launches_ns, axis=0)))
        return Contestant(
            self.candidate, found, launches_ns, float(np.median(self.energies_j)) if self.energies_j else None
        )
