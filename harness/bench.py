"""`python -m harness bench`: every workload of a model, the default's and the tuned time beside the device's own limit.

The default, the tuned configuration and the anchors that the limit comes from run interleaved; NumPy runs right after
them, in the same process group, on the same machine. The tuned configuration is what `select` gives an engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import kernels
from harness.candidate import Candidate
from harness.contest import compete
from harness.devices import DeviceChoice
from harness.measure import Meter
from harness.probe import Limit, ProbeResult, broken, limit
from harness.tables import MISSING, percent_text, table, time_text
from harness.timing import LEAST_SAMPLES
from kernels.identity import identify
from kernels.plan import Planned
from kernels.select import Level, Selection, select
from kernels.space import Space
from kernels.spec import Config, Measurement, Verdict, Workload
from kernels.tuned import Entry, TunedConfig

BUDGET_S = 2.0  # of rounds per workload; LEAST_SAMPLES of them in any case
_NUMPY_S = 1.0  # of repeating NumPy's call
HEADERS = ("family", "workload", "stored", "default", "tuned", "% of limit", "limited by", "NumPy", "from")


@dataclass(frozen=True)
class Line:
    """One workload's times. A configuration that failed has a verdict and no time."""

    workload: Workload
    default: Measurement
    tuned: Measurement | None  # None: no document has an entry for it
    level: Level  # how near the entry's document is to this device
    entry: str  # its id
    least: Limit
    numpy_ns: float | None

    @property
    def best(self) -> Measurement:
        """What an engine would run."""
        return self.tuned or self.default

    @property
    def failed(self) -> bool:
        """Whether the default or the tuned configuration has no time."""
        return any(one is not None and one.stats is None for one in (self.default, self.tuned))

    @property
    def percent(self) -> float | None:
        """How near the best comes to the limit."""
        return self.least.percent(self.best.stats.median_ns) if self.best.stats else None


def documents(choice: DeviceChoice) -> list[Path]:
    """This device's own tuned config where there is one, then the committed ones; `select` takes the nearest."""
    own = Path("results") / "local" / f"{choice.slug}.json"
    return [path for path in (own, *sorted(Path("results").glob("*.json"))) if path.exists()]


def lines(
    meter: Meter, choice: DeviceChoice, probed: ProbeResult, planned: Sequence[Planned], tuned: Sequence[TunedConfig]
) -> Iterator[Line]:
    """Measure one workload after the other; each line is ready when its workload is."""
    for item in planned:
        workload = item.workload
        family = kernels.families()[workload.family]
        pair = default_and_tuned(workload, choice, tuned)
        if pair is None:
            continue
        candidates, chosen = pair
        contest = compete(meter, candidates, probed, rounds=2 * LEAST_SAMPLES, budget_s=BUDGET_S)
        measured = [one.measurement for one in contest.contestants]
        yield Line(
            workload,
            measured[0],
            measured[1] if len(measured) > 1 else None,
            chosen.level,
            chosen.entry.id,
            limit(family.cost(workload), contest.rates, workload.dtypes.compute, choice.sheet.cache_bytes),
            numpy_ns(family.numpy(workload)) if family.numpy else None,
        )


def default_and_tuned(
    workload: Workload, choice: DeviceChoice, tuned: Sequence[TunedConfig]
) -> tuple[list[Candidate], Selection] | None:
    """The family's default, then what `select` gives an engine of these documents where that is another's entry.

    None where the default is not legal on this device.
    """
    family = kernels.families()[workload.family]
    default = family.default(workload, choice.sheet)
    if Space(family, workload, choice.sheet).reject(default):
        return None
    chosen = select(tuned, workload, identify(choice.description, choice.sheet), family)
    candidates = [Candidate(family, workload, default)]
    if chosen.level is not Level.BUILT_IN:
        candidates.append(of_entry(workload, chosen.entry))
    return candidates, chosen


def of_entry(workload: Workload, entry: Entry) -> Candidate:
    """An entry as a candidate; the driver chooses the work-group where the entry leaves it to the driver."""
    config: Config = entry.config
    free = all(launch.local is None for launch in entry.launches)
    return Candidate(kernels.families()[workload.family], workload, config, driver_local=free)


def numpy_ns(call: Callable[[], object]) -> float:
    """Median wall time of NumPy's own way, ns, the first call left out where there is time for a second."""
    times: list[float] = []
    end = time.monotonic() + _NUMPY_S
    while len(times) < 2 or (time.monotonic() < end and len(times) < 30):
        start = time.perf_counter_ns()
        call()
        times.append(float(time.perf_counter_ns() - start))
        if times[0] > _NUMPY_S * 1e9:
            break
    return float(np.median(times[1:] or times))


def row(line: Line) -> tuple[str | None, ...]:
    """A line of the table for people."""
    workload = line.workload
    sizes = " ".join(f"{dim}={size}" for dim, size in workload.dims.items())
    return (
        workload.family,
        f"{workload.label.partition(' ')[2] or workload.label}  {sizes}",
        workload.weights or workload.dtypes.cache or workload.dtypes.act,
        _time(line.default),
        _time(line.tuned) if line.tuned else None,
        percent_text(line.percent),
        line.least.limited_by,
        time_text(line.numpy_ns),
        str(line.level),
    )


def _time(measurement: Measurement) -> str:
    return time_text(measurement.stats.median_ns) if measurement.stats else str(measurement.verdict)


def text(choice: DeviceChoice, found: Sequence[Line]) -> str:
    """The table, and a sentence for every failure and for what is missing."""
    notes = [f"{choice.slug}: {choice.description['name']} ({choice.description['platform_name']})"]
    notes.append(table(HEADERS, [row(line) for line in found]))
    for line in found:
        for measurement in (line.default, line.tuned):
            if measurement and measurement.verdict is not Verdict.OK:
                notes.append(f"{line.workload.key}: {measurement.verdict} {measurement.log[:200]}".rstrip())
        if line.percent is not None and (beyond := broken(line.percent)):
            notes.append(f"{line.workload.key}: {beyond}")
    if all(line.tuned is None for line in found):
        notes.append(f'"tuned" is {MISSING}: no document for this device; python -m tuner --device … makes one')
    return "\n".join(notes)


def to_json(choice: DeviceChoice, found: Sequence[Line]) -> dict[str, Any]:
    """For `--json`: times in ns."""

    def stats(measurement: Measurement | None) -> Mapping[str, Any] | None:
        if measurement is None:
            return None
        known = measurement.stats
        times = {"median_ns": known.median_ns, "interval_ns": list(known.interval_ns)} if known else {}
        return {"verdict": str(measurement.verdict), **times, "conditions": dict(measurement.conditions)}

    return {
        "device": choice.slug,
        "description": dict(choice.description),
        "lines": [
            {
                "workload": line.workload.key,
                "label": line.workload.label,
                "default": stats(line.default),
                "tuned": stats(line.tuned),
                "level": str(line.level),
                "entry": line.entry,
                "limit_ns": line.least.ns,
                "limited_by": line.least.limited_by,
                "percent_of_limit": line.percent,
                "numpy_ns": line.numpy_ns,
            }
            for line in found
        ],
    }
