"""The command line: `python -m tuner [options]` tunes, `python -m tuner explain FILE …` tells what an engine would get,
`python -m tuner replay SPACE.npz …` tries the search on recorded spaces, `python -m tuner pareto FILE` shows what may
be traded for what, `python -m tuner retune FILE --delta` measures a document's best few again.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 device not there, 130 interrupted with everything finished kept.
"""

from __future__ import annotations

import argparse
import re
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
from kernels.jobs import dtype_policy
from kernels.spec import Family, WeightFormat, Workload
from tuner import pareto, replay, retune
from tuner.request import add_arguments, from_arguments
from tuner.run import journal_path, out_path, tune
from tuner.summary import rows, summary

LARGEST = 2**31 - 1  # kernels take sizes as 32-bit integers


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code. Errors are one sentence on stderr."""
    words = list(sys.argv[1:] if argv is None else argv)
    verbs = {"explain": _explain, "replay": replay.main, "pareto": pareto.main, "retune": retune.main}
    verb = verbs[words.pop(0)] if words and words[0] in verbs else _tune
    return ended(
        lambda: verb(words),
        "interrupted; every finished trial is kept, the same command goes on from here",
    )


def _tune(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tuner",
        description="Find the fastest right configuration of every kernel a model needs on one device.",
        epilog="explain, replay, pareto and retune are other verbs: python -m tuner explain --help, and so on.",
    )
    add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the final table as JSON on stdout")
    args = parser.parse_args(words)
    request = from_arguments(args)
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
    add("--kernel", required=True, metavar="F", help="the family, e.g. gemv_decode")
    add("--weights", metavar="W", help="the weight format, e.g. int4/g128")
    add("--act", default="fp16", choices=("fp16", "fp32"), help="storage of activations (default %(default)s)")
    add("--compute", default="fp32", choices=("fp32", "fp16", "int8"), help="arithmetic (default %(default)s)")
    add("--device", metavar="D", help="a device here to select for; default: the one the file was made on")
    add("--predicted", action="store_true", help="admit entries that nobody measured")
    add("--json", action="store_true", help="the lines as a JSON list")
    add("--cache", default="fp16", choices=("fp16", "int8", "int4"), help="storage of a KV cache (default %(default)s)")
    add("job", nargs="+", metavar="DIM=N|OPTION=V", help="e.g. M=1 N=16384 K=2048, or M=128 … act=silu gated=true")
    args = parser.parse_args(words)

    families = kernels.families()
    if args.kernel not in families:
        raise UsageError(f'unknown kernel "{args.kernel}"; choose from {", ".join(sorted(families))}')
    family = families[args.kernel]
    options = {name: value for word in args.job for name, _, value in [word.partition("=")] if name in _options(family)}
    dims = _dims([word for word in args.job if word.partition("=")[0] not in options], family.dims)
    try:
        if args.weights:
            WeightFormat.parse(args.weights)
        elif family.shares == "weights":
            raise UsageError(f"{family.name} has weights; say which with --weights, e.g. int4/g128")
    except ValueError as error:
        raise UsageError(str(error)) from error
    if not args.file.exists():
        raise UsageError(f"{args.file} is not there; make it with python -m tuner --out {args.file}")
    try:
        config = tuned.load(args.file)
        facts = config.device
        if args.device:
            choice = resolve(args.device)
            facts = identify(choice.description, choice.sheet)
        policy = dtype_policy(args.act, args.compute, args.weights, args.cache if family.shares == "cache" else None)
        chosen = {name: _option(value) for name, value in options.items()}
        workload = Workload(family.name, dims, policy, args.weights, chosen)
        lines = explain([config], workload, facts, family, predicted=args.predicted)
    except ValueError as error:
        raise KilnError(str(error)) from error
    say(json_text(lines) if args.json else "\n".join(lines))


def _options(family: Family) -> frozenset[str]:
    """Names of the options that a family's workloads may have."""
    return frozenset(name for workload in family.cover() for name in workload.options)


def _option(text: str) -> bool | int | float | str:
    """An option's value: true, a number or a word."""
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return True if text == "true" else text


def _dims(words: Sequence[str], wanted: Sequence[str]) -> dict[str, int]:
    """Sizes given as DIM=N. Raises UsageError naming what is wrong."""
    found: dict[str, int] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in wanted or not re.fullmatch(r"0*[1-9][0-9]{0,9}", value) or int(value) > LARGEST:
            sizes = ", ".join(f"{dim}=N" for dim in wanted)
            raise UsageError(f'"{word[:40]}" is no size; give {sizes} with N from 1 to {LARGEST}')
        if name in found:
            raise UsageError(f"{name} is given twice")
        found[name] = int(value)
    if missing := [dim for dim in wanted if dim not in found]:
        raise UsageError(f"{missing[0]} is missing; give {', '.join(f'{dim}=N' for dim in wanted)}")
    return {dim: found[dim] for dim in wanted}
