"""What a user asks of a tuning run, read from the command line and checked before any device is touched."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import kernels
from harness import fitness
from harness.errors import UsageError
from harness.hinted import LEVELS
from kernels.plan import load_model
from kernels.spec import WeightFormat
from tuner import storages
from tuner.sampler import SAMPLERS

DEFAULT_MODEL = "gemma-2b"
DEFAULT_WEIGHTS = ("int4/g128", "e0m4/g128")
DEFAULT_SECONDS = 120.0
OBJECTIVES = ("time", "dispatch", "programs", "energy")


@dataclass(frozen=True)
class Request:
    """One tuning run: which jobs, on which device, for how long, and where the answer goes."""

    device: str
    models: tuple[str, ...]
    kernels: tuple[str, ...]
    weights: tuple[str, ...]
    act: str
    compute: str
    cache: str
    seconds: float  # of search alone; finals may take a fifth more
    out: Path | None  # None: results/local/<device>.json
    seed: int
    sampler: str
    retry_crashed: bool
    max_programs: int | None = None  # programs per family; None: whatever is fastest in each bucket
    objectives: tuple[str, ...] = ()  # for a Pareto table beside the result; none by default
    storage: str | None = None  # what several workers share; may hold a password, so it enters no document
    max_dispatch_ms: float | None = None  # that a single launch of a winner may take; None: as long as it likes
    priority: str | None = None  # hints to the driver, "low", "normal" or "high"; None: none is given
    performance: str | None = None
    trials: int | None = None  # of each workload at most, those that the journal has already counted
    cool_below: float | None = None  # °C that a phone's battery may have when a trial starts; None: as usual
    lock_clocks: float | None = None  # MHz that a rooted phone's GPU is locked at, at most; None: it is not
    require_device: bool = False  # without the named GPU the run is an error, and predicts nothing

    @property
    def most_dispatch_ns(self) -> float:
        """How long a single launch of a winner may take."""
        return math.inf if self.max_dispatch_ms is None else 1e6 * self.max_dispatch_ms

    def as_json(self) -> dict[str, object]:
        """What decides the outcome, for the journal and the document's provenance."""
        return {
            "device": "adb" if self.device.startswith("adb:") else self.device,  # a serial number is nobody's business
            "models": list(self.models),
            "kernels": list(self.kernels),
            "weights": list(self.weights),
            "act": self.act,
            "compute": self.compute,
            "cache": self.cache,
            "seconds": self.seconds,
            "seed": self.seed,
            "sampler": self.sampler,
            "max_programs": self.max_programs,
            "objectives": list(self.objectives),
            "max_dispatch_ms": self.max_dispatch_ms,
            "priority": self.priority,
            "performance": self.performance,
            "trials": self.trials,
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of a tuning run."""
    add = parser.add_argument
    add(
        "--device",
        default="auto",
        metavar="D",
        help="auto, cpu, a device sheet, ocl:SUBSTRING, adb, adb:SERIAL or exec:'COMMAND' (default %(default)s)",
    )
    add("--model", action="append", metavar="M", help=f"model to plan for, repeatable (default {DEFAULT_MODEL})")
    add("--kernels", metavar="A,B", help="families to tune (default all)")
    add("--weights", default=",".join(DEFAULT_WEIGHTS), metavar="F,G", help="weight formats (default %(default)s)")
    add("--act", default="fp16", choices=("fp16", "fp32"), help="storage of activations (default %(default)s)")
    add("--compute", default="fp32", choices=("fp32", "fp16", "int8"), help="arithmetic (default %(default)s)")
    add(
        "--cache",
        default="fp16",
        choices=("fp16", "int8", "int4"),
        help="storage of the KV cache (default %(default)s)",
    )
    add("--seconds", type=float, default=DEFAULT_SECONDS, metavar="S", help="search time (default %(default)g)")
    add("--trials", type=int, metavar="N", help="trials of each workload at most, those of earlier runs counted")
    add("--out", type=Path, metavar="F", help="the document (default results/local/<device>.json); replaced if there")
    add("--seed", type=int, default=0, metavar="N", help="of the search's random choices (default %(default)s)")
    add("--sampler", default=SAMPLERS[0], choices=SAMPLERS, help="what asks for configurations (default %(default)s)")
    add(
        "--max-programs",
        type=int,
        metavar="K",
        help="serve each family's sizes with K programs, those that are nowhere much slower than the fastest",
    )
    add(
        "--max-dispatch-ms",
        type=float,
        metavar="MS",
        help="choose no kernel with a single launch longer than this: a phone's screen waits for it",
    )
    for name, what in (("priority", "scheduling against graphics"), ("performance", "clocks")):
        add(f"--{name}", choices=LEVELS, help=f"hint to the driver for {what}, where it takes one (default none)")
    fitness.add_arguments(parser)
    add("--objectives", default="", metavar="A,B", help=f"a Pareto table over some of {', '.join(OBJECTIVES)}")
    add("--storage", metavar="URL", help="share the study: journal:PATH, postgresql+psycopg://… or grpc://HOST:PORT")
    add("--require-device", action="store_true", help="fail (exit code 3) where the named GPU is not attached")
    add("--retry-crashed", action="store_true", help="try again what crashed in an earlier run")


def from_arguments(args: argparse.Namespace) -> Request:
    """Check the options. Raises UsageError with a sentence naming the choices."""
    known = sorted(kernels.families())
    wanted = _names(args.kernels) if args.kernels is not None else tuple(known)
    if unknown := [name for name in wanted if name not in known]:
        raise UsageError(f'unknown kernel "{unknown[0]}"; choose from {", ".join(known)}')
    weights = _names(args.weights)
    models = tuple(dict.fromkeys(args.model or (DEFAULT_MODEL,)))
    try:
        for text in weights:
            WeightFormat.parse(text)
        for model in models:
            load_model(model)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if not wanted or not weights:
        raise UsageError("--kernels and --weights each need at least one name")
    if not (math.isfinite(args.seconds) and args.seconds > 0):
        raise UsageError(f"--seconds must be a positive number, not {args.seconds}")
    if args.trials is not None and args.trials < 1:
        raise UsageError(f"--trials must be at least 1, not {args.trials}")
    if args.seed < 0:
        raise UsageError(f"--seed must be at least 0, not {args.seed}")
    if args.max_programs is not None and args.max_programs < 1:
        raise UsageError(f"--max-programs must be at least 1, not {args.max_programs}")
    if args.max_dispatch_ms is not None and not (math.isfinite(args.max_dispatch_ms) and args.max_dispatch_ms > 0):
        raise UsageError(f"--max-dispatch-ms must be a positive number, not {args.max_dispatch_ms}")
    if args.out is not None and (args.out.is_dir() or args.out.suffix != ".json"):
        raise UsageError(f"--out must name a .json file, not {args.out}")
    if args.storage is not None:
        storages.check(args.storage)
    return Request(
        device=args.device,
        models=models,
        kernels=wanted,
        weights=weights,
        act=args.act,
        compute=args.compute,
        cache=args.cache,
        seconds=args.seconds,
        out=args.out,
        seed=args.seed,
        sampler=args.sampler,
        retry_crashed=args.retry_crashed,
        max_programs=args.max_programs,
        objectives=objectives(args.objectives),
        max_dispatch_ms=args.max_dispatch_ms,
        priority=args.priority,
        performance=args.performance,
        cool_below=args.cool_below,
        lock_clocks=args.lock_clocks,
        storage=args.storage,
        trials=args.trials,
        require_device=args.require_device,
    )


def objectives(text: str) -> tuple[str, ...]:
    """Names of objectives given as a,b. Raises UsageError naming the choices; time is always one, and the first."""
    names = _names(text)
    if unknown := [name for name in names if name not in OBJECTIVES]:
        raise UsageError(f'unknown objective "{unknown[0]}"; choose from {", ".join(OBJECTIVES)}')
    return tuple(name for name in OBJECTIVES if name in names or name == "time") if names else ()


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
