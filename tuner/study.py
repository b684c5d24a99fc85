"""The steps of one run that need a device: probe, search each workload, finals, the check without profiling.

Every step writes what it found to the journal; what is decided from that is `tuner.export`'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from operator import attrgetter

import numpy as np

import kernels
from harness.candidate import Candidate
from harness.contest import Contest, compete
from harness.devices import DeviceChoice
from harness.errors import KilnError
from harness.journal import PROTOCOL, Journal, trial_key
from harness.measure import Meter
from harness.probe import Limit, ProbeResult, limit, probe
from harness.supervisor import Supervisor
from kernels.identity import RAW
from kernels.plan import Planned
from kernels.space import Space
from kernels.spec import Config, Measurement, Verdict, Workload
from tuner import crossover
from tuner.choose import Searched, choose_layouts, group_key
from tuner.donors import Donor
from tuner.export import decisions, final_record, latest_study
from tuner.finals import Finalist, finalists
from tuner.progress import Progress
from tuner.request import Request
from tuner.search import Outcome, Stop, Trial, first_tries, search

LEAST_SHARE = 0.5  # of the search time is shared out alike, so that what hardly counts is tuned beyond its default
FINALS_SHARE = 0.2  # of --seconds that the finals may take on top
TRIAL_BUDGET_S = 0.25  # of sampling in the search; finals decide, so a search need not be precise
ABANDON_ABOVE = 1.5  # times the incumbent: a slower candidate is given up after its first samples


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

    @property
    def name(self) -> str:
        """For people."""
        rows = f"M={self.workload.dims['M']} " if "M" in self.workload.dims else ""
        return f"{self.workload.family} {rows}{self.workload.label} {self.workload.weights or ''}".strip()


class Study:
    """The state that the steps of one run share."""

    def __init__(
        self, request: Request, device: DeviceChoice, journal: Journal, meter: Meter, say: Callable[[str], None]
    ) -> None:
        self._request, self._device, self._journal, self._meter, self._say = request, device, journal, meter, say
        self._jobs: list[Job] = []
        self._resumed = 0  # trials of these jobs that the journal had already
        self._probe: ProbeResult | None = None

    def prepare(self, supervisor: Supervisor, planned: Sequence[Planned]) -> None:
        """Probe the device, write the study down, open the spaces."""
        self._probe = found = self._probed() or probe(supervisor, self._device.sheet)
        for failure in found.failures:
            self._say(f"note: probe: {failure}")
        rates = {"read_gb_per_s": found.read.per_ns, "launch_ns": found.launch_ns}
        rates |= {f"{name}_gflops": rate.per_ns for name, rate in found.madd.items()}
        self._journal.study(
            request=self._request.as_json(),
            device=dict(self._device.description),
            probe=found.to_json(),
            rates=rates,
            protocol=f"kiln-{PROTOCOL}",
            started=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        families, sheet = kernels.families(), self._device.sheet
        for item in planned:
            family = families[item.workload.family]
            space = Space(family, item.workload, sheet)
            default = family.default(item.workload, sheet)
            if why := space.reject(default):
                self._say(f"note: {item.workload.label or item.workload.key} is left out: not so that {why}")
                continue
            least = limit(family.cost(item.workload), found.rates, item.workload.dtypes.compute, sheet.cache_bytes)
            self._jobs.append(Job(item, space, default, least.ns))
        if not self._jobs:
            raise KilnError(f"{self._device.slug} can run none of the planned workloads; see the notes above")
        if found_before := sum(1 for _ in self._journal.of_kind("trial")):
            self._resumed = sum(len(self._known(job)) for job in self._jobs)
            others = found_before - self._resumed
            text = f"resuming {self._journal.path}: {self._resumed} finished trials there are not repeated"
            self._say(text + (f"; {others} others are of no use to this run" if others > 0 else ""))

    def _probed(self) -> ProbeResult | None:
        """The probe of an earlier run of this study on this device and driver, or None.

        It serves as the search's orientation and says which kernels are the anchors; the finals' limits come from
        those anchors, timed again beside the candidates.
        """
        for record in reversed(list(self._journal.of_kind("study"))):
            if all(record["device"].get(name) == self._device.description.get(name) for name in RAW):
                self._say("the device's limits were probed in an earlier run; the finals measure them again")
                return ProbeResult.from_json(record["probe"])
        self._say("probing the device's limits")
        return None

    # ------------------------------------------------------------ search

    def search(self) -> None:
        """Search every workload for its share of the time, the quickest first; what one finds seeds the next, and a
        job whose single trial takes seconds begins where many quick ones have led."""
        self._jobs.sort(key=lambda job: job.limit_ns)
        shares = _shares(self._jobs)
        with Progress(self._request.seconds, self._resumed) as progress:
            spent = 0.0
            for place, job in enumerate(self._jobs):
                # What earlier workloads left unused goes to the later ones.
                seconds = (self._request.seconds - spent) * shares[place] / sum(shares[place:])
                self._meter.bench.cases.packed(  # made here, so that a search's time is spent on trials
                    job.space.family, job.workload, self._candidate(job, job.default).layouts
                )
                progress.workload(job.name)
                start = time.monotonic()
                job.outcome = self._search_one(job, seconds, progress, spent, start)
                spent += time.monotonic() - start
        growths = self._meter.memory.growths
        self._journal.note("memory", runners=[asdict(growth) for growth in growths])
        for growth in filter(attrgetter("much"), growths):
            self._say(f"note: {growth}: its driver leaks")

    def _search_one(self, job: Job, seconds: float, progress: Progress, spent: float, start: float) -> Outcome:
        def measure(config: Config, best_ns: float | None) -> Measurement:
            return self._measure(self._candidate(job, config), best_ns)

        def watch(trial: Trial, outcome: Outcome) -> None:
            progress.trial(trial, outcome, job.limit_ns, spent + time.monotonic() - start)

        known, stop = self._known(job), Stop(seconds)
        if self._request.trials is not None:
            stop = replace(stop, trials=max(0, self._request.trials - len(known)))
        return search(
            job.space,
            measure,
            stop=stop,
            seeds=first_tries(job.space, [other.ok for other in self._neighbours(job)]),
            donors=[_donor(other) for other in self._neighbours(job)],
            sampler=self._request.sampler,
            known=known,
            seed=self._request.seed,
            watch=watch,
        )

    def _candidate(self, job: Job, config: Config) -> Candidate:
        return Candidate(job.space.family, job.workload, config)

    def _key(self, candidate: Candidate) -> str:
        return trial_key(candidate, self._device.description)

    def _measure(self, candidate: Candidate, best_ns: float | None) -> Measurement:
        """Measure between two journal records: written ahead, and as finished."""
        key = self._key(candidate)
        self._journal.begin(key, candidate)
        try:
            bound = None if best_ns is None else ABANDON_ABOVE * best_ns
            measurement = self._meter.measure(candidate, budget_s=TRIAL_BUDGET_S, abort_above_ns=bound)
        except BaseException:  # Ctrl-C, a full disk or a mistake of ours: none of them is the candidate's fault
            self._journal.interrupted(key)
            raise
        self._journal.trial(key, candidate, measurement)
        return measurement

    def _known(self, job: Job) -> list[Trial]:
        """Trials of this workload in the journal that are still true of this device and these sources."""
        found = {}
        for record in (*self._journal.of_kind("trial"), *self._journal.lost):
            if record["workload"] == job.workload.key and job.space.reject(record["config"]) is None:
                candidate = self._candidate(job, record["config"])
                key = self._key(candidate)
                measurement = self._journal.lookup(key) if key == record["key"] else None
                if measurement is not None:
                    found[key] = Trial(record["config"], measurement)
        return list(found.values())

    def _neighbours(self, job: Job) -> list[Outcome]:
        """What related workloads found, the nearest first: the same format by size, then the others."""

        def distance(other: Job) -> tuple[bool, float]:
            same_format = other.workload.weights == job.workload.weights
            sizes = [(job.workload.dims[d], other.workload.dims[d]) for d in job.workload.dims]
            return (not same_format, sum(abs(a / b - b / a) for a, b in sizes))

        related = [o for o in self._jobs if o.outcome and o.workload.family == job.workload.family]
        return [o.outcome for o in sorted(related, key=distance) if o.outcome]

    # ------------------------------------------------------------ finals

    def finals(self) -> None:
        """Measure every workload's best again, interleaved, and write the samples down."""
        searched = [self._searched(job) for job in self._jobs]
        try:
            layouts = choose_layouts(kernels.families(), searched)
        except ValueError as error:
            raise KilnError(str(error)) from error
        for job, item, share in zip(self._jobs, searched, _shares(self._jobs), strict=True):
            self._say(f"finals: {job.name}")
            layout = layouts[group_key(job.space.family, job.workload)]
            budget_s = FINALS_SHARE * self._request.seconds * share
            chosen = finalists(
                item,
                layout,
                lambda trial, job=job: self._candidate(job, trial.config),  # type: ignore[misc]
                budget_s,
            )
            self._final(job, chosen, budget_s)

    def _searched(self, job: Job) -> Searched:
        assert job.outcome is not None
        if not any(t.config == job.default and t.measurement.stats for t in job.outcome.trials):
            raise KilnError(self._why_nothing(job))
        return Searched(job.workload, job.planned.count, tuple(job.outcome.ok), job.default)

    def _why_nothing(self, job: Job) -> str:
        """The default did not succeed: then the device or the reference is suspect, not the candidates."""
        assert job.outcome is not None
        trials = job.outcome.trials
        if not trials:
            return f"no time for a single trial of {job.workload.key}; give --seconds more"
        default = next((t for t in trials if t.config == job.default), trials[0])
        verdict, log = default.measurement.verdict, default.measurement.log.strip()
        sentence = f"the default of {job.workload.key} ended as {verdict}: {log.splitlines()[0] if log else 'no log'}"
        if all(t.measurement.verdict is not Verdict.OK for t in trials):
            sentence += f"; so did all {len(trials)} candidates: suspect the device or the reference, not the kernels"
        return sentence

    def _final(self, job: Job, chosen: Sequence[Candidate], budget_s: float) -> None:
        assert self._probe is not None
        contest = compete(self._meter, chosen, self._probe, budget_s=budget_s)
        ok = [c for c in contest.contestants if c.measurement.verdict is Verdict.OK]
        for contestant in contest.contestants:
            if contestant not in ok:
                verdict, log = contestant.measurement.verdict, contestant.measurement.log
                self._say(f"note: {contestant.candidate} left the finals: {verdict} {log[:200]}".rstrip())
        if not ok or ok[0].candidate != chosen[0]:
            raise KilnError(f"the default of {job.workload.key} did not survive the finals; see the note above")
        least = limit(
            job.space.family.cost(job.workload),
            contest.rates,
            job.workload.dtypes.compute,
            self._device.sheet.cache_bytes,
        )
        facts = {
            "limit": {"ns": least.ns, "limited_by": least.limited_by, "rounds_ns": _limits(least, contest)},
            "rounds": contest.rounds,
            "conditions": dict(ok[0].measurement.conditions),
            "anchors_ns": {name: [round(ns) for ns in times] for name, times in contest.anchors_ns.items()},
        }
        finalists = [Finalist(c.candidate, c.measurement.samples_ns) for c in ok]
        errors = {c.candidate: c.measurement.errors for c in ok if c.measurement.errors}
        self._journal.final(**final_record(job.planned.count, finalists, errors, facts))

    def crossover(self) -> None:
        """Measure up to how many rows GEMV is faster than GEMM, and write it down."""
        assert self._probe is not None
        _, finals = latest_study(self._journal.records)
        winners = [decision.winner.finalist.candidate for decision in decisions(finals, self._device.sheet)[0]]
        for pair in crossover.rivals(winners):
            self._say(f"crossover: {crossover.FEW} against {crossover.MANY}, {pair.workload.weights}")
            for record in crossover.race(self._meter, pair, self._probe, self._device.sheet):
                self._journal.note(crossover.NOTE, **record)

    def deployment(self) -> None:
        """Time every winner as an engine runs it, on a queue without profiling, and write the gap down."""
        _, finals = latest_study(self._journal.records)
        for decision in decisions(finals, self._device.sheet)[0]:
            finalist = decision.winner.finalist
            wall = self._meter.wall_check(finalist.candidate, finalist.median_ns)
            if isinstance(wall, Measurement):
                self._say(f"note: {finalist.candidate} without profiling: {wall.verdict} {wall.log[:200]}".rstrip())
                continue
            self._journal.note(
                "wall", workload=decision.workload.key, event_ns=wall.event_ns, wall_ns=wall.wall_ns, gap=wall.gap
            )


def _donor(outcome: Outcome) -> Donor:
    """What one workload's search teaches another's."""
    configs, costs_ns = zip(*((t.config, t.cost_ns) for t in outcome.trials), strict=True)
    return Donor("a neighbour", configs, costs_ns)


def _shares(jobs: Sequence[Job]) -> list[float]:
    """What part of the time each job gets."""
    shares = [max(job.planned.share, LEAST_SHARE / len(jobs)) for job in jobs]
    return [share / sum(shares) for share in shares]


def _limits(least: Limit, contest: Contest) -> list[int]:
    """The limit as each round's anchor saw it, so that percentages have an interval; [] without such an anchor."""
    anchors = contest.anchors_ns
    moved = anchors.get("copy") or anchors.get("read", ())
    anchor = {"bandwidth": moved, "arithmetic": anchors.get("madd", ())}.get(least.limited_by, ())
    return [round(least.ns * ns / float(np.median(anchor))) for ns in anchor]
