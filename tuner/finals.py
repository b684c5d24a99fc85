"""The last word: the few best re-measured interleaved, then one layout for the model and one winner per workload."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.candidate import Candidate
from harness.racing import NEAR, beaten, common
from harness.timing import LEAST_SAMPLES, Ratio, paired_ratio
from kernels.space import Layout, layout_of
from kernels.spec import Config, DeviceSheet, Errors
from tuner.choose import Searched, Timed

TOP = 4  # candidates of each layout that reach the finals; whoever is beaten there leaves after a few rounds


@dataclass(frozen=True)
class Finalist:
    """One candidate's paired samples: index i of every finalist was taken in round i, next to the others.

    Whoever was surely beaten left the race and has the first rounds only.
    """

    candidate: Candidate
    samples_ns: tuple[float, ...]
    errors: Errors | None = None  # what it was checked with before it ran
    launches_ns: tuple[float, ...] = ()  # median of each of its launches alone; () where a journal is older than that
    energy_j: float | None = None  # of one call; None where the device does not tell

    @property
    def median_ns(self) -> float:
        """Median over the rounds."""
        return float(np.median(self.samples_ns))

    @property
    def layout(self) -> Layout:
        """Layout of each packed tensor it reads."""
        return layout_of(self.candidate.variant, self.candidate.config, self.candidate.workload)


@dataclass(frozen=True)
class Final:
    """The finals of one workload."""

    calls: float  # per token, for weighing layouts
    finalists: tuple[Finalist, ...]
    default: Finalist  # the family's default, one of the finalists
    driver_local: Finalist | None  # the default with the driver's own work-group size, where that is right
    facts: Mapping[str, Any]  # anchors, limits and conditions as the meter saw them

    def comparable_ns(self, finalist: Finalist) -> tuple[float, ...]:
        """A finalist's samples at the pace of all rounds: the default ran in each, whoever left early in some."""
        rounds = len(finalist.samples_ns)
        every = self.default.samples_ns
        pace = 1.0 if rounds == len(every) else float(np.median(every) / np.median(every[:rounds]))
        return tuple(pace * ns for ns in finalist.samples_ns)

    def median_ns(self, finalist: Finalist) -> float:
        """Median of a finalist's comparable samples."""
        return float(np.median(self.comparable_ns(finalist)))

    @property
    def most_ns(self) -> float:
        """How long a single launch of a winner may take (--max-dispatch-ms); infinite where nobody asked."""
        told = self.facts.get("max_dispatch_ns")
        return math.inf if told is None else float(told)

    def fits(self, finalist: Finalist) -> bool:
        """Whether each of a finalist's launches keeps to that; where they were not told apart, all of them together."""
        return max(finalist.launches_ns, default=finalist.median_ns) <= self.most_ns

    def stayed(self, finalist: Finalist) -> bool:
        """Whether nobody had surely beaten it when the rounds ended."""
        return len(finalist.samples_ns) == len(self.default.samples_ns)


@dataclass(frozen=True)
class Winner:
    """What won a workload, and by how much over the default."""

    finalist: Finalist
    speedup: Ratio  # default time over winner's time
    tied: int  # finalists it could not be told apart from, among which it needs the fewest resources
    ranking: tuple[Finalist, ...]  # the others of the same layout, fastest first


def finalists(
    searched: Searched, family_layout: Layout, candidate_of: Callable[[Timed], Candidate], budget_s: float = math.inf
) -> list[Candidate]:
    """Who is measured again: the default, its driver-local form, and the best of the two layouts in question.

    The two layouts are the one the search favours and the default's, which remains the fallback for the model. Where
    LEAST_SAMPLES rounds of them all would take longer than `budget_s`, only the default and the best of each layout.
    """
    default = next(t for t in searched.ok if dict(t.config) == dict(searched.default))
    default_candidate = candidate_of(default)
    chosen = [default_candidate]
    if default_candidate.variant.any_local:
        chosen.append(Candidate(default_candidate.family, searched.workload, searched.default, driver_local=True))
    family = default_candidate.family

    def layout_read(config: Config) -> Layout:
        return layout_of(family.variant(config["variant"]), config, searched.workload)

    home = layout_read(searched.default)
    for layout in dict.fromkeys((family_layout, home)):
        inside = [trial for trial in searched.ok if layout_read(trial.config) == layout]
        short = 2 * TOP * LEAST_SAMPLES * inside[0].cost_ns > budget_s * 1e9
        near = [trial for trial in inside[: 1 if short else TOP] if trial.cost_ns <= NEAR * inside[0].cost_ns]
        chosen += [candidate_of(trial) for trial in near]
    return list(dict.fromkeys(chosen))


def decide(finals: Sequence[Final], sheet: DeviceSheet) -> tuple[Layout, list[Winner]]:
    """One layout for all these workloads and the winner of each in it.

    Of the layouts that every workload has finalists in, those count in which no workload's best is slower than its
    default; the default's layout always does. The least total time wins. Raises ValueError where nothing is left.
    Who launches something longer than is asked for does not count, a default neither.
    """
    if not finals:
        raise ValueError("nothing reached the finals")
    totals: dict[Layout, float] = {}
    able = [[f for f in final.finalists if final.fits(f)] for final in finals]
    for layout in set.intersection(*({f.layout for f in fitting} for fitting in able)):
        best = [
            min(final.median_ns(f) for f in fitting if f.layout == layout)
            for final, fitting in zip(finals, able, strict=True)
        ]
        if all(ns <= _floor(final) for ns, final in zip(best, finals, strict=True)):
            totals[layout] = sum(final.calls * ns for ns, final in zip(best, finals, strict=True))
    if not totals:
        more = " or allow longer launches" if any(math.isfinite(final.most_ns) for final in finals) else ""
        raise ValueError(f"no layout has finalists in every workload; give the search more time{more}")
    layout = min(totals, key=lambda name: (totals[name], name))
    return layout, [_winner(final, layout, sheet) for final in finals]


def _floor(final: Final) -> float:
    """What a layout's best must not be slower than: the default's time, where that may run at all."""
    return final.default.median_ns if final.fits(final.default) else math.inf


def _winner(final: Final, layout: Layout, sheet: DeviceSheet) -> Winner:
    inside = sorted((f for f in final.finalists if f.layout == layout and final.fits(f)), key=final.median_ns)
    stayed = [f for f in inside if final.stayed(f)] or inside
    fastest = stayed[0]
    tied = [f for f in stayed if _cannot_be_told_apart(fastest, f)]
    # The default is what an engine runs anyway: it gives way only to something that is surely faster.
    may_stay = final.fits(final.default)
    faster = [f for f in tied if not may_stay or beaten(f.samples_ns, final.default.samples_ns)]
    stays = final.default in inside and (final.default in tied or not faster)
    winner = final.default if stays else min(faster or tied, key=lambda f: _resources(f, sheet))
    return Winner(
        winner,
        over(winner, final.default),
        len(tied) - 1,
        tuple(f for f in inside if f is not winner),
    )


def over(base: Finalist, other: Finalist) -> Ratio:
    """How many times slower `other` is, from the rounds that both ran."""
    return paired_ratio(*common(base.samples_ns, other.samples_ns))


def _cannot_be_told_apart(fastest: Finalist, other: Finalist) -> bool:
    """By the test that also ends a race, not by the 95 % interval: on a busy machine neighbouring rounds are alike.

    Of ten finals of a GEMM on PoCL two saw a challenger ahead in all seven rounds; 45 rounds did not.
    """
    return not beaten(fastest.samples_ns, other.samples_ns)


def _resources(finalist: Finalist, sheet: DeviceSheet) -> tuple[float, ...]:
    """Local memory, registers, launches, scratch and work-group: what makes a candidate fragile on another driver."""
    candidate = finalist.candidate
    traffic = candidate.variant.traffic(candidate.config, candidate.workload, sheet)
    groups = [math.prod(launch.local or (1,)) for launch in candidate.schedule.launches]
    return (
        traffic.local_bytes,
        traffic.registers,
        len(candidate.schedule.launches),
        len(candidate.schedule.scratch),
        max(groups),
        finalist.median_ns,
    )
