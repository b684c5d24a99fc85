"""`python -m harness bench`: a model's workloads, default and tuned, beside the device's limit and NumPy."""

from __future__ import annotations

import argparse

from tqdm import tqdm

from harness import bench
from harness.devices import resolve
from harness.errors import KilnError, UsageError
from harness.fitness import add_arguments as add_fitness
from harness.fitness import fit
from harness.measure import Meter
from harness.probe import probe
from harness.supervisor import Supervisor
from harness.tables import json_text, say
from harness.verbs import common
from kernels.plan import FORMATS, plan

HELP = "a model's workloads: default, tuned, % of the device's limit, NumPy"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    common.add_device(parser)
    add = parser.add_argument
    add("--model", action="append", metavar="M", help="repeatable (default gemma-2b)")
    common.add_families(parser)
    add("--weights", metavar="F,G", help="weight formats (default int4/g128,e0m4/g128)")
    add("--act", default="fp16", choices=("fp16", "fp32"), help="activations (default %(default)s)")
    add("--compute", default="fp32", choices=("fp32", "fp16", "int8"), help="(default %(default)s)")
    add("--cache", default="fp16", choices=("fp16", "int8", "int4"), help="(default %(default)s)")
    common.add_documents(parser)
    add_fitness(parser)
    common.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """The verb. Raises UsageError, DeviceMissing and KilnError."""
    try:
        planned = plan(
            args.model or ["gemma-2b"],
            formats=args.weights.split(",") if args.weights else FORMATS,
            act=args.act,
            compute=args.compute,
            cache=args.cache,
            families=args.kernels.split(",") if args.kernels else None,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    with (
        fit(resolve(args.device), args.cool_below, args.lock_clocks) as choice,
        Supervisor(choice.command, link=choice.link) as supervisor,
    ):
        documents = common.documents(args.config, choice)
        probed = probe(supervisor, choice.sheet)
        steps = bench.lines(Meter(supervisor, choice.sheet), choice, probed, list(planned), documents)
        found: list[bench.Line] = []
        try:
            for line in tqdm(steps, total=len(planned), disable=None, unit="workload"):
                found.append(line)
        finally:  # after Ctrl-C too what is measured is shown
            say(json_text(bench.to_json(choice, found)) if args.json else bench.text(choice, found))
    measured = {line.workload for line in found}
    if left_out := [item.workload.key for item in planned if item.workload not in measured]:
        raise KilnError(
            f"{len(left_out)} workloads were left out, as their default is not legal here: {left_out[0]}, …"
        )
    if failed := [line for line in found if line.failed]:
        raise KilnError(f"{len(failed)} of {len(found)} workloads have a configuration that failed")
