"""One workload named on a command line: `--kernel F --weights W … DIM=N OPTION=V`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

import kernels
from harness.errors import UsageError
from kernels.jobs import dtype_policy
from kernels.spec import Family, WeightFormat, Workload

LARGEST = 2**31 - 1  # kernels take sizes as 32-bit integers


def add_workload(parser: argparse.ArgumentParser) -> None:
    """Declare what names a workload."""
    add = parser.add_argument
    add("--kernel", required=True, metavar="F", help="the family, e.g. gemv_decode")
    add("--weights", metavar="W", help="the weight format, e.g. int4/g128")
    add("--act", default="fp16", choices=("fp16", "fp32"), help="storage of activations (default %(default)s)")
    add("--compute", default="fp32", choices=("fp32", "fp16", "int8"), help="arithmetic (default %(default)s)")
    add("--cache", default="fp16", choices=("fp16", "int8", "int4"), help="storage of a KV cache (default %(default)s)")
    add("job", nargs="+", metavar="DIM=N|OPTION=V", help="e.g. M=1 N=16384 K=2048, or M=128 … act=silu gated=true")


def workload_of(args: argparse.Namespace) -> Workload:
    """The workload. Raises UsageError naming what is wrong and what there is to choose from."""
    families = kernels.families()
    if args.kernel not in families:
        raise UsageError(f'unknown kernel "{args.kernel}"; choose from {", ".join(sorted(families))}')
    family = families[args.kernel]
    options = {name: value for word in args.job for name, _, value in [word.partition("=")] if name in _options(family)}
    dims = _dims([word for word in args.job if word.partition("=")[0] not in options], family.dims)
    if family.shares == "weights" and not args.weights:
        raise UsageError(f"{family.name} has weights; say which with --weights, e.g. int4/g128")
    try:
        if args.weights:
            WeightFormat.parse(args.weights)
        policy = dtype_policy(args.act, args.compute, args.weights, args.cache if family.shares == "cache" else None)
        return Workload(family.name, dims, policy, args.weights, {name: value(text) for name, text in options.items()})
    except ValueError as error:
        raise UsageError(str(error)) from error


def value(text: str) -> bool | int | float | str:
    """A word of the command line as a number where it is one, true, or a word."""
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return True if text == "true" else text


def _options(family: Family) -> frozenset[str]:
    """Names of the options that a family's workloads may have."""
    return frozenset(name for workload in family.cover() for name in workload.options)


def _dims(words: Sequence[str], wanted: Sequence[str]) -> dict[str, int]:
    """Sizes given as DIM=N. Raises UsageError naming what is wrong."""
    found: dict[str, int] = {}
    for word in words:
        name, _, size = word.partition("=")
        if name not in wanted or not re.fullmatch(r"0*[1-9][0-9]{0,9}", size) or int(size) > LARGEST:
            sizes = ", ".join(f"{dim}=N" for dim in wanted)
            raise UsageError(f'"{word[:40]}" is no size; give {sizes} with N from 1 to {LARGEST}')
        if name in found:
            raise UsageError(f"{name} is given twice")
        found[name] = int(size)
    if missing := [dim for dim in wanted if dim not in found]:
        raise UsageError(f"{missing[0]} is missing; give {', '.join(f'{dim}=N' for dim in wanted)}")
    return {dim: found[dim] for dim in wanted}
