"""What a paper's tables are measured on: one device, its probe, the documents that may have tuned entries for it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.bench import default_and_tuned
from harness.candidate import Candidate
from harness.contest import Contest, compete
from harness.devices import DeviceChoice
from harness.entrant import Contestant
from harness.errors import KilnError
from harness.measure import Meter
from harness.probe import Limit, ProbeResult, limit
from harness.tables import MISSING, percent_text
from harness.timing import Ratio, paired_ratio
from kernels.select import Level
from kernels.spec import Family, Measurement, Stats, Verdict, Workload
from kernels.tuned import TunedConfig

_UNITS = (("ns", 1.0), ("µs", 1e3), ("ms", 1e6), ("s", 1e9))


@dataclass(frozen=True)
class Ground:
    """A device that is ready."""

    meter: Meter
    choice: DeviceChoice
    probed: ProbeResult
    documents: Sequence[TunedConfig]
    compute: str  # arithmetic of the products: fp32, fp16

    def pair(self, workload: Workload) -> Pair:
        """The family's default and the tuned entry. Raises KilnError where the default is illegal on this device."""
        found = default_and_tuned(workload, self.choice, self.documents)
        if found is None:
            raise KilnError(
                f"{self.choice.slug} cannot run {workload.key}; python -m harness doctor says what it lacks"
            )
        (default, *tuned), chosen = found
        return Pair(default, tuned[0] if tuned else None, chosen.level)

    def race(self, candidates: Sequence[Candidate], rounds: int, budget_s: float) -> Contest:
        """All of them checked against NumPy, then timed interleaved; none leaves but who fails."""
        return compete(self.meter, candidates, self.probed, rounds=rounds, budget_s=budget_s)

    def limit(self, family: Family, workload: Workload, contest: Contest) -> Limit:
        """The least time that the rates of that contest's anchors allow."""
        return limit(family.cost(workload), contest.rates, workload.dtypes.compute, self.choice.sheet.cache_bytes)


@dataclass(frozen=True)
class Pair:
    """A workload's two configurations, and how near the tuned one's document is to this device."""

    default: Candidate
    tuned: Candidate | None
    level: Level


def ratio(base: Contestant, other: Contestant) -> Ratio | None:
    """How many times longer `other` takes, from the rounds they ran together; None where either failed."""
    one, two = base.measurement, other.measurement
    return paired_ratio(one.samples_ns, two.samples_ns) if one.stats and two.stats else None


# ---------------------------------------------------------------- for people and programs


def stats_text(stats: Stats) -> str:
    """A median and its interval in one unit: `1.21 (1.19 to 1.25) ms`."""
    unit, size = next((u for u in reversed(_UNITS) if stats.median_ns >= 0.9995 * u[1]), _UNITS[0])
    return f"{_spread(stats.median_ns / size, *(end / size for end in stats.interval_ns))} {unit}"


def _spread(middle: float, low: float, high: float) -> str:
    """Three digits each, more where there are more before the point."""
    one, two, three = (f"{value:.3g}" if value < 999.5 else f"{value:.0f}" for value in (middle, low, high))
    return f"{one} ({two} to {three})"


def time_cell(measurement: Measurement | None) -> str | None:
    """A time with its interval, the verdict of what failed, None for what was not asked."""
    if measurement is None:
        return None
    return stats_text(measurement.stats) if measurement.stats else str(measurement.verdict)


def ratio_text(found: Ratio | None) -> str | None:
    """A ratio and its interval: `35.2 (29.6 to 49)`."""
    return None if found is None else _spread(found.ratio, *found.interval)


def limit_text(percent: float | None, least: Limit) -> str:
    """How near a time comes to its limit, and what limits it."""
    return MISSING if percent is None else f"{percent_text(percent)} {least.limited_by}"


def wrapped(notes: Iterable[str]) -> list[str]:
    """Sentences under a table, none wider than a terminal."""
    return [textwrap.fill(note, 118, subsequent_indent="  ", break_on_hyphens=False) for note in notes]


def ratio_json(found: Ratio | None) -> Mapping[str, Any] | None:
    """A ratio for `--json`."""
    return None if found is None else {"median": found.ratio, "interval": list(found.interval)}


def measurement_json(contestant: Contestant | None) -> Mapping[str, Any] | None:
    """What ran, its verdict, times in ns, errors and conditions for `--json`."""
    if contestant is None:
        return None
    found = contestant.measurement
    stats, errors = found.stats, found.errors
    return {
        "configuration": str(contestant.candidate),
        "verdict": str(found.verdict),
        "log": found.log,
        "median_ns": stats.median_ns if stats else None,
        "interval_ns": list(stats.interval_ns) if stats else None,
        "rounds": stats.samples if stats else 0,
        "nmse": errors.nmse if errors else None,
        "nmse_limit": errors.limits.nmse if errors else None,
        "conditions": dict(found.conditions),
    }


def failures(contestants: Sequence[Contestant | None]) -> list[str]:
    """A sentence for each that failed."""
    return [
        f"{one.candidate} on {one.candidate.workload.key}: {found.verdict} {found.log[:200]}".rstrip()
        for one in contestants
        if one is not None and (found := one.measurement).verdict is not Verdict.OK
    ]
