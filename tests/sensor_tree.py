"""Fake /sys and /proc trees, for telemetry's tests."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from harness.runner.watching import read_text

KGSL = "/sys/class/kgsl/kgsl-3d0"
BATTERY = "/sys/class/power_supply/battery"
COMMON = {
    "/proc/stat": "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 100 0 100 800 0 0 0 0 0 0\n",
    "/proc/meminfo": "MemTotal: 2000000 kB\nMemAvailable: 1000000 kB\n",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2000000\n",
    "/sys/devices/system/cpu/cpu4/cpufreq/scaling_cur_freq": "3000000\n",
    "/sys/class/thermal/thermal_zone0/type": "battery\n",
    "/sys/class/thermal/thermal_zone0/temp": "31000\n",
    "/sys/class/thermal/thermal_zone1/type": "cpu-0-0\n",
    "/sys/class/thermal/thermal_zone1/temp": "45000\n",
    "/sys/class/thermal/thermal_zone7/type": "cpu-1-3\n",
    "/sys/class/thermal/thermal_zone7/temp": "52000\n",
}
PHONE = COMMON | {
    f"{KGSL}/gpu_model": "Adreno750v2\n",
    f"{KGSL}/gpubusy": " 250000 1000000\n",
    f"{KGSL}/gpuclk": "680000000\n",
    f"{KGSL}/temp": "47100\n",
    f"{KGSL}/reset_count": "0\n",
    f"{KGSL}/gpu_clock_stats": "0 0 0 \n",
    f"{KGSL}/gpu_available_frequencies": "903000000 680000000 231000000 \n",
    f"{BATTERY}/current_now": "-2900000\n",
    f"{BATTERY}/voltage_now": "3850000\n",
    f"{BATTERY}/status": "Discharging\n",
    f"{BATTERY}/charge_full": "5000000\n",
}


class Tree:
    """Files under a folder. `refused` maps paths to the errno that opening them ends with (root may read any mode)."""

    def __init__(self, root: Path, files: dict[str, str]) -> None:
        self.root = root
        self.refused: dict[str, int] = {}
        for path, text in files.items():
            self.write(path, text)

    def write(self, path: str, text: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def remove(self, path: str) -> None:
        (self.root / path.lstrip("/")).unlink()

    def read(self, path: str) -> str:
        for refused, number in self.refused.items():
            if path.startswith(refused):
                raise OSError(number, os.strerror(number))
        return read_text(f"{self.root}{path}")


EACCES = errno.EACCES
Read = Callable[[str], str]
