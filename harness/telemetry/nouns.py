"""What telemetry is made of: signals, their series, phases, and a recording of them all with its JSON form.

All times are nanoseconds of the recording's `clock`: CLOCK_MONOTONIC of the machine that the harness runs on, also
where the signals were sampled on a device.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

FORMAT, VERSION = "kiln-telemetry", 1
CLOCK = "CLOCK_MONOTONIC of the host"
PHASES = ("load", "slice-encode", "prompt-eval", "token-eval")  # as the OnePlus 13R study divides a query

Over = Literal["instant", "interval"]


@dataclass(frozen=True)
class Signal:
    """One quantity, where it is read, and whether it could be."""

    name: str  # ends in its unit
    unit: str
    path: str  # or the command
    period_ms: float
    available: bool
    why: str | None = None  # it is not (any more), null where it is
    over: Over = "instant"  # interval: a value tells the time from the value before it up to its own
    note: str | None = None  # what was taken for granted


@dataclass(frozen=True)
class Series:
    """A signal's values, in the order of time."""

    t_ns: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Phase:
    """A part of a query; `repeat` counts the queries."""

    name: str
    repeat: int
    start_ns: int
    end_ns: int


@dataclass(frozen=True)
class Spread:
    """A signal in a phase: each repeat's mean, then mean and standard deviation of these."""

    mean: float
    sd: float | None  # null for one repeat
    repeats: int


@dataclass(frozen=True)
class Recording:
    """What was sampled from `start_ns` to `end_ns`. A signal that failed midway has a series and is not available."""

    platform: str
    start_ns: int
    end_ns: int
    signals: tuple[Signal, ...]
    series: Mapping[str, Series]
    phases: tuple[Phase, ...]
    summary: Mapping[str, Mapping[str, Spread]]  # phase → signal
    sampler_percent: float | None  # of one core of the machine that samples
    sampler_why: str | None
    energy: Mapping[str, Any] | None
    energy_why: str | None
    clock: str = CLOCK
    clock_uncertainty_ns: int | None = None  # of a device's clock against the host's; null where they are one clock
    notes: tuple[str, ...] = ()

    def signal(self, name: str) -> Signal | None:
        """A signal by its name."""
        return next((signal for signal in self.signals if signal.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """The file format, as plain data."""
        sampler = {"cpu_percent_of_one_core": self.sampler_percent}
        return {
            "format": FORMAT,
            "version": VERSION,
            "clock": self.clock,
            "clock_uncertainty_ns": self.clock_uncertainty_ns,
            "start_ns": self.start_ns,
            "end_ns": self.end_ns,
            "platform": self.platform,
            "signals": [asdict(signal) for signal in self.signals],
            "series": {k: {"t_ns": list(s.t_ns), "values": list(s.values)} for k, s in self.series.items()},
            "phases": [asdict(phase) for phase in self.phases],
            "summary": {
                phase: {signal: asdict(spread) for signal, spread in spreads.items()}
                for phase, spreads in self.summary.items()
            },
            "sampler": sampler if self.sampler_why is None else {**sampler, "why": self.sampler_why},
            "energy": None if self.energy is None else dict(self.energy),
            "energy_why": self.energy_why,
            "notes": list(self.notes),
        }


def from_json(data: Any) -> Recording:
    """A recording from its plain data. Raises ValueError that says what is wrong."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f'its "format" is not "{FORMAT}"')
    if data.get("version") != VERSION:
        raise ValueError(f"it has version {data.get('version')!r}; this program reads version {VERSION}")
    try:
        return Recording(
            platform=data["platform"],
            start_ns=data["start_ns"],
            end_ns=data["end_ns"],
            signals=tuple(Signal(**signal) for signal in data["signals"]),
            series={name: _series(name, s) for name, s in data["series"].items()},
            phases=tuple(Phase(**phase) for phase in data["phases"]),
            summary={
                phase: {signal: Spread(**spread) for signal, spread in spreads.items()}
                for phase, spreads in data["summary"].items()
            },
            sampler_percent=data["sampler"]["cpu_percent_of_one_core"],
            sampler_why=data["sampler"].get("why"),
            energy=data["energy"],
            energy_why=data["energy_why"],
            clock=data["clock"],
            clock_uncertainty_ns=data.get("clock_uncertainty_ns"),
            notes=tuple(data.get("notes", ())),
        )
    except KeyError as error:
        raise ValueError(f"it has no {error.args[0]!r}") from error
    except (TypeError, AttributeError) as error:
        raise ValueError(f"a part of it is of the wrong kind ({error})") from error


def _series(name: str, data: Mapping[str, Any]) -> Series:
    series = Series(tuple(data["t_ns"]), tuple(data["values"]))
    if len(series.t_ns) != len(series.values):
        raise ValueError(f"{name} has {len(series.t_ns)} times and {len(series.values)} values")
    return series


def load(path: Path | str) -> Recording:
    """A recording from a file. Raises OSError, and ValueError with a sentence for a file that is none."""
    text = Path(path).read_text("utf-8")
    try:
        return from_json(json.loads(text))
    except ValueError as error:
        raise ValueError(f"{path} is no recording of telemetry: {error}") from error
