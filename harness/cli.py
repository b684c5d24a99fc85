"""The command line of the harness: `python -m harness doctor`, `python -m harness probe`.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 device not there, 130 interrupted.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from harness import doctor
from harness.devices import DeviceChoice, resolve
from harness.errors import DeviceMissing, ended
from harness.probe import ProbeResult, Rate, probe
from harness.supervisor import Supervisor
from harness.tables import json_text, say, table, time_text

NOISY = 0.1  # a probed rate known no better than this is worth a second try


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code. Errors are one sentence on stderr."""
    args = _parser().parse_args(argv)
    return ended(lambda: {"doctor": _doctor, "probe": _probe}[args.verb](args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m harness", description="Look at OpenCL devices and measure them.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    device = "auto, cpu, ocl:SUBSTRING, exec:'COMMAND' or a GPU model such as adreno750"
    look = verbs.add_parser("doctor", help="every platform and device, and what mends what is missing")
    look.add_argument("--device", metavar="D", help=f"this one alone: {device}")
    limits = verbs.add_parser("probe", help="bandwidth, multiply-add rate and launch latency of a device")
    limits.add_argument("--device", metavar="D", default="auto", help=f"{device} (default %(default)s)")
    for verb in (look, limits):
        verb.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _doctor(args: argparse.Namespace) -> None:
    only = resolve(args.device) if args.device else None
    report = doctor.examine(only)
    say(json_text(report.to_json()) if args.json else doctor.text(report))
    if not report.devices:
        raise DeviceMissing("no OpenCL device; " + "; ".join(f"{m.what}: {m.remedy}" for m in report.missing))


def _probe(args: argparse.Namespace) -> None:
    choice = resolve(args.device)
    with Supervisor(choice.command) as supervisor:
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
