"""`python -m harness probe`: what a device can do, measured."""

from __future__ import annotations

import argparse

from harness.devices import DeviceChoice, resolve
from harness.fitness import add_arguments as add_fitness
from harness.fitness import fit
from harness.probe import ProbeResult, Rate, probe
from harness.supervisor import Supervisor
from harness.tables import json_text, say, table, time_text
from harness.verbs import common

HELP = "bandwidth, multiply-add rate and launch latency of a device"
NOISY = 0.1  # a probed rate known no better than this is worth a second try


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    common.add_device(parser)
    add_fitness(parser)
    common.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """The verb. Raises UsageError, DeviceMissing and KilnError."""
    with (
        fit(resolve(args.device), args.cool_below, args.lock_clocks) as choice,
        Supervisor(choice.command, link=choice.link) as supervisor,
    ):
        found = probe(supervisor, choice.sheet)
    if args.json:
        say(json_text({"device": choice.slug, "description": dict(choice.description), "probe": found.to_json()}))
    else:
        say(probe_text(choice, found))


def probe_text(choice: DeviceChoice, found: ProbeResult) -> str:
    """A probe's figures as a table, and notes on what they are worth."""
    rows = [_row("read, cold" if found.cold else "read, partly cached", found.read, "GB/s")]
    rows.append(_row("copy (read + written)", found.copy, "GB/s"))
    rows += [_row(f"multiply-add {name}", rate, "GFLOPS") for name, rate in sorted(found.madd.items())]
    rows.append(["empty kernel, device time", time_text(found.launch_ns), "", ""])
    rows.append(["empty kernel in a batch", time_text(found.launch_wall_ns), "", ""])
    rows.append(["timer resolution, reported", time_text(found.timer_reported_ns), "", ""])
    rows.append(["timer step, seen", time_text(found.timer_seen_ns), "", ""])
    lines = [f"{choice.slug}: {choice.description['name']} ({choice.description['platform_name']})"]
    lines.append(table(["limit", "median", "95 % interval", "best way"], rows))
    for name, rate in {"read": found.read, "copy": found.copy, **found.madd}.items():
        if rate.spread > NOISY:
            lines.append(f"note: {name} varies by ±{100 * rate.spread:.0f} %: run again when the machine is quiet")
    lines += [f"note: {failure}" for failure in found.failures]
    return "\n".join(lines)


def _row(name: str, rate: Rate, unit: str) -> list[str]:
    low, high = rate.interval
    return [name, f"{rate.per_ns:.1f} {unit}", f"{low:.1f} to {high:.1f}", str(rate.kernel)]
