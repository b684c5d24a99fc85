"""`python -m harness telemetry`: what a device's sensors say, over time."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness import trace
from harness.tables import json_text, say
from harness.telemetry import command
from harness.telemetry.nouns import PHASES
from harness.verbs import common

HELP = "clocks, load, temperatures, battery and memory over time, with phases"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    add = parser.add_argument
    add("--device", metavar="D", help=f"{common.DEVICES} (default: this machine, which needs no OpenCL)")
    add("--seconds", type=float, default=5.0, metavar="S", help="how long (default %(default)g)")
    add(
        "--period-ms",
        type=float,
        default=command.SHORTEST_MS,
        metavar="MS",
        help="the shortest period (default %(default)g)",
    )
    add("--out", type=Path, metavar="FILE", help="keep the recording here")
    add(
        "--mark",
        action="store_true",
        help=f"take the name of each phase that begins ({', '.join(PHASES)}) from a line on stdin; its end ends all",
    )
    common.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """The verb. Raises UsageError, DeviceMissing and KilnError; KeyboardInterrupt when all has been written."""
    if args.out:
        trace.claim(args.out)
    marks = command.stdin_lines() if args.mark else None
    recording, interrupted = command.record(args.device, args.seconds, args.period_ms, marks)
    if args.out:
        command.save(recording, args.out)
    say(json_text(recording.to_json()) if args.json else command.text(recording))
    if interrupted:
        raise KeyboardInterrupt
