"""Candidates against each other: interleaved rounds, with two fixed anchor kernels that cancel what the clock does.

Every round runs each candidate and each anchor a few times, in an order that turns by one a round, so that spells
of a fast memory or a slow clock fall on all alike. Round i of one candidate pairs with round i of every other. Where it
is a race, whoever is surely beaten by another that reads the same layouts leaves, and the rounds go to the others.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness import racing, timing
from harness.anchors import Anchors
from harness.answers import Refused, Run, RunnerLost
from harness.candidate import Candidate
from harness.check import check
from harness.entrant import LEAST, Contestant, Entrant
from harness.measure import Meter, built_facts, sensor
from harness.probe import ProbeResult, Rates
from kernels.spec import Measurement, Verdict

ROUNDS = 15
MOST_ROUNDS = 45  # of a race in which it is still open who is faster
_ROUND_NS = 5e6  # device time that one candidate gets in a round, within the two bounds below
_MOST = 25
_SLOW_NS = 100e6  # a launch this long is sampled once a round, without a warm-up: it averages over its own noise


@dataclass(frozen=True)
class Contest:
    """The outcome of one contest, contestants in the order they were given."""

    contestants: tuple[Contestant, ...]
    # "read", "madd", "copy", "launch" (an empty kernel): one median a round; empty where one failed
    anchors_ns: Mapping[str, tuple[float, ...]]
    rates: Rates  # the anchors' medians of these rounds where there are any, else the probe's
    rounds: int


def _writes(candidate: Candidate) -> bool:
    """Whether a good part of what a candidate moves is written, so that a copy is its measure."""
    cost = candidate.family.cost(candidate.workload)
    return cost.written > cost.bytes / 8


def compete(
    meter: Meter,
    candidates: Sequence[Candidate],
    probe: ProbeResult,
    *,
    rounds: int = ROUNDS,
    budget_s: float = 60.0,
    stay: Collection[Candidate] | None = None,
) -> Contest:
    """Check every candidate again, then time all of them interleaved; one that fails leaves, the others go on.

    With `stay` it is a race: those that are surely beaten leave, except `stay`, and up to MOST_ROUNDS are held while
    rivals are close. Ends early, with at least LEAST_SAMPLES rounds (in a race that is open, DECISIVE), when `budget_s`
    of rounds is spent. Raises KilnError when the runner does not start any more.
    """
    return _Race(meter, candidates, probe, stay).run(rounds, budget_s)


class _Race:
    def __init__(
        self, meter: Meter, candidates: Sequence[Candidate], probe: ProbeResult, stay: Collection[Candidate] | None
    ) -> None:
        self._meter = meter
        self._stay = stay
        self._entrants = [Entrant(candidate) for candidate in candidates]
        compute = candidates[0].workload.dtypes.compute if candidates else "fp32"
        self._anchors = Anchors(meter.bench.supervisor, probe, compute, copy=any(map(_writes, candidates)))
        self._counts_energy = True  # until a reading says otherwise
        self._generation = -1  # of the runner that the lanes are bound on

    @property
    def _racing(self) -> list[Entrant]:
        return [entrant for entrant in self._entrants if entrant.failure is None and not entrant.out]

    def run(self, rounds: int, budget_s: float) -> Contest:
        """Hold the rounds. What one failure interrupts is held again without it."""
        self._meter.bench.supervisor.recycle_if_due()
        self._meter.bench.store.turn()
        spent_s, done = 0.0, 0  # on rounds alone: on a CPU, compiling and checking can take longer than all of them
        try:
            while self._racing and (done < rounds or (done < MOST_ROUNDS and self._open())):
                least = racing.DECISIVE if self._open() else timing.LEAST_SAMPLES
                if done >= least and spent_s > budget_s:
                    break
                if not self._line_up():
                    continue
                self._meter.bench.supervisor.settle()
                start = time.monotonic()
                if self._round(done):
                    done += 1
                    self._send_away()
                spent_s += time.monotonic() - start
        finally:
            self._clear()
        contestants = tuple(entrant.outcome for entrant in self._entrants)
        anchors_ns = {name: tuple(times) for name, times in self._anchors.rounds_ns.items()}
        return Contest(contestants, anchors_ns, self._anchors.rates(), done)

    def _heats(self) -> Iterator[dict[Entrant, list[float]]]:
        """The rounds of rivals that are still in the race; none where it is no race."""
        heats: dict[Any, dict[Entrant, list[float]]] = {}
        for entrant in self._racing if self._stay is not None else ():
            heats.setdefault(entrant.rivals, {})[entrant] = entrant.rounds_ns
        yield from heats.values()

    def _send_away(self) -> None:
        for heat in self._heats():
            for entrant in racing.leavers(heat, [one for one in heat if one.candidate in (self._stay or ())]):
                entrant.out = True

    def _open(self) -> bool:
        """Whether more rounds may change who is the fastest of its heat; the driver's own work-group is a baseline."""
        heats = [[rounds for one, rounds in heat.items() if not one.candidate.driver_local] for heat in self._heats()]
        return any(racing.still_open(heat) for heat in heats if all(heat))

    def _line_up(self) -> bool:
        """Have every entrant built, checked (once) and bound on the present runner. False if one fell out.

        All are checked before the first is bound: a check drops the written buffers, which entrants share by name.
        """
        supervisor = self._meter.bench.supervisor
        try:
            supervisor.hello()
        except RunnerLost as failure:
            self._meter.failed(failure)  # raises: there is nobody to blame and nothing to go on with
        if self._generation != supervisor.generation:
            self._generation = supervisor.generation
            for entrant in self._entrants:
                entrant.lane = None
        unchecked = [(self._check, entrant) for entrant in self._racing if not entrant.facts]
        unbound = [(self._bind, entrant) for entrant in self._racing if entrant.lane is None]
        for step, entrant in (*unchecked, *unbound):
            try:
                step(entrant)
            except (Refused, RunnerLost) as failure:
                self._out(entrant, failure)
            if entrant.failure is not None:
                return False
        return True

    def _check(self, entrant: Entrant) -> None:
        build = self._meter.build(entrant.candidate)
        if isinstance(build, Measurement):
            entrant.failure = build
            return
        errors = check(self._meter.bench, entrant.candidate)
        if isinstance(errors, Measurement):
            entrant.failure = self._meter.recovered(replace(errors, **built_facts(build)))
            return
        entrant.facts = {**built_facts(build), "errors": errors}

    def _bind(self, entrant: Entrant) -> None:
        build = self._meter.build(entrant.candidate)  # free where it was checked on this runner
        if isinstance(build, Measurement):
            entrant.failure = build
            return
        entrant.lane = self._meter.place(entrant.candidate)
        run = self._meter.run(entrant.lane, warmup=0, samples=1)
        entrant.slow = min(run.wall_ns) > _SLOW_NS
        if not entrant.slow:
            run = self._meter.run(entrant.lane, warmup=0, samples=LEAST)
        least = 1 if entrant.slow else LEAST
        entrant.samples = max(least, min(_MOST, round(_ROUND_NS / max(1, min(run.wall_ns)))))
        conditions = {**self._meter.conditions(entrant.lane), "interleaved_samples": entrant.samples}
        entrant.facts = {**entrant.facts, "conditions": conditions}

    def _round(self, number: int) -> bool:
        """One complete round, or False and an entrant (or an anchor) less."""
        entrants = self._racing
        turn = number % len(entrants)
        times: list[tuple[Entrant, Run, float | None]] = []
        for entrant in (*entrants[turn:], *entrants[:turn]):
            assert entrant.lane is not None
            warmup = 0 if entrant.slow else 1
            try:
                before_j = self._energy_j()
                run = self._meter.run(entrant.lane, warmup=warmup, samples=entrant.samples)
                after_j = self._energy_j()
            except (Refused, RunnerLost) as failure:
                self._out(entrant, failure)
                return False
            if why := timing.invalid(run.samples_ns):
                entrant.failure = Measurement.failed(Verdict.INVALID_TIMING, why, **entrant.facts)
                return False
            used_j = None if before_j is None or after_j is None else (after_j - before_j) / (warmup + entrant.samples)
            times.append((entrant, run, used_j))
        anchors_ns = self._anchors.time()
        if anchors_ns is None:
            return False
        for entrant, run, used_j in times:
            entrant.ran(run, used_j)
        self._anchors.keep(anchors_ns)
        return True

    def _out(self, entrant: Entrant, failure: Refused | RunnerLost) -> None:
        entrant.failure = replace(self._meter.failed(failure), **entrant.facts)

    def _energy_j(self) -> float | None:
        """What the device's energy counter shows; asked no more once there is none."""
        if self._counts_energy:
            reading = sensor(self._meter.bench.supervisor.sensors().values, "energy_j")
            self._counts_energy = reading is not None
            return reading
        return None

    def _clear(self) -> None:
        for entrant in self._entrants:
            if entrant.lane is not None:
                self._meter.drop(entrant.lane)
            self._meter.release(entrant.candidate)
        self._anchors.drop()
