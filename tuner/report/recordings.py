"""Telemetry recordings (`python -m harness telemetry`) as a report needs them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import KilnError

FORMAT, VERSION = "kiln-telemetry", 1


@dataclass(frozen=True)
class Signal:
    """One thing that was read, or was not."""

    name: str
    unit: str
    why: str | None  # it is not available; None: it is
    t_s: tuple[float, ...] = ()  # since the recording's start
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Span:
    """One phase, in seconds since the recording's start."""

    name: str
    repeat: int
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Recording:
    """Signals and phases on one clock."""

    platform: str
    seconds: float
    signals: tuple[Signal, ...]
    spans: tuple[Span, ...]
    summary: Mapping[str, Mapping[str, Mapping[str, Any]]]  # phase → signal → mean, sd, repeats
    sampler_percent: float | None  # of one core
    energy_why: str | None


def load(path: Path) -> Recording:
    """Read a recording. Raises KilnError naming the file where it is damaged or newer than this reader."""
    try:
        told = json.loads(path.read_bytes())
        if told["version"] > VERSION:
            raise KilnError(f"{path} was recorded by a newer Kiln; upgrade to read it")
        start, end = int(told["start_ns"]), int(told["end_ns"])
        return Recording(
            platform=str(told["platform"]),
            seconds=(end - start) / 1e9,
            signals=tuple(_signal(one, told["series"], start) for one in told["signals"]),
            spans=tuple(
                Span(str(p["name"]), int(p["repeat"]), (p["start_ns"] - start) / 1e9, (p["end_ns"] - start) / 1e9)
                for p in told.get("phases", ())
            ),
            summary={str(p): {str(s): dict(v) for s, v in of.items()} for p, of in told.get("summary", {}).items()},
            sampler_percent=told.get("sampler", {}).get("cpu_percent_of_one_core"),
            energy_why=told.get("energy_why"),
        )
    except OSError as error:
        raise KilnError(f"{path} cannot be read: {error.strerror}; check its permissions") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise KilnError(f"{path} is a damaged telemetry recording ({error!r:.80}); record it again") from error


def _signal(told: Mapping[str, Any], series: Mapping[str, Any], start: int) -> Signal:
    name, unit = str(told["name"]), str(told.get("unit") or "")
    if not told["available"]:
        return Signal(name, unit, str(told.get("why") or "the recording does not say why"))
    t_ns, values = series[name]["t_ns"], series[name]["values"]
    if len(t_ns) != len(values):
        raise ValueError(f"{name} has {len(t_ns)} stamps for {len(values)} values")
    return Signal(name, unit, None, tuple((t - start) / 1e9 for t in t_ns), tuple(map(float, values)))
