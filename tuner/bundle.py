"""`python -m tuner bundle FILE DIR`: a tuned config with its OpenCL sources, so that an engine needs nothing else."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import kernels
from harness.errors import KilnError, UsageError
from harness.tables import json_text, say
from kernels.bundle import bundle


def main(words: Sequence[str]) -> None:
    """The command. Raises KilnError where the document is not one of this version's."""
    parser = argparse.ArgumentParser(
        prog="python -m tuner bundle",
        description="Put a tuned config and the OpenCL sources that it names into one folder for an engine.",
        epilog="kernels/engine/kiln.hpp loads it. A bundle that is there already is replaced; other folders are not.",
    )
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="a tuned config")
    add("folder", type=Path, metavar="DIR", help="the bundle to write")
    add("--json", action="store_true", help="print the files as a JSON list on stdout")
    args = parser.parse_args(words)
    if not args.file.exists():
        raise UsageError(f"{args.file} is not there; make it with python -m tuner --out {args.file}")
    try:
        files = bundle(args.file, args.folder, kernels.families())
    except ValueError as error:
        raise KilnError(str(error)) from error
    except OSError as error:
        raise KilnError(f"{args.folder} cannot be written: {error.strerror}; check the path and the disk") from error
    if args.json:
        say(json_text([str(file) for file in files]))
    else:
        sources = sum(file.suffix == ".cl" for file in files)
        size = sum(file.stat().st_size for file in files)
        say(f"{args.folder}: a tuned config and {sources} sources, {size / 1024:.0f} KiB")
