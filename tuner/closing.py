"""The steps of a run after the search: finals, programs that serve many sizes, crossovers, the check without profiling.

Every step writes what it found to the journal; what is decided from that is `tuner.decisions`'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import kernels
from harness.candidate import Candidate
from harness.contest import Contest, compete
from harness.errors import KilnError
from harness.probe import Limit, ProbeResult, limit
from kernels.spec import Measurement, Verdict
from tuner import edges, matmul, programs
from tuner.choose import Searched, choose_layouts, group_key
from tuner.decisions import Decision, decisions, final_record, latest_study
from tuner.finals import Final, Finalist, finalists
from tuner.setting import Job, Setting, shares

FINALS_SHARE = 0.2  # of --seconds that the finals may take on top
PROGRAMS_SHARE = 0.2  # as much again where --max-programs asks how each program does in every bucket


class DefaultFailed(KilnError):
    """The family's default, which everything is compared with, does not work in the finals."""


class Closing:
    """The state that these steps share."""

    def __init__(self, setting: Setting, probed: ProbeResult, jobs: Sequence[Job]) -> None:
        self._setting, self._probe, self._jobs = setting, probed, jobs
        self._journal, self._meter, self._say = setting.journal, setting.meter, setting.say
        self._sheet = setting.device.sheet

    def finals(self) -> None:
        """Measure every workload's best again, interleaved, and write the samples down."""
        searched = [self._searched(job) for job in self._jobs]
        try:
            layouts = choose_layouts(kernels.families(), searched)
        except ValueError as error:
            raise KilnError(str(error)) from error
        for job, item, share in zip(self._jobs, searched, shares(self._jobs), strict=True):
            self._say(f"finals: {job.name}")
            layout = layouts[group_key(job.space.family, job.workload)]
            budget_s = FINALS_SHARE * self._setting.request.seconds * share
            chosen = finalists(
                item,
                layout,
                lambda trial, job=job: job.candidate(trial.config),  # type: ignore[misc]
                budget_s,
            )
            self._final(job, chosen, budget_s)

    def _searched(self, job: Job) -> Searched:
        assert job.outcome is not None
        if not any(t.config == job.default and t.measurement.stats for t in job.outcome.trials):
            raise KilnError(self._why_nothing(job))
        return Searched(job.workload, job.planned.count, tuple(job.ok), job.default)

    def _why_nothing(self, job: Job) -> str:
        """The default did not succeed: then the device or the reference is suspect, not the candidates."""
        assert job.outcome is not None
        trials = job.outcome.trials
        if not trials:
            return f"no time for a single trial of {job.workload.key}; give --seconds more"
        default = next((t for t in trials if t.config == job.default), None)
        if default is None:
            return f"the default of {job.workload.key} was not measured; run the same command again"
        verdict, log = default.measurement.verdict, default.measurement.log.strip()
        sentence = f"the default of {job.workload.key} ended as {verdict}: {log.splitlines()[0] if log else 'no log'}"
        if all(t.measurement.verdict is not Verdict.OK for t in trials):
            sentence += f"; so did all {len(trials)} candidates: suspect the device or the reference, not the kernels"
        return sentence

    def _final(self, job: Job, chosen: Sequence[Candidate], budget_s: float, stay: Sequence[Candidate] = ()) -> Contest:
        """Hold the finals of one job, its default first, and write them down; `stay` run to the end. Raises
        DefaultFailed."""
        whole = [candidate for candidate in chosen if candidate in (chosen[0], *stay) or candidate.driver_local]
        contest = compete(self._meter, chosen, self._probe, budget_s=budget_s, stay=whole)
        self._journal.final(**self._record(job, contest))
        return contest

    def _record(self, job: Job, contest: Contest) -> dict[str, Any]:
        """A contest of one workload, its default first, as the journal keeps it; says who failed."""
        ok = [c for c in contest.contestants if c.measurement.verdict is Verdict.OK]
        for contestant in contest.contestants:
            if contestant not in ok:
                verdict, log = contestant.measurement.verdict, contestant.measurement.log
                self._say(f"note: {contestant.candidate} left the finals: {verdict} {log[:200]}".rstrip())
        if not ok or ok[0] is not contest.contestants[0]:
            raise DefaultFailed(f"the default of {job.workload.key} did not survive the finals; see the note above")
        cost, cache_bytes = job.space.family.cost(job.workload), self._sheet.cache_bytes
        least = limit(cost, contest.rates, job.workload.dtypes.compute, cache_bytes)
        most_ms = self._setting.request.max_dispatch_ms
        facts: dict[str, Any] = {
            "limit": {"ns": least.ns, "limited_by": least.limited_by, "rounds_ns": _limits(least, contest)},
            "rounds": contest.rounds,
            **({} if most_ms is None else {"max_dispatch_ns": 1e6 * most_ms}),
            "conditions": dict(ok[0].measurement.conditions),
            "anchors_ns": {name: [round(ns) for ns in times] for name, times in contest.anchors_ns.items()},
        }
        found = [
            Finalist(c.candidate, c.measurement.samples_ns, c.measurement.errors, c.launches_ns, c.energy_j) for c in ok
        ]
        final = Final(job.planned.count, tuple(found), found[0], None, facts)
        if not any(map(final.fits, found)):
            shortest_ms = min(max(one.launches_ns, default=one.median_ns) for one in found) / 1e6
            self._say(
                f"note: {job.name} is left out: no candidate keeps its launches within {most_ms:g} ms, the shortest "
                f"takes {shortest_ms:.3g}; allow longer ones with --max-dispatch-ms"
            )
        return final_record(job.planned.count, found, facts)

    def programs(self) -> None:
        """Where few programs are to serve many buckets, or their number is an objective: measure each where it was not,
        beside what won there."""
        request = self._setting.request
        if request.max_programs is None and "programs" not in request.objectives:
            return
        most = request.max_programs or 1
        found = decisions(latest_study(self._journal.records)[1], self._sheet)
        by_workload = {decision.workload: decision for decision in found}
        jobs = list(zip(self._jobs, shares(self._jobs), strict=True))
        # One kind of job after the other: its programs then stay built.
        for job, share in sorted(jobs, key=lambda item: programs.kind(item[0].workload)):
            decision = by_workload[job.workload]
            winners = {d.winner.finalist.candidate.program for d in found if d.workload.family == job.workload.family}
            others = [finalist.candidate for finalist in programs.missing(decision, found, self._sheet)]
            if len(winners) <= most or not others:
                continue
            self._say(f"programs: {len(others)} of other sizes at {job.name}")
            stay = list(dict.fromkeys((decision.final.default.candidate, decision.winner.finalist.candidate)))
            budget_s = PROGRAMS_SHARE * request.seconds * share
            contest = compete(self._meter, [*stay, *others], self._probe, budget_s=budget_s, stay=stay)
            try:
                self._journal.note(programs.NOTE, **self._record(job, contest))
            except DefaultFailed as failure:  # it did not in the finals, which stand
                self._say(f"note: {failure}: its other programs stay unmeasured")

    def crossover(self) -> None:
        """Measure where one kernel gives way to another: GEMV to GEMM, buckets to their neighbours; write it down."""
        winners = [decision.winner.finalist.candidate for decision in self._decided()]
        for pair in matmul.rivals(winners):
            self._say(f"crossover: {matmul.FEW} against {matmul.MANY}, {pair.workload.weights}")
            for record in matmul.race(self._meter, pair, self._probe, self._sheet):
                self._journal.note(matmul.NOTE, **record)
        for near in edges.neighbours(winners):
            sizes = [one.workload.dims[near.dim] for one in (near.low, near.high)]
            self._say(f"crossover: {near.low.family.name} between {near.dim}={sizes[0]} and {sizes[1]}")
            for record in edges.race(self._meter, near, self._probe, self._sheet):
                self._journal.note(edges.NOTE, **record)

    def deployment(self) -> None:
        """Time every winner as an engine runs it, on a queue without profiling, and write the gap down."""
        for decision in self._decided():
            finalist = decision.winner.finalist
            wall = self._meter.wall_check(finalist.candidate, finalist.median_ns)
            if isinstance(wall, Measurement):
                self._say(f"note: {finalist.candidate} without profiling: {wall.verdict} {wall.log[:200]}".rstrip())
                continue
            self._journal.note(
                "wall", workload=decision.workload.key, event_ns=wall.event_ns, wall_ns=wall.wall_ns, gap=wall.gap
            )

    def _decided(self) -> list[Decision]:
        """What the journal decides so far."""
        return programs.decided(self._journal.records, self._sheet)


def _limits(least: Limit, contest: Contest) -> list[int]:
    """The limit as each round's anchor saw it, so that percentages have an interval; [] without such an anchor."""
    anchors = contest.anchors_ns
    moved = anchors.get("copy") or anchors.get("read", ())
    anchor = {"bandwidth": moved, "arithmetic": anchors.get("madd", ()), "launch": anchors.get("launch", ())}[
        least.limited_by
    ]
    return [round(least.ns * ns / float(np.median(anchor))) for ns in anchor]
