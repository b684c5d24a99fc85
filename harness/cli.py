"""The command line of the harness: `python -m harness VERB`; each verb is a module of `harness.verbs`.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 device not there, 130 interrupted.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from harness.errors import ended
from harness.verbs import bench, compare, doctor, probe, profile, sanitize, tables, telemetry, validate

VERBS = {
    "doctor": doctor,
    "probe": probe,
    "bench": bench,
    "profile": profile,
    "telemetry": telemetry,
    "compare": compare,
    "tables": tables,
    "validate": validate,
    "sanitize": sanitize,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code. Errors are one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="python -m harness", description="Look at OpenCL devices and measure them.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, verb in VERBS.items():
        verb.add_arguments(verbs.add_parser(name, help=verb.HELP))
    args = parser.parse_args(argv)
    return ended(lambda: VERBS[args.verb].run(args))
