"""When more samples would tell nothing new: for a candidate in the search, and among the finalists of a contest.

In the search a candidate races against one number, the incumbent's median; in a contest candidates race in pairs, round
by round. All times are device times in nanoseconds. Only `sample` runs anything, through the functions it is given.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb
from typing import TypeVar

from harness import timing
from harness.answers import Refused, Run
from harness.candidate import Candidate
from harness.timing import HALF_WIDTH, LEAST_SAMPLES, TIE, paired_ratio, stats
from kernels.spec import Verdict

K = TypeVar("K", bound=Hashable)

ABANDON_ABOVE = 1.5  # times the incumbent: a slower candidate is given up after its first samples
NEAR = 1.15  # times the best: whoever is surely slower than that will not be in the finals, however slow exactly
MAX_SAMPLES = 400
_FIRST_SAMPLES = 3  # decide whether to abandon
_AT_ONCE = 3.0  # a first sample this many times above the bound needs no second opinion
_WARM_UP_NS = 50e6
_CHUNK_NS = 15e6  # wall time of one request for samples: far above its own cost, short enough to stop in time
_ROUND_NS = 5e6  # of a candidate, and of the reference, in a round, within the two bounds below
_ROUND_LEAST, _ROUND_MOST = 3, 25
_SLOW_NS = 20e6  # a launch this long needs no warm-up and no second: it averages over its own noise
_LEVEL = 1e-3  # chance at most that one look sends away a finalist that is as fast as the other
# A round sees a finalist so much slower than its equal one time in four at most: one in seven was seen, of 178 rounds
# of a GEMV's finals on two cores that others kept busy (PoCL, Zen 5).
_FAR, _FAR_CHANCE = 1.1, 0.25
DECISIVE = 10  # rounds from which the sign test can decide at that level


# ---------------------------------------------------------------- the search


@dataclass(frozen=True)
class Rival:
    """What a candidate is compared with: a reference that tells the device's pace, and the best so far.

    The reference is the study's first candidate and stays it. Would each incumbent be the next one's, whoever was lucky
    would pass its luck on: on a device with fast spells times fell to a third within sixteen trials.
    """

    reference: Candidate
    reference_ns: float  # its median when it was measured: the study's pace
    best_ns: float  # the incumbent's, at that pace


@dataclass(frozen=True)
class Beside:
    """A rival whose reference is ready to run."""

    run: Callable[[int, int], Run]  # (warm-up, samples) of the reference
    reference_ns: float
    best_ns: float

    def pace(self) -> float:
        """How many times slower the device is now than the study's pace; 1 where the reference tells nothing."""
        slow = self.reference_ns > _SLOW_NS
        count = 1 if slow else max(_ROUND_LEAST, min(_ROUND_MOST, round(_ROUND_NS / self.reference_ns)))
        try:
            found = self.run(0 if slow else 1, count)
        except Refused:  # as where its copies do not fit beside the candidate's
            return 1.0
        if timing.invalid(found.samples_ns):
            return 1.0
        return statistics.median(timing.durations(found.samples_ns)) / self.reference_ns


@dataclass(frozen=True)
class Sampled:
    """Device times and why they do not count: ABANDONED, the reason they are invalid, or None where they do."""

    times_ns: tuple[float, ...]
    why: Verdict | str | None = None
    pace: float = 1.0  # their median over what it would be at the study's pace


def sample(
    run: Callable[[int, int | None], Run],
    budget_s: float,
    beside: Beside | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Sampled:
    """Time one candidate as precisely as its comparison with the incumbent needs, within `budget_s`.

    `run(samples, abort_above_ns)` takes samples. One that is hopeless costs three of them: even the fastest is
    ABANDON_ABOVE times the incumbent. Of any other, each few samples are followed by some of the reference: a GPU's
    clock and a busy host's memory change by half within a study, and whoever was measured in another spell than the
    incumbent would be judged by the spell. Raises what the two runs raise.
    """
    end = clock() + budget_s
    pace = beside.pace() if beside else 1.0
    bound = ABANDON_ABOVE * beside.best_ns * max(1.0, pace) if beside else None
    first = run(_FIRST_SAMPLES, None if bound is None else int(_AT_ONCE * bound))
    if why := timing.invalid(first.samples_ns):
        return Sampled((), why)
    times = list(timing.durations(first.samples_ns))
    if bound is not None and min(times) > bound:
        return Sampled(tuple(times), Verdict.ABANDONED, max(1.0, pace))
    wall_ns = first.wall_ns
    slow = sum(wall_ns) >= _WARM_UP_NS  # then these are samples too, the check having warmed it; else the warm-up
    costs = [statistics.median(times) / pace] if slow else []  # at the study's pace, one a round
    times = times if slow else []
    best_ns = beside.best_ns if beside else None
    while len(times) < MAX_SAMPLES and not settled(costs if beside else times, best_ns):
        # One launch that takes longer than the budget, a long prefill's, averages over its own noise.
        least = LEAST_SAMPLES if sum(wall_ns) < budget_s * 1e9 else _FIRST_SAMPLES
        if clock() >= end and len(times) >= least:
            break
        more = run(_count(max(1, *wall_ns), beside is not None, slow), None)
        if why := timing.invalid(more.samples_ns):
            return Sampled(tuple(times), why)
        taken = timing.durations(more.samples_ns)
        times += taken
        wall_ns = more.wall_ns
        costs.append(statistics.median(taken) / (beside.pace() if beside else 1.0))
    pace = statistics.median(times) / statistics.median(costs) if beside else 1.0
    return Sampled(tuple(times), None, pace)


def _count(wall_ns: float, paired: bool, slow: bool) -> int:
    """Samples of one request: of a round beside the reference; or enough that asking costs little, and few enough that
    the budget is overrun by one request at most."""
    if paired:
        return max(1 if slow else _ROUND_LEAST, min(_ROUND_MOST, round(_ROUND_NS / wall_ns)))
    return max(4, min(64, round(_CHUNK_NS / wall_ns)))


def settled(times_ns: Sequence[float], rival_ns: float | None = None) -> bool:
    """Whether more samples would not change what a search does next.

    Without an incumbent: the interval is within ±HALF_WIDTH of the median. With one, a candidate far behind it is done
    with LEAST_SAMPLES; one near it goes on until the interval leaves out the incumbent's median, or lies within half a
    percent of it, where nobody would notice.
    """
    if len(times_ns) < LEAST_SAMPLES:
        return False
    found = stats(times_ns)
    low, high = found.interval_ns
    if rival_ns is None:
        return timing.half_width(found) <= HALF_WIDTH
    if low > NEAR * rival_ns:
        return True
    apart = low > rival_ns or high < rival_ns
    alike = rival_ns / TIE <= low and high <= rival_ns * TIE
    return alike or (apart and timing.half_width(found) <= HALF_WIDTH)


# ---------------------------------------------------------------- a contest


def common(base_ns: Sequence[float], other_ns: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """The rounds that two candidates ran together: whoever leaves a contest has the first ones only."""
    rounds = min(len(base_ns), len(other_ns))
    return base_ns[:rounds], other_ns[:rounds]


def beaten(base_ns: Sequence[float], other_ns: Sequence[float]) -> bool:
    """Whether `other` is surely slower than `base` by more than TIE, from the rounds they ran together.

    A sign test at a level that bears a look after every round, as the usual 95 % does not: slower in so many rounds
    that chance would do it less than once in a thousand, from ten rounds on; or so often by more than 10 % that chance
    would, from five rounds on.
    """
    base_ns, other_ns = common(base_ns, other_ns)
    ratios = [other / base for base, other in zip(base_ns, other_ns, strict=True)]
    often = any(
        _tail(len(ratios), sum(ratio > margin for ratio in ratios), chance) <= _LEVEL
        for margin, chance in ((TIE, 0.5), (_FAR, _FAR_CHANCE))
    )
    return often and paired_ratio(base_ns, other_ns).interval[0] > 1


@lru_cache(maxsize=4096)
def _tail(rounds: int, at_least: int, chance: float) -> float:
    """Probability of so many successes or more in that many rounds."""
    return sum(comb(rounds, k) * chance**k * (1 - chance) ** (rounds - k) for k in range(at_least, rounds + 1))


def leavers(rounds_ns: Mapping[K, Sequence[float]], stay: Collection[K]) -> list[K]:
    """Of candidates that ran the same rounds, those that are surely beaten by one who is not; `stay` never leave."""
    slowest_first = sorted(rounds_ns, key=lambda one: -statistics.median(rounds_ns[one]))
    left: list[K] = []
    for one in (each for each in slowest_first if each not in stay):
        if any(beaten(rounds_ns[other], rounds_ns[one]) for other in rounds_ns if other not in left):
            left.append(one)
    return left


def still_open(rounds_ns: Sequence[Sequence[float]]) -> bool:
    """Whether more rounds may change who of these candidates is the fastest."""
    fastest = min(rounds_ns, key=statistics.median, default=())
    return any(in_question(fastest, other) for other in rounds_ns if other is not fastest)


def in_question(base_ns: Sequence[float], other_ns: Sequence[float]) -> bool:
    """Whether more rounds may tell two candidates apart: neither is surely slower, and they are not surely alike."""
    base_ns, other_ns = common(base_ns, other_ns)
    low, high = paired_ratio(base_ns, other_ns).interval
    alike = low >= 1 / TIE and high <= TIE
    return not alike and not beaten(base_ns, other_ns) and not beaten(other_ns, base_ns)
