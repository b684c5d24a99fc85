"""What a comparison of two sides may conclude: improved, regressed or within noise, from sessions.

A session (harness.sessions) has processes of its own and gives one logarithm of other/base; these are averaged.

Many workloads at 95 % each would cry wolf in every run. So all are screened with few sessions, and whoever looks
changed is measured again, alone, in more sessions, together with a *control*: a second process of the base. The verdict
rests on these fresh sessions only. It is "changed" where the other side is slower, or faster, than both processes of
the base: where the intervals of both differences leave out 1. They come from Wilcoxon's signed ranks, which assume
nothing about the noise but that it has no side; what has one, such as being started last, the control has too. Over all
workloads of a run the chance of one false verdict is at most ALPHA, by Bonferroni over the suspects. No percentage is
fixed: what is noise, the run itself tells.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import ceil, exp, log2, sqrt

import numpy as np
from scipy import special

from harness.sessions import BASE, CONTROL, OTHER, Session, anchor_differences, best_way, differences

ALPHA = 0.01  # chance at most that a whole run calls any unchanged workload changed
SCREENING = 0.05  # of an unchanged workload to be looked at again: costs time only
LEAST_SESSIONS, MOST_SESSIONS = 3, 8  # of the screening: few workloads get more, so that a small edit's effect shows
_SESSIONS = 24  # of the screening in all, within these bounds
SPARE = 2  # sessions beyond those that could just decide, so that one odd session is no veto
# When suspects are judged: after how many times the first look's sessions, and which part of the level that look has,
# so that looking again costs no more false verdicts. Who does not look changed any more is not measured on.
LOOKS = ((1.0, 0.25), (1.5, 0.25), (2.25, 0.5))
_PRIOR = 4.0  # degrees of freedom that all workloads' spread weighs beside a workload's own, of two or more


class Change(enum.StrEnum):
    """What came of one workload."""

    IMPROVED = "improved"
    REGRESSED = "regressed"
    NOISE = "within noise"
    BROKEN = "broken"  # runs on the base and not, or wrongly, on the other side: as bad as regressed
    MENDED = "mended"  # the reverse
    FAILED = "failed"  # on both


@dataclass(frozen=True)
class Failure:
    """A side that could not be measured."""

    sides: tuple[str, ...]
    log: str


@dataclass(frozen=True)
class Effect:
    """How many times longer the other side takes: above 1 it is slower."""

    ratio: float
    interval: tuple[float, float]
    confidence: float  # of the interval, for this one workload
    sessions: int


@dataclass(frozen=True)
class Finding:
    """The verdict on one workload and what it rests on. Effects are None where nothing could be measured."""

    change: Change
    effect: Effect | None = None
    control: Effect | None = None  # base against base in the same rounds; None: never under suspicion
    base_ns: float | None = None  # medians over all rounds
    other_ns: float | None = None
    way: str | None = None  # how a session's rounds became one difference
    log: str = ""  # of a failure


Measure = Callable[[str, int, bool], "list[Session] | Failure"]  # (workload, sessions, with control)


def decide(workloads: Sequence[str], measure: Measure) -> dict[str, Finding]:
    """Screen all, confirm the suspects on fresh sessions; what cannot be measured is a finding too."""
    count = sessions_of_screening(len(workloads))
    found: dict[str, Finding] = {}
    screened: dict[str, list[Session]] = {}
    for workload in workloads:
        taken = measure(workload, count, False)
        if isinstance(taken, Failure):
            found[workload] = _failed(taken)
        else:
            screened[workload] = taken
    found |= screen(screened)
    suspects = [name for name in screened if not _holds(found[name].effect, 1.0)]
    level = ALPHA / max(1, len(suspects))
    for workload in suspects:
        found[workload] = _settle(workload, measure, level)
    return {workload: found[workload] for workload in workloads}


def _settle(workload: str, measure: Measure, level: float) -> Finding:
    """The verdict on a suspect, from as many sessions as it takes and LOOKS allow."""
    first = sessions_of_confirming(level * LOOKS[0][1])
    sessions: list[Session] = []
    found = Finding(Change.NOISE)
    for times, part in LOOKS:
        taken = measure(workload, ceil(first * times) - len(sessions), True)
        if isinstance(taken, Failure):
            return _failed(taken)
        sessions += taken
        found = confirm(sessions, level * part)
        if found.change is not Change.NOISE or confirm(sessions, SCREENING).change is Change.NOISE:
            break
    return found


def sessions_of_screening(workloads: int) -> int:
    """How many sessions each of so many workloads gets first."""
    return max(LEAST_SESSIONS, min(MOST_SESSIONS, _SESSIONS // max(1, workloads)))


def sessions_of_confirming(level: float) -> int:
    """How many sessions can decide at this level: all to one side has chance 2 / 2ⁿ."""
    return ceil(log2(2 / level)) + SPARE


def _failed(failure: Failure) -> Finding:
    changes: dict[tuple[str, ...], Change] = {(OTHER,): Change.BROKEN, (BASE,): Change.MENDED}
    return Finding(changes.get(failure.sides, Change.FAILED), log=failure.log)


def _finding(change: Change, sessions: Sequence[Session], way: str, effect: Effect, control: Effect | None) -> Finding:
    base_ns, other_ns = (
        float(np.median([one[side].kernel_ns for session in sessions for one in session])) for side in (BASE, OTHER)
    )
    return Finding(change, effect, control, base_ns, other_ns, way)


# ---------------------------------------------------------------- screening


def screen(screened: Mapping[str, Sequence[Session]]) -> dict[str, Finding]:
    """Student's interval for each workload, all within noise as yet; one that leaves out 1 makes a suspect.

    Of three sessions alone nobody knows the spread. All workloads' typical one, and that of the anchors, counts beside
    a workload's own as so many more sessions would (a moderated t statistic: Smyth, Stat. Appl. Genet. Mol. Biol. 3,
    2004, with the prior's weight fixed).
    """
    ways = {name: best_way(sessions) for name, sessions in screened.items()}
    logs = {name: differences(sessions, OTHER, ways[name]) for name, sessions in screened.items()}
    still = [
        anchor_differences(sessions, anchor)
        for sessions in screened.values()
        for anchor in sessions[0][0][BASE].anchors_ns
    ]
    typical = typical_variance([*logs.values(), *still])
    return {
        name: _finding(Change.NOISE, screened[name], ways[name], student(values, typical), None)
        for name, values in logs.items()
    }


def typical_variance(groups: Sequence[Sequence[float]]) -> float:
    """The variance behind groups of a few values: their median, by what chance makes the median of so few too small."""
    found = [
        float(np.var(group, ddof=1)) * (len(group) - 1) / float(special.chdtri(len(group) - 1, 0.5))
        for group in groups
        if len(group) > 1
    ]
    return float(np.median(found)) if found else 0.0


def student(logs: Sequence[float], typical: float) -> Effect:
    """The mean of sessions and its interval, their variance moderated by what is typical."""
    own = len(logs) - 1
    variance = (_PRIOR * typical + own * (float(np.var(logs, ddof=1)) if own else 0.0)) / (_PRIOR + own)
    half = float(special.stdtrit(_PRIOR + own, 1 - SCREENING / 2)) * sqrt(variance / len(logs))
    middle = float(np.mean(logs))
    return Effect(exp(middle), (exp(middle - half), exp(middle + half)), 1 - SCREENING, len(logs))


# ---------------------------------------------------------------- confirming


def confirm(sessions: Sequence[Session], level: float) -> Finding:
    """The verdict from fresh sessions with a control: changed, if slower or faster than both processes of the base."""
    way = best_way(sessions)
    effect = signed_ranks(differences(sessions, OTHER, way), level)
    second = signed_ranks(differences(sessions, OTHER, way, against=CONTROL), level)
    control = signed_ranks(differences(sessions, CONTROL, way), level)
    change = Change.NOISE
    if min(effect.interval[0], second.interval[0]) > 1:
        change = Change.REGRESSED
    elif max(effect.interval[1], second.interval[1]) < 1:
        change = Change.IMPROVED
    return _finding(change, sessions, way, effect, control)


def signed_ranks(logs: Sequence[float], level: float) -> Effect:
    """The Hodges-Lehmann estimate and the interval that inverts Wilcoxon's signed-rank test at `level`, exactly.

    (Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 3rd ed., sections 3.2 and 3.3.) With too few
    sessions for the level the interval is the whole range, and `confidence` says what that is worth.
    """
    walsh = sorted((a + b) / 2 for a, b in combinations_with_replacement(logs, 2))
    tail = np.cumsum(_rank_sums(len(logs)))  # tail[k]: chance that the ranks of one sign sum to at most k
    cut = int(np.searchsorted(tail, level / 2, side="right"))  # how many Walsh averages each end can spare
    outside = 2 * float(tail[cut - 1]) if cut else 2 * float(tail[0])
    cut = max(1, cut)
    low, high = walsh[cut - 1], walsh[-cut]
    return Effect(exp(float(np.median(walsh))), (exp(low), exp(high)), 1 - outside, len(logs))


def _rank_sums(count: int) -> np.ndarray:
    """Chance of each sum of a random subset of 1…count."""
    chance = np.array([1.0])
    for rank in range(1, count + 1):
        chance = (np.pad(chance, (0, rank)) + np.pad(chance, (rank, 0))) / 2
    return chance


def _holds(effect: Effect | None, ratio: float) -> bool:
    return effect is not None and effect.interval[0] <= ratio <= effect.interval[1]
