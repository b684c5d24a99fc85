"""`python -m harness sanitize`: every variant under Oclgrind."""

from __future__ import annotations

import argparse

from harness import oclgrind, sanitize
from harness.errors import KilnError
from harness.tables import json_text, say
from harness.verbs import common

HELP = "every variant under Oclgrind: memory, data races, uninitialised values"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument("--install", action="store_true", help="install the package oclgrind where it is missing")
    common.add_families(parser)
    common.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """The verb. Raises UsageError, and KilnError where there are findings."""
    families = common.families(args.kernels)
    oclgrind.require(install=args.install)
    with common.progress("variant") as tell:
        report = sanitize.sanitize(families, tell=tell)
    say(json_text(report.to_json()) if args.json else sanitize.text(report))
    if report.findings or report.unproven:
        raise KilnError(f"{report.findings} findings, {len(report.unproven)} variants clean in no form")
