"""What the steps of one run share: the request, the device, the journal, and each planned workload on its way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.candidate import Candidate
from harness.devices import DeviceChoice
from harness.journal import Journal
from harness.measure import Meter
from kernels.plan import Planned
from kernels.space import Space
from kernels.spec import Config, Workload
from tuner.request import Request
from tuner.search import Outcome

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

    @property
    def workload(self) -> Workload:
        """What is tuned."""
        return self.planned.workload

    def candidate(self, config: Config) -> Candidate:
        """A configuration of this workload."""
        return Candidate(self.space.family, self.workload, config)

    @property
    def name(self) -> str:
        """For people."""
        rows = f"M={self.workload.dims['M']} " if "M" in self.workload.dims else ""
        return f"{self.workload.family} {rows}{self.workload.label} {self.workload.weights or ''}".strip()


def shares(jobs: Sequence[Job]) -> list[float]:
    """What part of the time each job gets."""
    shares = [max(job.planned.share, LEAST_SHARE / len(jobs)) for job in jobs]
    return [share / sum(shares) for share in shares]
