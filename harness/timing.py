"""Pure functions over event samples: validity, device time, median with its interval, paired ratios, when to stop.

All times are nanoseconds. Nothing here talks to a device or draws a random number, so a result can be recomputed from
the journal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb

import numpy as np

from kernels.spec import Stats

LEAST_SAMPLES = 7  # below this a bootstrap of the median says little
HALF_WIDTH = 0.02  # an interval this narrow, relative to the median, ends sampling
TIE = 1.005  # within half a percent nobody would notice

Stamps = Sequence[int]  # queued, submit, start, end of one launch
Sample = Sequence[Stamps]  # the launches of one repetition, in order


@dataclass(frozen=True)
class Ratio:
    """How many times slower `other` is than `base`, from paired rounds: above 1 means that base is faster."""

    ratio: float
    interval: tuple[float, float]  # bootstrap 95 %, at least as wide as the sign test's

    @property
    def decided(self) -> bool:
        """Whether the interval leaves out 1, so that one of the two is faster."""
        return not self.interval[0] <= 1.0 <= self.interval[1]


def invalid(samples: Sequence[Sample]) -> str | None:
    """Why these stamps cannot be believed, or None.

    Drivers have been seen that report an end before the start, or stamps that were never written
    (darktable#21122); a time of exactly zero is a launch that did not run or a timer that cannot see it.
    """
    if not samples:
        return "no samples came back"
    for number, sample in enumerate(samples):
        if not sample:
            return f"sample {number} has no launches"
        for launch, (_, _, start, end) in enumerate(sample):
            where = f"sample {number}, launch {launch}"
            if start == 0 and end == 0:
                return f"{where}: the driver left the event's stamps untouched (start = end = 0)"
            if end < start:
                return f"{where}: the event ends {start - end} ns before it starts"
        if sample[-1][3] == sample[0][2]:
            return f"sample {number}: zero ns from first start to last end"
        if sample[-1][3] < sample[0][2]:
            return f"sample {number}: its last launch ends before its first starts"
    return None


def durations(samples: Sequence[Sample]) -> tuple[float, ...]:
    """Device time of each sample, ns: the first launch's start to the last launch's end, gaps between them included."""
    return tuple(float(sample[-1][3] - sample[0][2]) for sample in samples)


def launches(samples: Sequence[Sample]) -> tuple[float, ...]:
    """Median device time of each launch of a repetition alone, ns: what one dispatch keeps the device for."""
    spans = [[end - start for _, _, start, end in sample] for sample in samples]
    return tuple(map(float, np.median(spans, axis=0)))


@lru_cache(maxsize=512)
def _median_ranks(count: int) -> tuple[int, int]:
    """Which order statistics (from 0) bound the bootstrap 95 % interval of the median of `count` values.

    The bootstrap distribution of a median needs no resampling: the r-th smallest of a resample is at most the k-th
    smallest value exactly when at least r of its draws are among the k smallest, each with chance k/count (Efron, Ann.
    Statist. 7, 1979, section 3). For an even count the two middle values bound the median from below and from above.
    """
    draws = np.arange(1, count + 1)
    log_factorial = np.concatenate(([0.0], np.cumsum(np.log(draws))))
    log_choose = log_factorial[count] - log_factorial[draws] - log_factorial[count - draws]
    chance = np.minimum(draws / count, 1 - 1e-12)[:, None]  # one row per k; log(0) kept away
    exactly = np.exp(log_choose + draws * np.log(chance) + (count - draws) * np.log1p(-chance))
    at_least = np.cumsum(exactly[:, ::-1], axis=1)[:, ::-1]  # [k - 1, r - 1]: at least r draws among the k smallest
    low = int(np.argmax(at_least[:, (count + 1) // 2 - 1] >= 0.025))
    high = int(np.argmax(at_least[:, count // 2] >= 0.975))
    return low, high


@lru_cache(maxsize=512)
def _sign_ranks(count: int) -> tuple[int, int]:
    """Which order statistics bound the median of `count` values with a chance of 95 % or more, whatever they are.

    The median lies below the k-th smallest where fewer than k of `count` fair coins say so (David and Nagaraja, Order
    Statistics, 3rd ed., section 7.1). Below six values not even the whole range reaches 95 %.
    """
    below, rank = 0.5**count, 0  # chance that no value lies below the median
    while below + comb(count, rank + 1) * 0.5**count <= 0.025:
        rank += 1
        below += comb(count, rank) * 0.5**count
    return rank, count - 1 - rank


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = _median_ranks(values.size)
    ordered = np.sort(values)
    return float(ordered[low]), float(ordered[high])


def stats(times_ns: Sequence[float]) -> Stats:
    """Median and its bootstrap 95 % interval. Raises ValueError for no samples."""
    if not times_ns:
        raise ValueError("a median needs at least one sample")
    values = np.asarray(times_ns, dtype=np.float64)
    return Stats(median_ns=float(np.median(values)), interval_ns=_interval(values), samples=int(values.size))


def half_width(result: Stats) -> float:
    """Half the interval's width over the median."""
    low, high = result.interval_ns
    return (high - low) / 2 / result.median_ns


def paired_ratio(base_ns: Sequence[float], other_ns: Sequence[float]) -> Ratio:
    """Median over rounds of other/base with a bootstrap interval; pairing cancels drift that both rounds share.

    With few rounds a bootstrapped median's interval is too narrow (of seven it leaves the true one out one time in
    eight), and who wins hangs on it: it is widened to what the sign test asks for.

    Raises ValueError when the two are empty or not of one length.
    """
    if len(base_ns) != len(other_ns) or not base_ns:
        raise ValueError(f"paired rounds are needed, not {len(base_ns)} against {len(other_ns)}")
    ratios = np.asarray(other_ns, dtype=np.float64) / np.asarray(base_ns, dtype=np.float64)
    (low, high), (lowest, highest) = _median_ranks(ratios.size), _sign_ranks(ratios.size)
    ordered = np.sort(ratios)
    interval = (float(ordered[min(low, lowest)]), float(ordered[max(high, highest)]))
    return Ratio(float(np.median(ratios)), interval)


def drift(times_ns: Sequence[float]) -> float:
    """How much slower the last third of the samples is than the first, as a fraction; 0 for fewer than six samples."""
    third = len(times_ns) // 3
    if third < 2:
        return 0.0
    values = np.asarray(times_ns, dtype=np.float64)
    return float(np.median(values[-third:]) / np.median(values[:third]) - 1)


def throttled(times_ns: Sequence[float], clock_before_mhz: float | None, clock_after_mhz: float | None) -> bool:
    """Whether the device slowed down under this measurement.

    Two witnesses are asked for, since either alone errs on a busy host: the clock fell by more than a fifth, and the
    last samples are more than a tenth slower than the first. An unreadable clock (None) accuses nobody.
    """
    if not clock_before_mhz or not clock_after_mhz:
        return False
    return clock_after_mhz < 0.8 * clock_before_mhz and drift(times_ns) > 0.1


def timer_step(stamps: Sequence[int]) -> int | None:
    """Smallest difference seen between distinct stamps, ns: what the timer really resolves. None below two stamps."""
    values = np.unique(np.asarray(stamps, dtype=np.int64))
    return int(np.diff(values).min()) if values.size > 1 else None
