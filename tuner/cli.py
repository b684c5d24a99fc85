"""The command line: `python -m tuner [options]` tunes, `python -m tuner explain FILE …` tells what an engine would get,
`python -m tuner replay SPACE.npz …` tries the search on recorded spaces, `python -m tuner pareto FILE` shows what may
be traded for what, `python -m tuner retune FILE --delta` measures a document's best few again, `python -m tuner
record` every configuration of a small space, `python -m tuner bundle FILE DIR` puts it into a folder with its sources,
`python -m tuner report` makes a page about all of it.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 device not there, 130 interrupted with everything finished kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import kernels
from harness.devices import resolve
from harness.errors import KilnError, UsageError, ended
from harness.tables import json_text, say
from kernels import tuned
from kernels.explain import explain
from kernels.identity import identify
from tuner import absent, bundle, exports, forecast_text, foreseen, judge, pareto, record, replay, retune
from tuner.report import command as report
from tuner.request import add_arguments, from_arguments
from tuner.run import journal_path, out_path, tune
from tuner.summary import rows, summary
from tuner.wanted import add_workload, workload_of

VERBS = {
    "replay": replay.main,
    "pareto": pareto.main,
    "retune": retune.main,
    "record": record.main,
    "bundle": bundle.main,
    "judge": judge.main,
    "predict": forecast_text.main,
    "export": exports.main,
    "report": report.main,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code. Errors are one sentence on stderr."""
    words = list(sys.argv[1:] if argv is None else argv)
    verbs = {"explain": _explain, **VERBS}
    verb = verbs[words.pop(0)] if words and words[0] in verbs else _tune
    return ended(
        lambda: verb(words),
        "interrupted; every finished trial is kept, the same command goes on from here",
    )


def _tune(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tuner",
        description="Find the fastest right configuration of every kernel a model needs on one device.",
        epilog=f"explain, {', '.join(VERBS)} are other verbs: python -m tuner explain --help, and so on.",
    )
    add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the final table as JSON on stdout")
    args = parser.parse_args(words)
    request = from_arguments(args)
    if why := absent.missing(request):
        found = foreseen.tune(request, why, _to_stderr if args.json else say)
        say(json_text(foreseen.rows(found)) if args.json else foreseen.summary(found))
        return
    decided = tune(request, _to_stderr if args.json else say)
    if not request.objectives:
        say(json_text(rows(decided)) if args.json else summary(decided))
        return
    journal = journal_path(out_path(request, resolve(request.device)))
    fronts = pareto.of_journal(journal, request.objectives)
    if args.json:
        say(json_text({"table": rows(decided), "pareto": [front.as_json() for front in fronts]}))
    else:
        say(f"{summary(decided)}\n\n{pareto.text(fronts, request.objectives)}")


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)


def _explain(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tuner explain",
        description="Tell which entry of a tuned config an engine gets for a workload, and why.",
    )
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="a tuned config")
    add("--device", metavar="D", help="a device here to select for; default: the one the file was made on")
    add("--predicted", action="store_true", help="admit entries that nobody measured")
    add("--json", action="store_true", help="the lines as a JSON list")
    add_workload(parser)
    args = parser.parse_args(words)

    workload = workload_of(args)
    family = kernels.families()[workload.family]
    if not args.file.exists():
        raise UsageError(f"{args.file} is not there; make it with python -m tuner --out {args.file}")
    try:
        config = tuned.load(args.file)
        facts = config.device
        if args.device:
            choice = resolve(args.device)
            facts = identify(choice.description, choice.sheet)
        lines = explain([config], workload, facts, family, predicted=args.predicted)
    except ValueError as error:
        raise KilnError(str(error)) from error
    say(json_text(lines) if args.json else "\n".join(lines))
