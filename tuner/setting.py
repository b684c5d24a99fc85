"""What the steps of one run share: the request, the device, the journal, and each planned workload on its way."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import kernels
from harness.candidate import Candidate
from harness.devices import DeviceChoice
from harness.errors import KilnError
from harness.journal import Journal
from harness.measure import Meter
from kernels.plan import Planned
from kernels.space import Space
from kernels.spec import Config, DeviceSheet, Workload
from tuner.request import Request
from tuner.search import Outcome, Trial

if TYPE_CHECKING:
    from tuner.crew import Crew

LEAST_SHARE = 0.5  # of the search time is shared out alike, so that what hardly counts is tuned beyond its default


@dataclass(frozen=True)
class Setting:
    """One run's request and what it works with."""

    request: Request
    device: DeviceChoice
    journal: Journal
    meter: Meter
    say: Callable[[str], None]
    crew: Crew | None = None  # with whom the search is shared


@dataclass
class Job:
    """One planned workload on its way through a run."""

    planned: Planned
    space: Space
    default: Config
    limit_ns: float
    outcome: Outcome | None = None
    most_ns: float = math.inf  # that a single launch may take

    @property
    def workload(self) -> Workload:
        """What is tuned."""
        return self.planned.workload

    @property
    def ok(self) -> list[Trial]:
        """Its successful trials, fastest first, without those that surely launch something longer than is asked for.

        A search times all launches of a candidate together, so one of several is only known to take at least its even
        share; the finals time each. The default stays: everything is compared with it. Where nothing is left all stay.
        """
        found = self.outcome.ok if self.outcome else []
        if not any(map(self._may_fit, found)):
            return found
        return [trial for trial in found if trial.config == self.default or self._may_fit(trial)]

    def _may_fit(self, trial: Trial) -> bool:
        return math.isinf(self.most_ns) or trial.cost_ns <= self.most_ns * len(
            self.candidate(trial.config).schedule.launches
        )

    def candidate(self, config: Config) -> Candidate:
        """A configuration of this workload."""
        return Candidate(self.space.family, self.workload, config)

    @property
    def name(self) -> str:
        """For people."""
        rows = f"M={self.workload.dims['M']} " if "M" in self.workload.dims else ""
        return f"{self.workload.family} {rows}{self.workload.label} {self.workload.weights or ''}".strip()


def open_jobs(
    planned: Sequence[Planned],
    sheet: DeviceSheet,
    title: str,
    say: Callable[[str], None],
    limit_ns: Callable[[Workload], float],
    most_ns: float = math.inf,
) -> list[Job]:
    """The workloads that a device can run, with their spaces; says which it cannot. Raises KilnError for none."""
    jobs = []
    for item in planned:
        family, workload = kernels.families()[item.workload.family], item.workload
        space = Space(family, workload, sheet)
        default = family.default(workload, sheet)
        if why := space.reject(default):
            say(f"note: {workload.label or workload.key} is left out: not so that {why}")
            continue
        jobs.append(Job(item, space, default, limit_ns(workload), most_ns=most_ns))
    if not jobs:
        raise KilnError(f"{title} can run none of the planned workloads; see the notes above")
    return jobs


def shares(jobs: Sequence[Job]) -> list[float]:
    """What part of the time each job gets."""
    shares = [max(job.planned.share, LEAST_SHARE / len(jobs)) for job in jobs]
    return [share / sum(shares) for share in shares]
