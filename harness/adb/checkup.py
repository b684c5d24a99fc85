"""What doctor looks at on a phone beside its OpenCL: Android, root, gates, fixed-performance mode, the library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.adb.clocks import UNROOTED, Clocks
from harness.adb.condition import COOL_C, Condition, look
from harness.adb.phone_link import PhoneLink
from harness.errors import KilnError
from harness.runtimes import Missing

_FIXED_SDK = 30  # Android 11 (developer.android.com, "Fixed performance mode"); nothing tells whether it is on
_PROPS = ("ro.product.manufacturer", "ro.product.model", "ro.soc.model", "ro.build.version.release")


@dataclass(frozen=True)
class PhoneCheckup:
    """A phone; its serial number is not in it, so that a report can be shown around."""

    model: str
    android: str
    sdk: int
    library: str  # through which the runner finds OpenCL
    rooted: bool
    fixed_performance: str
    condition: Condition | None

    def rows(self) -> dict[str, str]:
        """For doctor's table."""
        now = self.condition
        battery = "not told" if now is None or now.battery_percent is None else f"{now.battery_percent} %"
        if now is not None and now.battery_c is not None:
            battery += f", {now.battery_c:.1f} °C"
        return {
            "phone": self.model,
            "Android": f"{self.android} (API level {self.sdk})",
            "root for adb": "yes" if self.rooted else "no",
            "fixed performance": self.fixed_performance,
            "battery": battery,
            "thermal status": now.thermal_text if now else "unknown",
            "free": "not told" if now is None or now.free_bytes is None else f"{now.free_bytes >> 20} MiB",
        }


def look_at(link: PhoneLink) -> tuple[PhoneCheckup, list[Missing]]:
    """Look at the phone; what is wrong comes with its remedy. Raises KilnError where the phone does not answer."""
    phone, wrong = link.phone, []
    told = dict(
        zip(_PROPS, phone.ask("; ".join(f"echo $(getprop {name})" for name in _PROPS)).split("\n"), strict=False)
    )
    sdk = int(phone.ask("getprop ro.build.version.sdk"))
    try:
        condition = look(phone)
        wrong += _gates(condition)
    except KilnError as error:
        condition = None
        wrong.append(Missing(str(error), "look at the phone's screen: it may ask something"))
    fixed = "can be switched on" if sdk >= _FIXED_SDK else f"Android 11 has it first (API level {_FIXED_SDK})"
    clocks = Clocks(phone)
    clocks.restore_left()
    library, unfound = _library(link)
    model = " ".join(filter(None, (told[_PROPS[0]].strip(), told[_PROPS[1]].strip(), told[_PROPS[2]].strip())))
    found = PhoneCheckup(model, told[_PROPS[3]].strip(), sdk, library, clocks.rooted, fixed, condition)
    return found, [*wrong, *unfound]


def _gates(now: Condition) -> list[Missing]:
    """What would stop or hold up a trial now."""
    wrong = []
    if why := now.low:
        what, _, remedy = why.rpartition(": ")
        wrong.append(Missing(f"no trial would start: {what}", remedy))
    if why := now.warm(COOL_C):
        wrong.append(
            Missing(f"a trial would wait: {why}", "let it cool, out of its case; or allow more with --cool-below")
        )
    if now.battery_c is None:
        wrong.append(
            Missing("the battery's temperature is not told: no trial waits for the phone to cool", "keep an eye on it")
        )
    return wrong


def _library(link: PhoneLink) -> tuple[str, list[Missing]]:
    done = link.phone.shell(link.line("--list"), timeout_s=60.0)
    try:
        runtimes: Mapping[str, Any] = json.loads(done.out if done else "")["runtimes"]
        libraries = [driver["library"] for driver in runtimes["drivers"]]
        missing = [Missing(item["what"], item["remedy"]) for item in runtimes["missing"]]
    except (ValueError, LookupError, TypeError):
        said = done.last if done else "nothing within 60 s"
        return "not told", [Missing(f"the runner does not list what it finds: {said}", "send us `doctor --bundle`")]
    return ", ".join(libraries) or "none", missing if not libraries else []


def hint(found: PhoneCheckup) -> str | None:
    """How its clocks can be steadied, for people."""
    if found.rooted:
        return "its clocks can be locked: --lock-clocks"
    return f"steadier clocks without root, until `… false` or a reboot: {UNROOTED}" if found.sdk >= _FIXED_SDK else None
