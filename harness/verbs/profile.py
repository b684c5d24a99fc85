"""`python -m harness profile`: whole steps of a model, launch by launch."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness import profile_text, trace
from harness.devices import resolve
from harness.errors import UsageError
from harness.profiling import REPEATS, profile
from harness.step import remarks, steps
from harness.tables import json_text, say
from harness.telemetry import command
from harness.verbs import common
from kernels.gemm_prefill import ROWS
from kernels.jobs import Ask
from kernels.models import ModelSheet, load_model
from kernels.plan import CONTEXT, OVERLAP
from kernels.spec import WeightFormat

HELP = "whole steps of a model, every launch's stamps: tables and a Chrome trace"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    common.add_device(parser)
    add = parser.add_argument
    add("--model", default="gemma-2b", metavar="M", help="a model sheet (default %(default)s)")
    add("--prompt", type=int, default=128, metavar="N", help="tokens of the prefill (default %(default)s)")
    add("--context", type=int, metavar="N", help=f"positions cached at the decode step (default {CONTEXT} or more)")
    add("--weights", default="int4/g128", metavar="F", help="format of the decoder's weights (default %(default)s)")
    add("--act", default="fp16", choices=("fp16", "fp32"), help="activations (default %(default)s)")
    add("--compute", default="fp32", choices=("fp32", "fp16", "int8"), help="arithmetic (default %(default)s)")
    add("--cache", default="fp16", choices=("fp16", "int8", "int4"), help="the KV cache (default %(default)s)")
    common.add_documents(parser)
    add("--repeats", type=int, default=REPEATS, metavar="N", help="of every step (default %(default)s)")
    add("--trace", type=Path, metavar="F", help="write a Chrome trace, telemetry included; Perfetto opens it")
    add("--telemetry", action="store_true", help="sample clocks, temperatures, utilisation and power beside it")
    add("--recording", type=Path, metavar="F", help="keep these samples in a file, which python -m tuner report shows")
    common.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """The verb. Raises UsageError, DeviceMissing and KilnError."""
    sheet, ask = _asked(args)
    if args.repeats < 1:
        raise UsageError(f"--repeats {args.repeats}: at least one repeat is needed")
    for path in filter(None, (args.trace, args.recording)):
        trace.claim(path)
    choice = resolve(args.device)
    documents = common.documents(args.config, choice)
    with common.progress("step") as tell:
        found = profile(
            choice,
            sheet.name,
            steps(sheet, ask),
            documents,
            notes=remarks(sheet, ask),
            repeats=args.repeats,
            record=bool(args.telemetry or args.trace or args.recording),
            tell=tell,
        )
    if args.trace:
        trace.write(args.trace, found)
    if args.recording and found.recording:
        command.save(found.recording, args.recording)
    say(json_text(profile_text.to_json(found)) if args.json else profile_text.text(found, args.trace))


def _asked(args: argparse.Namespace) -> tuple[ModelSheet, Ask]:
    """The model and what is asked of it. Raises UsageError."""
    if not 2 <= args.prompt <= ROWS:
        raise UsageError(f"--prompt {args.prompt}: a prefill has 2 to {ROWS} tokens, as many as the GEMM takes at once")
    context = max(CONTEXT, args.prompt + 1) if args.context is None else args.context
    if context <= args.prompt:
        raise UsageError(
            f"--context {context}: when a token is decoded, the {args.prompt} of the prompt and it are cached; "
            f"give {args.prompt + 1} or more"
        )
    try:
        WeightFormat.parse(args.weights)
        sheet = load_model(args.model)
    except ValueError as error:
        raise UsageError(str(error)) from error
    rows = (1, args.prompt)
    return sheet, Ask((args.weights,), args.act, args.compute, args.cache, rows, context, overlap=OVERLAP)
