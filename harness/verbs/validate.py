"""`python -m harness validate`: every variant of every family against the reference."""

from __future__ import annotations

import argparse

from harness import validate
from harness.devices import resolve
from harness.errors import KilnError
from harness.tables import json_text, say
from harness.verbs import common

HELP = "every variant, format, policy and option against the reference"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    common.add_device(parser)
    parser.add_argument(
        "--quick", action="store_true", help="each format, policy and option once, one configuration each"
    )
    common.add_families(parser)
    common.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """The verb. Raises UsageError, DeviceMissing, and KilnError where something is wrong."""
    families = common.families(args.kernels)
    with common.progress("candidate") as tell:
        report = validate.validate(resolve(args.device), families, quick=args.quick, tell=tell)
    say(json_text(report.to_json()) if args.json else validate.text(report))
    if not report.candidates:
        raise KilnError("nothing was checked: this device runs none of the variants")
    if report.failures:
        raise KilnError(f"{report.failures} of {report.candidates} candidates failed on {report.device}")
