"""Options that make a phone fit to be measured, `--cool-below` and `--lock-clocks`, and the device under them."""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Iterator
from dataclasses import replace

from harness.adb.clocks import Clocks
from harness.adb.condition import COOL_C
from harness.adb.phone_link import PhoneLink
from harness.devices import DeviceChoice
from harness.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--cool-below",
        type=float,
        metavar="C",
        help=f"no trial starts while a phone's battery is warmer than this, in °C (default {COOL_C:g})",
    )
    parser.add_argument(
        "--lock-clocks",
        type=float,
        nargs="?",
        const=math.inf,
        metavar="MHZ",
        help="lock a rooted phone's GPU at its fastest step, or its fastest up to MHZ, and undo that at the end",
    )


@contextlib.contextmanager
def fit(choice: DeviceChoice, cool_below: float | None, lock_clocks: float | None) -> Iterator[DeviceChoice]:
    """The device with these options in force, and undone afterwards.

    What an earlier run left locked is put back first. Locked clocks become a hint of the description, so that no time
    with them passes for one without. Raises UsageError for a device that is no phone on adb, KilnError as
    `harness.adb.clocks` does.
    """
    given = [
        name for name, value in (("--cool-below", cool_below), ("--lock-clocks", lock_clocks)) if value is not None
    ]
    link = choice.link
    if not isinstance(link, PhoneLink):
        if given:
            raise UsageError(f"{given[0]} is for a phone on the cable (--device adb)")
        yield choice
        return
    if cool_below is not None:
        if not math.isfinite(cool_below):
            raise UsageError(f"--cool-below must be a temperature in °C, not {cool_below}")
        link = link.cooling_below(cool_below)
        choice = replace(choice, link=link)
    clocks = Clocks(link.phone)
    if lock_clocks is None:
        clocks.restore_left()
        yield choice
        return
    if not lock_clocks > 0:
        raise UsageError(f"--lock-clocks must be a clock in MHz, not {lock_clocks}")
    with clocks.locked(lock_clocks) as lock:
        link.after_reboot = clocks.again
        hints = {**choice.description.get("hints", {}), "clocks": f"locked at {lock.gpu_mhz:g} MHz"}
        yield replace(choice, description={**choice.description, "hints": hints})
