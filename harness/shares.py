"""What a profile's stamps add up to: time, share, gaps and part of the limit by family, the speed of whole steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, stdev

from harness.profile_nouns import Launched, Sample, StepProfile


@dataclass(frozen=True)
class Spread:
    """Mean over repeats and their standard deviation; None where there is one repeat only."""

    mean: float
    sd: float | None

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Of one value a repeat. Raises statistics.StatisticsError for none."""
        return Spread(fmean(values), stdev(values) if len(values) > 1 else None)

    @property
    def percent(self) -> float | None:
        """The deviation in percent of the mean."""
        return None if self.sd is None or not self.mean else 100 * self.sd / self.mean


@dataclass(frozen=True)
class Row:
    """What one family does in a step."""

    family: str
    launches: int
    time_ns: Spread  # its launches' START to END, added up
    share: float  # of all launches' time, 0 … 1
    gap_ns: Spread  # between the END of a launch before and the START of one of its own
    limit_ns: float  # the least that its calls can take
    limited_by: str  # by what most of that is

    @property
    def percent(self) -> float:
        """How near it comes to the limit; above 100 the probe is broken."""
        return 100 * self.limit_ns / self.time_ns.mean


@dataclass(frozen=True)
class Totals:
    """A whole step."""

    launches: int
    calls: int
    sum_ns: Spread  # of all launches, without what lies between them
    gap_ns: Spread
    overlaps: int  # launches, in all samples, that START before the END of the one before them
    span_ns: Spread  # first START to last END
    wall_ns: Spread  # enqueue to finish, on a queue without profiling
    limit_ns: float
    samples: int
    repeats: int
    steps_measured: int  # on the queue without profiling

    @property
    def percent(self) -> float:
        """How near the launches' sum comes to the limit."""
        return 100 * self.limit_ns / self.sum_ns.mean


def rows(profile: StepProfile) -> list[Row]:
    """A row for each family, the one that takes most first."""
    spent: dict[str, list[float]] = {}
    waited: dict[str, list[float]] = {}
    for repeat in _repeats(profile):
        times = _mean_by_family(profile, [_spans(sample) for sample in repeat])
        gaps = _mean_by_family(profile, [[max(0, gap) for gap in gaps_ns(sample)] for sample in repeat])
        for family, ns in times.items():
            spent.setdefault(family, []).append(ns)
            waited.setdefault(family, []).append(gaps[family])
    means = {family: fmean(times) for family, times in spent.items()}
    found = []
    for family, spent_ns in spent.items():
        own = [one for one in profile.launched if one.family == family]
        limits = [profile.limits[one.call.workload.key] for one in own if one.first]
        by: dict[str, float] = {}
        for limit in limits:
            by[limit.limited_by] = by.get(limit.limited_by, 0.0) + limit.ns
        found.append(
            Row(
                family,
                len(own),
                Spread.of(spent_ns),
                means[family] / sum(means.values()),
                Spread.of(waited[family]),
                sum(by.values()),
                max(by, key=lambda name: by[name]),
            )
        )
    return sorted(found, key=lambda row: -row.time_ns.mean)


def totals(profile: StepProfile) -> Totals:
    """The step as a whole."""
    repeats = _repeats(profile)

    def spread(ns: Callable[[Sample], float]) -> Spread:
        return Spread.of([fmean(map(ns, repeat)) for repeat in repeats])

    samples = profile.samples
    firsts: list[Launched] = [one for one in profile.launched if one.first]
    return Totals(
        launches=len(profile.launched),
        calls=len(firsts),
        sum_ns=spread(lambda sample: sum(_spans(sample))),
        gap_ns=spread(lambda sample: sum(max(0, gap) for gap in gaps_ns(sample))),
        overlaps=sum(gap < 0 for s in samples for gap in gaps_ns(s)),
        span_ns=spread(lambda sample: sample.stamps_ns[-1][3] - sample.stamps_ns[0][2]),
        wall_ns=Spread.of(list(map(float, profile.wall_ns))),
        limit_ns=sum(profile.limits[one.call.workload.key].ns for one in firsts),
        samples=len(samples),
        repeats=len(repeats),
        steps_measured=len(profile.wall_ns),
    )


def gaps_ns(sample: Sample) -> list[int]:
    """Per launch, from the END of the one before to its START; 0 for the first, negative where they overlap."""
    stamps = sample.stamps_ns
    return [0, *(later[2] - earlier[3] for earlier, later in pairwise(stamps))]


def _spans(sample: Sample) -> list[int]:
    return [end - start for _, _, start, end in sample.stamps_ns]


def _repeats(profile: StepProfile) -> list[list[Sample]]:
    numbers = sorted({sample.repeat for sample in profile.samples})
    return [[sample for sample in profile.samples if sample.repeat == number] for number in numbers]


def _mean_by_family(profile: StepProfile, values: Sequence[Sequence[float]]) -> dict[str, float]:
    """Values of each launch, added up by family and averaged over the samples."""
    return {family: fmean(sum(sample[i] for i in mine) for sample in values) for family, mine in _indices(profile)}


def _indices(profile: StepProfile) -> Iterator[tuple[str, list[int]]]:
    for family in dict.fromkeys(one.family for one in profile.launched):
        yield family, [i for i, one in enumerate(profile.launched) if one.family == family]
