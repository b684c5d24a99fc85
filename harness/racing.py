"""When more samples would tell nothing new: for a candidate in the search, and among the finalists of a contest.

In the search a candidate races against one number, the incumbent's median; in a contest candidates race in pairs, round
by round. All times are device times in nanoseconds. Only `sample` runs anything, through the functions it is given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb

from harness import timing
from harness.answers import Run
from harness.candidate import Candidate
from harness.timing import HALF_WIDTH, LEAST_SAMPLES, TIE, paired_ratio, stats
from kernels.spec import Verdict

ABANDON_ABOVE = 1.5  # times the incumbent: a slower candidate is given up after its first samples
NEAR = 1.15  # times the best: whoever is surely slower than that will not be in the finals, however slow exactly
MAX_SAMPLES = 400
_FIRST_SAMPLES = 3  # decide whether to abandon
_AT_ONCE = 3.0  # a first sample this many times above the bound needs no second opinion
_WARM_UP_NS = 50e6
_CHUNK_NS = 15e6  # wall time of one request for samples: far above its own cost, short enough to stop in time
_LEVEL = 1e-3  # chance at most that one look sends away a finalist that is as fast as the other
_FAR, _FAR_CHANCE = 1.05, 0.25  # a round sees a finalist so much slower than its equal one time in four at most


# ---------------------------------------------------------------- the search


@dataclass(frozen=True)
class Rival:
    """The incumbent: what a candidate must beat, and by what it was judged."""

    candidate: Candidate
    median_ns: float


@dataclass(frozen=True)
class Sampled:
    """Device times and why they do not count: ABANDONED, the reason they are invalid, or None where they do."""

    times_ns: tuple[float, ...]
    why: Verdict | str | None = None
    at_least_ns: float | None = None  # of an abandoned candidate, at the pace at which the incumbent was measured


def sample(
    run: Callable[[int, int | None], Run],
    budget_s: float,
    rival_ns: float | None = None,
    pace: Callable[[], float] = lambda: 1.0,
    clock: Callable[[], float] = time.monotonic,
) -> Sampled:
    """Time one candidate as precisely as its comparison with the incumbent's `rival_ns` needs, within `budget_s`.

    `run(samples, abort_above_ns)` takes samples. One that is hopeless costs three of them: where even the fastest is
    ABANDON_ABOVE times the incumbent, `pace()` times the incumbent again, right now, and says how many times slower
    than once it is; a slow spell of the device is nobody's fault. Raises what the two functions raise.
    """
    end = clock() + budget_s
    bound = None if rival_ns is None else ABANDON_ABOVE * rival_ns
    first = run(_FIRST_SAMPLES, None if bound is None else int(_AT_ONCE * bound))
    if why := timing.invalid(first.samples_ns):
        return Sampled((), why)
    times = list(timing.durations(first.samples_ns))
    if bound is not None and min(times) > bound:
        slower = 1.0 if min(times) > _AT_ONCE * bound else max(1.0, pace())
        if min(times) > bound * slower:
            return Sampled(tuple(times), Verdict.ABANDONED, min(times) / slower)
    wall_ns = first.wall_ns
    if sum(wall_ns) < _WARM_UP_NS:
        times = []  # these were the warm-up; of a slow candidate they are samples too, the check having warmed it
    while len(times) < MAX_SAMPLES and not settled(times, rival_ns):
        # One launch that takes longer than the budget, a long prefill's, averages over its own noise.
        least = LEAST_SAMPLES if sum(wall_ns) < budget_s * 1e9 else _FIRST_SAMPLES
        if clock() >= end and len(times) >= least:
            break
        # At least four a request; never so many that the budget is overrun by more than one request.
        more = run(max(4, min(64, round(_CHUNK_NS / max(1, *wall_ns)))), None)
        if why := timing.invalid(more.samples_ns):
            return Sampled(tuple(times), why)
        times += timing.durations(more.samples_ns)
        wall_ns = more.wall_ns
    return Sampled(tuple(times))


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
    that chance would do it less than once in a thousand, from ten rounds on; or so often by more than 5 % that chance
    would, from five rounds on.
    """
    base_ns, other_ns = common(base_ns, other_ns)
    if not base_ns or not paired_ratio(base_ns, other_ns).interval[0] > 1:
        return False
    ratios = [other / base for base, other in zip(base_ns, other_ns, strict=True)]
    return any(
        _tail(len(ratios), sum(ratio > margin for ratio in ratios), chance) <= _LEVEL
        for margin, chance in ((TIE, 0.5), (_FAR, _FAR_CHANCE))
    )


def _tail(rounds: int, at_least: int, chance: float) -> float:
    """Probability of so many successes or more in that many rounds."""
    return sum(comb(rounds, k) * chance**k * (1 - chance) ** (rounds - k) for k in range(at_least, rounds + 1))


def in_question(base_ns: Sequence[float], other_ns: Sequence[float]) -> bool:
    """Whether more rounds may tell two candidates apart: neither is surely slower, and they are not surely alike."""
    base_ns, other_ns = common(base_ns, other_ns)
    low, high = paired_ratio(base_ns, other_ns).interval
    alike = low >= 1 / TIE and high <= TIE
    return not alike and not beaten(base_ns, other_ns) and not beaten(other_ns, base_ns)
