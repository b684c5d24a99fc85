"""`python -m harness doctor`: every device here or one of them, its sheet, or a file about what fails."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness import doctor, parcel, sheets
from harness.devices import resolve
from harness.errors import DeviceMissing
from harness.tables import json_text, say
from harness.verbs import common
from kernels.sheet import load_sheet, sheet_names

HELP = "every platform and device, and what mends what is missing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument(
        "--device", metavar="D", help=f"this one alone: {common.DEVICES}; its sheet where it is not attached"
    )
    parser.add_argument("--bundle", type=Path, metavar="F.zip", help="what to send us when it fails, as one file")
    common.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """The verb. Raises UsageError, DeviceMissing and KilnError."""
    if args.bundle:
        failure = parcel.pack(args.bundle, args.device)
        say(f"wrote {args.bundle}: read it, then attach it to your report")
        if failure:
            raise failure
        return
    try:
        only = resolve(args.device) if args.device else None
    except DeviceMissing as missing:
        if args.device not in sheet_names():
            raise
        sheet = load_sheet(args.device)
        say(json_text(sheets.to_json(sheet)) if args.json else sheets.text(sheet, str(missing)))
        return
    report = doctor.examine(only)
    say(json_text(report.to_json()) if args.json else doctor.text(report))
    if not report.devices:
        raise DeviceMissing("no OpenCL device; " + "; ".join(f"{m.what}: {m.remedy}" for m in report.missing))
