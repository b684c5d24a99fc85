"""Clock, temperature, energy and the runner's own memory, each a number or the reason why there is none (never 0).

And how often the GPU was reset during a run: KGSL resets a GPU that hangs, and what ran may yet seem to end well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path

from harness.runner.server import Answer, Blobs, Handler

_CPUFREQ = Path("/sys/devices/system/cpu")
_THERMAL = Path("/sys/class/thermal")
_POWERCAP = Path("/sys/class/powercap")
_RESETS = Path("/sys/class/kgsl/kgsl-3d0/reset_count")  # since the driver was loaded
_CPU_ZONES = ("x86_pkg_temp", "cpu", "k10temp", "soc")  # a thermal zone of the processor begins like one of these


def read() -> dict[str, dict[str, float | str | None]]:
    """All sensors: {"values": {name: number or null}, "why": {name: reason where null}}."""
    values: dict[str, float | str | None] = {}
    why: dict[str, float | str | None] = {}
    for name, sensor in SENSORS.items():
        try:
            values[name] = sensor()
        except (OSError, ValueError) as error:
            values[name] = None
            why[name] = str(error)
    return {"values": values, "why": why}


def _cpu_clock_mhz() -> float:
    """Mean current clock over the cores, from cpufreq, else from /proc/cpuinfo."""
    files = sorted(_CPUFREQ.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    if files:
        return sum(int(f.read_text()) for f in files) / len(files) / 1000
    try:
        return cpuinfo_mhz(Path("/proc/cpuinfo").read_text())
    except ValueError as error:
        raise ValueError("neither cpufreq nor /proc/cpuinfo tells the clock") from error


def cpuinfo_mhz(text: str) -> float:
    """/proc/cpuinfo of x86: the mean of its "cpu MHz" lines. Raises ValueError where it has none."""
    clocks = [float(line.partition(":")[2]) for line in text.splitlines() if line.startswith("cpu MHz")]
    if not clocks:
        raise ValueError('no line "cpu MHz"')
    return sum(clocks) / len(clocks)


def _cpu_temperature_c() -> float:
    for zone in sorted(_THERMAL.glob("thermal_zone*")):
        if (zone / "type").read_text().strip().lower().startswith(_CPU_ZONES):
            return int((zone / "temp").read_text()) / 1000
    raise ValueError("no thermal zone of the processor in /sys/class/thermal")


def _rss_bytes() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ValueError("/proc/self/status has no VmRSS")


def _cpu_energy_j() -> float:
    """Energy that the processor has used since some past time, from the kernel's RAPL counters: one a package."""
    zones = [zone for zone in sorted(_POWERCAP.glob("intel-rapl:[0-9]*")) if zone.name.count(":") == 1]
    if not zones:
        raise ValueError("no energy counter (RAPL) in /sys/class/powercap")
    return sum(int((zone / "energy_uj").read_text()) for zone in zones) / 1e6


SENSORS: dict[str, Callable[[], float]] = {
    "cpu_clock_mhz": _cpu_clock_mhz,
    "cpu_temperature_c": _cpu_temperature_c,
    "cpu_energy_j": _cpu_energy_j,
    "rss_bytes": _rss_bytes,
}


def counting_resets(handler: Handler, count: Path = _RESETS) -> Handler:
    """The handler of `run`, its answer with `resets` where the count of a GPU's resets can be read."""

    @wraps(handler)
    def handle(frame: Mapping[str, object], blobs: Blobs) -> Answer:
        before = _resets(count)
        answer, out = handler(frame, blobs)
        after = _resets(count)
        return (answer if before is None or after is None else {**answer, "resets": after - before}), out

    return handle


def _resets(count: Path) -> int | None:
    try:
        return int(count.read_text())
    except (OSError, ValueError):
        return None
