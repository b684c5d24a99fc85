"""From the text of a source to a number: gauges tell it at once, meters by what changed between two readings.

Every parser raises ValueError for a text that is not what it knows. None means that the source had nothing to tell at
that moment. What several lines hold (dumpsys, MediaTek's status) is read in `dumps`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite

from harness.runner.sensors import cpuinfo_mhz
from harness.telemetry import dumps

Reading = tuple[float, ...]


@dataclass(frozen=True)
class Meter:
    """A source that counts up."""

    read: Callable[[str], Reading]
    # (earlier, later, seconds between, the source's constant) → the value of that time, None where nothing counted
    between: Callable[[Reading, Reading, float, Reading], float | None]


def number(text: str) -> float:
    """A number alone."""
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"{_shown(text)} is no number")
    return value


def percent(text: str) -> float:
    """A percentage: "37", "37 %", "37%", devfreq's "37@300000000Hz"; of more numbers (MediaTek's GED) the first."""
    match = re.match(r"\s*(\d+(?:\.\d+)?)\s*(?:%|@\d+Hz)?(?:\s|$)", text)
    value = float(match[1]) if match else -1.0
    if not 0 <= value <= 100:
        raise ValueError(f"{_shown(text)} is no percentage")
    return value


def clock_mhz(text: str) -> float:
    """A clock in Hz, kHz or MHz, as drivers please: no GPU or core runs below 10 MHz or above 10 GHz. 0 is off."""
    value = float(text.split()[-1]) if text.split() else float("nan")  # GED tells "index frequency"
    for unit in (1e6, 1e3, 1.0):
        if 10 <= value / unit < 10_000:
            return value / unit
    if value == 0:
        return 0.0
    raise ValueError(f"{_shown(text)} is no clock")


def temperature_c(text: str) -> float:
    """Degrees or thousandths of them: thermal zones tell the latter typically. An empty sensor's -273 °C is refused."""
    value = number(text)
    value = value / 1000 if abs(value) >= 1000 else value
    if not -40 <= value <= 150:
        raise ValueError(f"{_shown(text)} is no temperature")
    return value


def memory_used_mb(text: str) -> float:
    """/proc/meminfo: MemTotal − MemAvailable, in 10⁶ bytes."""
    fields = {name: float(kib) for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    if not {"MemTotal", "MemAvailable"} <= set(fields):
        raise ValueError("no MemTotal and MemAvailable")
    return (fields["MemTotal"] - fields["MemAvailable"]) * 1024 / 1e6


def busy_total(text: str) -> float | None:
    """KGSL's gpubusy: "busy total" in µs of its last second, "0 0" where none was completed since it was read."""
    busy, total = (float(part) for part in text.split())
    if not 0 <= busy <= total:
        raise ValueError(f"{_shown(text)}: more busy than there was time")
    return 100 * busy / total if total else None


def volts(text: str) -> float:
    """A battery's voltage in V, told in µV or mV: none of a phone or laptop has less than 1 or more than 100 V."""
    value = abs(number(text))
    for unit in (1e6, 1e3):
        if 1 <= value / unit < 100:
            return value / unit
    raise ValueError(f"{_shown(text)} is no voltage of a battery")


def discharging(text: str) -> float:
    """power_supply's status: 1 for Discharging, 0 for Charging, Full or "Not charging" (on a cable, held)."""
    word = text.strip().lower()
    if word not in ("discharging", "charging", "full", "not charging"):
        raise ValueError(f"the status is {_shown(text)}")
    return float(word == "discharging")


# ---------------------------------------------------------------- meters


def _stat(text: str) -> Reading:
    """/proc/stat: (busy, all, cores online), in jiffies. iowait and steal are not work of this machine's."""
    lines = [line.split() for line in text.splitlines() if line.startswith("cpu")]
    if not lines or lines[0][0] != "cpu" or len(lines[0]) < 6:
        raise ValueError('no line "cpu"')
    times = [float(part) for part in lines[0][1:9]]  # guest time is in user time already
    idle = times[3] + times[4] + (times[7] if len(times) > 7 else 0.0)
    return sum(times) - idle, sum(times), float(len(lines) - 1)


def _cpu_percent(old: Reading, new: Reading, seconds: float, constant: Reading) -> float | None:
    passed = new[1] - old[1]
    return 100 * new[2] * max(0.0, new[0] - old[0]) / passed if passed > 0 else None


def _numbers(text: str) -> Reading:
    found = tuple(map(number, text.split()))
    if not found:
        raise ValueError("it is empty")
    return found


def _grown(old: Reading, new: Reading) -> list[float] | None:
    """What was added to each counter; None if one went back (the driver was loaded anew)."""
    grown = [b - a for a, b in zip(old, new, strict=False)]
    return None if len(old) != len(new) or min(grown) < 0 else grown


def _busy_clock_mhz(old: Reading, new: Reading, seconds: float, constant: Reading) -> float | None:
    """KGSL's gpu_clock_stats: µs busy at each power level; the constant has their clocks in Hz."""
    if len(new) != len(constant):
        raise ValueError(f"{len(new)} power levels and {len(constant)} clocks")
    grown = _grown(old, new)
    if grown is None or not sum(grown):
        return None
    return sum(us * hz for us, hz in zip(grown, constant, strict=True)) / sum(grown) / 1e6


def _busy_percent(old: Reading, new: Reading, seconds: float, constant: Reading) -> float | None:
    grown = _grown(old, new)
    return None if grown is None or seconds <= 0 else min(100.0, sum(grown) / (seconds * 1e6) * 100)


def _watts(old: Reading, new: Reading, seconds: float, constant: Reading) -> float | None:
    """An energy counter in µJ that starts again at the constant (RAPL's max_energy_range_uj)."""
    grown = new[0] - old[0] + (constant[0] if new[0] < old[0] else 0.0)
    return grown / 1e6 / seconds if seconds > 0 and grown >= 0 else None


def _shown(text: str) -> str:
    return repr(text.strip()[:40])


def numbers(text: str) -> Sequence[float]:
    """All of a text's numbers: what a source's constant file holds. Raises ValueError."""
    return _numbers(text)


GAUGES: dict[str, Callable[[str], float | None]] = {
    "number": number,
    "percent": percent,
    "clock": clock_mhz,
    "temperature": temperature_c,
    "cpuinfo": cpuinfo_mhz,
    "meminfo": memory_used_mb,
    "busy_total": busy_total,
    "voltage": volts,
    "discharging": discharging,
    **dumps.GAUGES,
}
METERS: dict[str, Meter] = {
    "stat": Meter(_stat, _cpu_percent),
    "clock_stats_mhz": Meter(_numbers, _busy_clock_mhz),
    "clock_stats_busy": Meter(_numbers, _busy_percent),
    "energy_uj": Meter(_numbers, _watts),
}
