"""The first steps of one run, which need a device: probe it, search each workload. `tuner.closing` has the others.

Every step writes what it found to the journal; what is decided from that is `tuner.decisions`'.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from operator import attrgetter

import kernels
from harness.candidate import Candidate
from harness.errors import DeviceMissing
from harness.journal import trial_key
from harness.probe import ProbeResult, limit
from harness.racing import Rival
from harness.supervisor import Supervisor
from kernels.plan import Planned
from kernels.spec import Config, Measurement, Workload
from tuner import layouts
from tuner.donors import Donor
from tuner.opening import opened
from tuner.predict import peaks_of
from tuner.progress import Progress
from tuner.search import Outcome, Stop, Trial, first_tries, search
from tuner.setting import Job, Setting, open_jobs, shares
from tuner.suggestions import suggestions

FIRST_LOOK = 0.4  # of the time of what shares a layout, spent on all layouts; the rest goes into the one that wins
_SETTLED = "layouts"  # the journal's note about them
TRIAL_BUDGET_S = 0.25  # of sampling in the search; finals decide, so a search need not be precise


@dataclass(frozen=True)
class Turn:
    """A job's part in a round of searches."""

    job: Job
    share: float  # of the whole time
    trials: int | None  # at most, those of earlier rounds and runs counted


class Study:
    """The state that the steps of one run share."""

    def __init__(self, setting: Setting) -> None:
        self._request, self._device, self._journal = setting.request, setting.device, setting.journal
        self._meter, self._say, self._crew = setting.meter, setting.say, setting.crew
        self._jobs: list[Job] = []
        self._resumed = 0  # trials of these jobs that the journal had already

    def prepare(self, supervisor: Supervisor, planned: Sequence[Planned]) -> ProbeResult:
        """Probe the device, write the study down, open the spaces; returns the probe."""
        found = opened(self._journal, supervisor, self._device, self._request.as_json(), self._say)
        self._peaks = peaks_of(found.rates, self._device.sheet)
        sheet = self._device.sheet

        def limit_ns(workload: Workload) -> float:
            cost = kernels.families()[workload.family].cost(workload)
            return limit(cost, found.rates, workload.dtypes.compute, sheet.cache_bytes).ns

        self._jobs = open_jobs(
            planned, sheet, self._device.slug, self._say, limit_ns, most_ns=self._request.most_dispatch_ns
        )
        layouts.agree(self._jobs)
        if found_before := sum(1 for _ in self._journal.of_kind("trial")):
            self._resumed = sum(len(self._known(job)) for job in self._jobs)
            others = found_before - self._resumed
            text = f"resuming {self._journal.path}: {self._resumed} finished trials there are not repeated"
            self._say(text + (f"; {others} others are of no use to this run" if others > 0 else ""))
        return found

    # ------------------------------------------------------------ search

    def search(self) -> list[Job]:
        """Search every workload for its share of the time, the quickest first; returns them with what was found.

        What one finds seeds the next, and a job whose single trial takes seconds begins where many quick ones have led.
        Where kernels share packed tensors, a first round looks at all layouts and a second one at what it settled on.
        """
        self._jobs.sort(key=lambda job: job.limit_ns)
        seconds, trials = self._request.seconds, self._request.trials
        first: list[Turn] = []
        second: list[Turn] = []
        settled = self._settled([job for job in self._jobs if layouts.undecided(job)])
        for job, part in zip(self._jobs, shares(self._jobs), strict=True):
            if layouts.undecided(job) and settled is not None:
                second.append(Turn(job, part, trials))
            elif layouts.undecided(job):
                look = None if trials is None else math.ceil(FIRST_LOOK * trials)
                first.append(Turn(job, FIRST_LOOK * part, look))
                second.append(Turn(job, (1 - FIRST_LOOK) * part, trials))
            else:
                first.append(Turn(job, part, trials))
        with Progress(seconds, self._resumed) as progress:
            spent = self._round(first, seconds * sum(turn.share for turn in first), progress, 0.0)
            if settled is None and second:
                found = layouts.settle([turn.job for turn in second])
                self._journal.note(_SETTLED, request=self._request.as_json(), layouts=found)
            elif settled is not None:
                layouts.keep_to(settled, [turn.job for turn in second])
            self._round(second, seconds, progress, spent)
        if self._meter.ahead:
            self._meter.ahead.close()  # what follows times most of the while
            self._journal.note("ahead", **self._meter.ahead.as_json())
        growths = self._meter.memory.growths
        self._journal.note("memory", runners=[asdict(growth) for growth in growths])
        for growth in filter(attrgetter("much"), growths):
            self._say(f"note: {growth}: its driver leaks")
        return self._jobs

    def _settled(self, jobs: Sequence[Job]) -> Mapping[str, Sequence[Sequence[str]]] | None:
        """What an interrupted run of the same request settled on: its second round goes on, after what is known."""
        known = [tuple(self._known(job)) for job in jobs]
        asked = self._request.as_json()
        for record in reversed(list(self._journal.of_kind("note"))):
            if record["text"] == _SETTLED and record["request"] == asked:
                for job, trials in zip(jobs, known, strict=True):
                    if all(trial.config != job.default for trial in trials):
                        return None  # of another device or driver, or of other sources
                for job, trials in zip(jobs, known, strict=True):
                    job.outcome = Outcome(trials, len(trials), "settled")
                found: Mapping[str, Sequence[Sequence[str]]] = record["layouts"]
                return found
        return None

    def _round(self, turns: Sequence[Turn], until: float, progress: Progress, spent: float) -> float:
        """Search each job for its share of the time from `spent` to `until`; returns the seconds spent in all."""
        for place, turn in enumerate(turns):
            job = turn.job
            # What earlier workloads left unused goes to the later ones.
            seconds = (until - spent) * turn.share / sum(other.share for other in turns[place:])
            self._meter.bench.cases.packed(  # made here, so that a search's time is spent on trials
                job.space.family, job.workload, job.candidate(job.default).layouts
            )
            progress.workload(job.name)
            start = self._now()
            job.outcome = self._search_one(turn, seconds, progress, spent, start)
            spent += self._now() - start
        return spent

    def _search_one(self, turn: Turn, seconds: float, progress: Progress, spent: float, start: float) -> Outcome:
        job = turn.job
        earlier = list(job.outcome.trials) if job.outcome else self._known(job)
        rival: Rival | None = None
        for trial in earlier:
            rival = next_rival(rival, job.candidate(trial.config), trial)
        known = [trial for trial in earlier if job.space.reject(trial.config) is None]

        def measure(config: Config, best_ns: float | None) -> Measurement:
            nonlocal rival
            if rival and best_ns:  # another worker's may be better
                rival = replace(rival, best_ns=min(rival.best_ns, best_ns))
            candidate = job.candidate(config)
            measurement = self._measure(candidate, rival)
            rival = next_rival(rival, candidate, Trial(config, measurement))
            return measurement

        def watch(trial: Trial, outcome: Outcome) -> None:
            progress.trial(trial, outcome, job.limit_ns, spent + self._now() - start)

        stop = Stop(seconds)
        if turn.trials is not None:
            stop = replace(stop, trials=max(0, turn.trials - len(earlier)))
        ahead = self._meter.ahead
        seeds = first_tries(job.space, [other.ok for other in self._neighbours(job)])
        outcome = search(
            job.space,
            measure,
            stop=stop,
            seeds=[*seeds, *layouts.liked_by_others(job, self._jobs), *suggestions(job.space, self._peaks)],
            donors=[_donor(other) for other in self._neighbours(job)],
            sampler=self._request.sampler,
            known=known,
            board=self._crew.board(job.space, self._device.description) if self._crew else None,
            must=None if job.outcome else job.default,
            seed=self._request.seed,
            watch=watch,
            foretell=None if ahead is None else lambda configs: ahead.want([job.candidate(c) for c in configs]),
            clock=self._now,
        )
        return outcome.after([trial for trial in earlier if trial not in known])

    def _now(self) -> float:
        """Seconds that pass while searching: those in which a phone cools, or is away, do not count."""
        return time.monotonic() - self._meter.bench.supervisor.waited_s

    def _key(self, candidate: Candidate) -> str:
        return trial_key(candidate, self._device.description)

    def _measure(self, candidate: Candidate, rival: Rival | None) -> Measurement:
        """Measure between two journal records: written ahead, and as finished."""
        key = self._key(candidate)
        self._meter.bench.supervisor.settle()
        self._journal.begin(key, candidate, ahead=self._meter.ahead is not None)
        try:
            measurement = self._meter.measure(candidate, budget_s=TRIAL_BUDGET_S, rival=rival)
        except DeviceMissing:  # it went away during this one: if it has gone down, the journal's reader will know
            raise
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
                candidate = job.candidate(record["config"])
                key = self._key(candidate)
                measurement = self._journal.lookup(key) if key == record["key"] else None
                if measurement is not None:
                    found[key] = Trial(record["config"], measurement, record.get("worker"))
        return list(found.values())

    def _neighbours(self, job: Job) -> list[Outcome]:
        """What related workloads found, the nearest first: the same format by size, then the others."""

        def distance(other: Job) -> tuple[bool, float]:
            same_format = other.workload.weights == job.workload.weights
            sizes = [(job.workload.dims[d], other.workload.dims[d]) for d in job.workload.dims]
            return (not same_format, sum(abs(a / b - b / a) for a, b in sizes))

        related = [o for o in self._jobs if o.outcome and o.workload.family == job.workload.family and o is not job]
        return [o.outcome for o in sorted(related, key=distance) if o.outcome]


def next_rival(rival: Rival | None, candidate: Candidate, trial: Trial) -> Rival | None:
    """What the next candidate is compared with, after this trial; the first that succeeds is the reference."""
    if trial.measurement.stats is None:
        return rival
    if rival is None:
        return Rival(candidate, trial.cost_ns, trial.cost_ns)
    return replace(rival, best_ns=min(rival.best_ns, trial.cost_ns))


def _donor(outcome: Outcome) -> Donor:
    """What one workload's search teaches another's."""
    configs, costs_ns = zip(*((t.config, t.cost_ns) for t in outcome.trials), strict=True)
    return Donor("a neighbour", configs, costs_ns)
