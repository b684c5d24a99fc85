"""How a phone is: battery, temperature, thermal status, room; and the gate before a trial that follows from it."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from tqdm import tqdm

from harness.adb.client import Adb
from harness.errors import KilnError

# Battery temperature above which no trial starts. Others gate their phones' measurements at the same: the benchmarks of
# software-mansion/react-native-executorch (pull request 1363: --max-temp-c 37).
COOL_C = 37.0
COOLED_BY_C = 1.0  # a phone that was too warm cools so much further, or it would be too warm again after one trial
LOW_PERCENT = 15  # Android warns of a low battery here (config_lowBatteryWarningLevel in AOSP) and begins to save power
LEAST_FREE_BYTES = 64 << 20  # drivers write what they compile; one that cannot fails builds that are right
_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")  # PowerManager.THERMAL_STATUS_…
# Android: at "light" nobody notices, at "moderate" users may. One that waited for "none" would wait for ever on a phone
# that charges in a warm room.
THROTTLING = 2
EVERY_S = 10.0  # between two looks: each costs the phone some 0.2 s of a CPU
_POLL_S = 5.0  # while it cools
MOST_S = 900.0
LOOK = "dumpsys battery; dumpsys thermalservice | grep -m 1 'Thermal Status'; df -k /data/local/tmp | tail -n 1"


@dataclass(frozen=True)
class Condition:
    """A phone at one moment; None is what it does not tell."""

    battery_percent: int | None
    battery_c: float | None
    powered: bool | None
    thermal_status: int | None  # of PowerManager: 0 none … 6 shutdown
    free_bytes: int | None  # below /data

    @property
    def low(self) -> str | None:
        """Why nothing can be measured until somebody does something, with the remedy."""
        if self.battery_percent is not None and self.battery_percent < LOW_PERCENT:
            charge = "let it charge" if self.powered else "charge it"
            return f"its battery is at {self.battery_percent} %, and phones save power below {LOW_PERCENT} %: {charge}"
        if self.free_bytes is not None and self.free_bytes < LEAST_FREE_BYTES:
            free = self.free_bytes >> 20
            return f"its disk is full ({free} MiB free): free {LEAST_FREE_BYTES >> 20} MiB, for its driver's compiler"
        return None

    def warm(self, cool_below_c: float) -> str | None:
        """What is to be waited for, None where nothing is."""
        reasons = []
        if self.battery_c is not None and self.battery_c > cool_below_c:
            reasons.append(f"its battery has {self.battery_c:.1f} °C, to fall to {cool_below_c:g} °C")
        if self.thermal_status is not None and self.thermal_status >= THROTTLING:
            reasons.append(f"its thermal status is {self.thermal_text}, to become {_STATUS[THROTTLING - 1]} at most")
        return " and ".join(reasons) or None

    @property
    def thermal_text(self) -> str:
        """The thermal status in Android's words."""
        if self.thermal_status is None:
            return "unknown"
        return _STATUS[self.thermal_status] if self.thermal_status < len(_STATUS) else str(self.thermal_status)


def look(phone: Adb) -> Condition:
    """Ask the phone (Android's `dumpsys battery`, and from Android 10 on `dumpsys thermalservice`; no root)."""
    return parse(phone.ask(LOOK))


def parse(text: str) -> Condition:
    """Read the answer to `look`."""
    number = {name.lower(): int(value) for name, value in re.findall(r"^\s*([\w ]+): (-?\d+)\s*$", text, re.M)}
    powered = re.findall(r"^\s*\w+ powered: (true|false)", text, re.M)
    room = re.search(r"^\S+\s+\d+\s+\d+\s+(\d+)\s+\d+%", text, re.M)
    absent = re.search(r"^\s*present: false", text, re.M) is not None  # a board's zeros are no battery's
    tenths = None if absent else number.get("temperature")
    return Condition(
        battery_percent=None if absent else number.get("level"),
        battery_c=None if tenths is None else tenths / 10,
        powered=("true" in powered) if powered else None,
        thermal_status=number.get("thermal status"),
        free_bytes=int(room[1]) << 10 if room else None,
    )


def tell(text: str) -> None:
    """A line on stderr that does not break a progress bar."""
    tqdm.write(f"kiln: {text}", file=sys.stderr)


class Gate:
    """Lets a trial start when the phone is fit for it. `waited_s` is for how long it did not."""

    def __init__(
        self,
        phone: Adb,
        cool_below_c: float = COOL_C,
        say: Callable[[str], None] = tell,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.waited_s = 0.0
        self._phone, self._cool_below_c, self._say, self._clock, self._sleep = phone, cool_below_c, say, clock, sleep
        self._looked = -math.inf
        self._blind = False

    def settle(self) -> None:
        """Wait until the phone is cool. Raises KilnError for a low battery, a full disk, one that does not cool."""
        start = self._clock()
        if start - self._looked < EVERY_S:
            return
        now = look(self._phone)
        if now.battery_c is None and now.thermal_status is None and not self._blind:
            self._blind = True
            self._say(f"phone {self._phone.serial} tells no temperature: nothing waits for it to cool")
        self._check(now)
        if why := now.warm(self._cool_below_c):
            self._say(f"waiting for phone {self._phone.serial} to cool: {why}")
            try:
                self._cool(start)
            finally:
                self.waited_s += self._clock() - start
        self._looked = self._clock()

    def _cool(self, start: float) -> None:
        while True:
            self._sleep(_POLL_S)
            now = look(self._phone)
            self._check(now)
            why = now.warm(self._cool_below_c - COOLED_BY_C)
            if why is None:
                return
            if self._clock() - start > MOST_S:
                raise KilnError(
                    f"phone {self._phone.serial} did not cool in {MOST_S / 60:.0f} minutes: {why}; everything finished "
                    "is kept: let it cool, out of its case, and run the same command again, or allow more with "
                    "--cool-below"
                )

    def _check(self, now: Condition) -> None:
        if why := now.low:
            raise KilnError(
                f"phone {self._phone.serial} is not fit to measure: {why}; everything finished is kept, then run the "
                "same command again"
            )
