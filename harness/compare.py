"""`python -m harness compare`: two result files by the intervals in them, or two commits measured here and now."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from harness import compare_text
from harness.commits import SECONDS, Asked
from harness.commits import Report as CommitReport
from harness.commits import compare as compare_commits
from harness.compare_files import FileReport, compare_files
from harness.devices import resolve
from harness.errors import KilnError, UsageError
from harness.result_files import load
from harness.tables import json_text, say
from kernels import families
from kernels.plan import FORMATS, model_names
from kernels.spec import WeightFormat

MODEL = "gemma-2b"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's command line."""
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="two result files of one kind and device")
    parser.add_argument(
        "--commits", nargs="+", metavar="COMMIT", help="measure these two; one alone against the working tree as it is"
    )
    only = "with --commits: "
    parser.add_argument("--device", metavar="D", help=only + "which device (default auto)")
    parser.add_argument("--model", action="append", metavar="M", help=f"{only}repeatable (default {MODEL})")
    parser.add_argument("--kernels", metavar="A,B", help=only + "families (default all)")
    parser.add_argument("--weights", metavar="F,G", help=f"{only}weight formats (default {','.join(FORMATS)})")
    parser.add_argument("--heaviest", type=int, metavar="N", help=only + "the N heaviest workloads of each family")
    parser.add_argument("--all", action="store_true", help=only + "measure also what is identical in both commits")
    parser.add_argument(
        "--seconds", type=float, metavar="S", help=f"{only}begin no workload after that (default {SECONDS:.0f})"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--markdown", action="store_true", help="print Markdown, for a pull request")


def command(args: argparse.Namespace, tell: Callable[[str], None]) -> None:
    """Carry out the verb. Raises UsageError for a wrong request, KilnError where something got slower."""
    if bool(args.files) == bool(args.commits):
        raise UsageError("compare takes two result files, or --commits A B; python -m harness compare --help")
    report: CommitReport | FileReport = _commits(args, tell) if args.commits else _files(args)
    if args.json:
        say(json_text(compare_text.to_json(report)))
    else:
        say(compare_text.text(report, markdown=args.markdown))
    if report.worse:
        names = ", ".join(one.label for one in report.worse[:3]) + (", …" if len(report.worse) > 3 else "")
        raise KilnError(f"{len(report.worse)} of {len(report.rows)} workloads got slower or broke: {names}")
    if isinstance(report, CommitReport) and report.undecided:
        raise KilnError("nothing could be measured, so that nothing is decided; the notes say why")
    if isinstance(report, FileReport) and report.broken:
        raise KilnError(f"{len(report.broken)} that had a time have none now: {', '.join(report.broken[:3])}")


def _commits(args: argparse.Namespace, tell: Callable[[str], None]) -> CommitReport:
    if len(args.commits) > 2:
        raise UsageError(f"--commits takes one or two commits, not {len(args.commits)}")
    for name, value in (("--heaviest", args.heaviest), ("--seconds", args.seconds)):
        if value is not None and not value > 0:
            raise UsageError(f"{name} is more than 0, not {value}")
    asked = Asked(
        args.commits[0],
        args.commits[1] if len(args.commits) > 1 else None,
        tuple(_known("model", args.model or [MODEL], model_names())),
        tuple(_formats(args.weights.split(",") if args.weights else list(FORMATS))),
        tuple(_known("kernel", args.kernels.split(","), sorted(families()))) if args.kernels else None,
        heaviest=args.heaviest,
        everything=args.all,
        seconds=args.seconds or SECONDS,
    )
    return compare_commits(asked, resolve(args.device or "auto"), tell)


def _known(what: str, names: Sequence[str], known: Sequence[str]) -> Sequence[str]:
    """The names, of which the present commit must know each."""
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f'unknown {what} "{unknown[0]}"; choose from {", ".join(known)}')
    return names


def _formats(names: Sequence[str]) -> Sequence[str]:
    try:
        return [str(WeightFormat.parse(name)) for name in names]
    except ValueError as error:
        raise UsageError(str(error)) from error


def _files(args: argparse.Namespace) -> FileReport:
    options = ("device", "model", "kernels", "weights", "heaviest", "seconds", "all")
    if given := [name for name in options if getattr(args, name)]:
        raise UsageError(f"--{given[0]} goes with --commits: two files are compared as they are")
    if len(args.files) != 2:
        raise UsageError(f"two result files are compared, not {len(args.files)}")
    return compare_files(*map(load, args.files))
