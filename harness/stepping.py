"""One step that is bound and ready, run again and again, and its launches' stamps on the host's clock."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness import clocks, timing
from harness.answers import Run
from harness.clocks import Relation
from harness.errors import KilnError
from harness.profile_nouns import Launched, Sample
from harness.step import Step
from harness.supervisor import Supervisor

# Steps of one repeat: sensors that refresh ten times a second see little of one token.
REPEAT_NS, MOST_STEPS = 1e9, 16
_RUN_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Taken:
    """An answer of the runner, and when it was asked and had answered."""

    repeat: int
    run: Run
    asked_ns: int
    answered_ns: int

    def samples(self, runner: Relation) -> Iterator[Sample]:
        """Each step with its place on the host's clock, given the runner's clock against the host's."""
        run = self.run
        for number, stamps in enumerate(run.samples_ns):
            queued, end = [stamp[0] for stamp in stamps], stamps[-1][3]
            if not run.host_ns:
                last = run.samples_ns[-1][-1][3]
                clock = clocks.of_request(run.samples_ns[0][0][0], last, self.asked_ns, self.answered_ns)
                yield Sample(self.repeat, stamps, clock)
                continue
            found = clocks.of_enqueues(queued, run.host_ns[number], end, run.finished_ns[number])
            clock = Relation(
                found.offset_ns + runner.offset_ns,
                found.uncertainty_ns + runner.uncertainty_ns,
                found.agrees and runner.agrees,
            )
            enqueued = tuple(
                (before - runner.offset_ns, after - runner.offset_ns) for before, after in run.host_ns[number]
            )
            yield Sample(self.repeat, stamps, clock, enqueued)


class TimedStep:
    """A step that is bound and ready."""

    def __init__(
        self,
        supervisor: Supervisor,
        step: Step,
        launches: Sequence[Mapping[str, Any]],
        launched: tuple[Launched, ...],
    ) -> None:
        self.step = step
        self.launched = launched
        self.taken: list[Taken] = []
        self.wall_ns: list[int] = []
        self._supervisor = supervisor
        self._launches = launches
        self._steps = 1  # that one repeat holds

    def plain(self) -> None:
        """One step on the queue without profiling."""
        run = self._supervisor.run(None, self._launches, profile=False, timeout_s=_RUN_TIMEOUT_S)
        self.wall_ns.append(run.wall_ns[0])

    def warm_up(self) -> None:
        """Have everything compiled that a driver leaves for the first launch, and learn how long a step takes."""
        self.plain()
        if self.wall_ns[0] < REPEAT_NS:
            self.plain()
        self._steps = max(1, min(MOST_STEPS, int(REPEAT_NS / max(1, self.wall_ns[-1]))))
        self.wall_ns.clear()

    def sample(self, repeat: int) -> None:
        """The steps of one repeat. Raises KilnError for stamps that cannot be believed."""
        asked_ns = time.monotonic_ns()
        run = self._supervisor.run(
            None, self._launches, samples=self._steps, clock=True, timeout_s=_RUN_TIMEOUT_S * self._steps
        )
        self.taken.append(Taken(repeat, run, asked_ns, time.monotonic_ns()))
        if why := timing.invalid(run.samples_ns):
            raise KilnError(f"the event stamps of the {self.step.name} step cannot be believed: {why}")


def machines(timed: Sequence[TimedStep]) -> tuple[Relation, dict[str, Any]]:
    """The runner's clock against the host's, and how stamps came to their places, for the reader."""
    taken = [one for step in timed for one in step.taken]
    told: dict[str, Any] = {"clock": "CLOCK_MONOTONIC of the host"}
    if not all(one.run.host_ns for one in taken):
        return Relation(0, 0, True), told | {"method": clocks.REQUEST}
    spans = [((one.run.host_ns[0][0][0], one.run.finished_ns[-1]), (one.asked_ns, one.answered_ns)) for one in taken]
    found = clocks.machines(spans)
    return found, told | {"method": clocks.ENQUEUES, "runner_uncertainty_ns": found.uncertainty_ns}
