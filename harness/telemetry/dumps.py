"""Parsers of texts with many lines: `dumpsys battery`, `dumpsys thermalservice`, MediaTek's gpufreqv2 status."""

from __future__ import annotations

import re
from collections.abc import Callable

_NO_READING_C = -50.0  # sensors that are not there tell -99.9 or so
_CPU, _GPU = 0, 1  # TemperatureType of Android's thermal HAL 2.0


def _field(text: str, name: str) -> str:
    """A value of `dumpsys battery`, whose lines are "  name: value"."""
    match = re.search(rf"^\s*{name}:\s*(\S+)\s*$", text, re.MULTILINE | re.IGNORECASE)
    if not match:
        raise ValueError(f'no line "{name}:"')
    return match[1]


def battery_voltage_v(text: str) -> float:
    """`dumpsys battery`: "voltage" in mV, in µV on some."""
    value = float(_field(text, "voltage"))
    for unit in (1e6, 1e3):
        if 1 <= value / unit < 100:
            return value / unit
    raise ValueError(f"a voltage of {value:g}")


def battery_current(text: str) -> float:
    """`dumpsys battery`: "current now", which stock Android leaves out; its scale and sign vary as the file's do."""
    return float(_field(text, "current now"))


def battery_discharging(text: str) -> float:
    """`dumpsys battery`: 1 where no cable powers it and its status is 3 (discharging), else 0."""
    if re.search(r"UPDATES STOPPED", text):
        raise ValueError("its updates are stopped: `adb shell dumpsys battery reset` lets them go on")
    powered = re.findall(r"^\s*\w+ powered:\s*(true|false)", text, re.MULTILINE)
    if not powered:
        raise ValueError('no line "… powered:"')
    return float(_field(text, "status") == "3" and "true" not in powered)


def _hal_temperature(text: str, kind: int) -> float:
    """The warmest of a kind now. What stands above that section is cached, some of it from long ago."""
    _, _, now = text.partition("Current temperatures from HAL:")
    now, _, _ = now.partition("Current cooling devices from HAL:")
    found = re.findall(r"Temperature\{mValue=(-?[\d.]+), mType=(-?\d+),", now)
    here = [float(value) for value, of in found if int(of) == kind and float(value) > _NO_READING_C]
    if not here:
        raise ValueError(f"no temperature of type {kind} from the HAL")
    return max(here)


def gpufreqv2_mhz(text: str) -> float:
    """MediaTek's gpufreq_status: the OPP's "Freq" in kHz, of the shader cores' STACK where it has a rail of its own."""
    for part in ("STACK", "GPU"):
        if match := re.search(rf"^\[{part}[ -]+OPP\]\s+Index:\s*-?\d+,\s*Freq:\s*(\d+)", text, re.MULTILINE):
            return float(match[1]) / 1000
    raise ValueError('no line "[GPU-OPP]"')


GAUGES: dict[str, Callable[[str], float | None]] = {
    "dumpsys_voltage": battery_voltage_v,
    "dumpsys_current": battery_current,
    "dumpsys_discharging": battery_discharging,
    "dumpsys_cpu_temperature": lambda text: _hal_temperature(text, _CPU),
    "dumpsys_gpu_temperature": lambda text: _hal_temperature(text, _GPU),
    "gpufreqv2": gpufreqv2_mhz,
}
