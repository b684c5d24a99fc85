"""What a model sheet tells of a study: which parts of a model call a kernel, and how long one pass of it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import kernels
from kernels.jobs import Ask, Job
from kernels.plan import CONTEXT, ROWS, load_model, plan
from tuner.report.nouns import Measured, Phase

Parts = Mapping[str, Mapping[str, str]]  # workload's key → model → its parts


def parts_of(request: Mapping[str, Any]) -> tuple[Parts, list[str]]:
    """Which parts of the request's models call each workload, and notes on models that this Kiln cannot plan."""
    found: dict[str, dict[str, str]] = {}
    notes = []
    for model in request.get("models", ()):
        try:
            planned = plan(
                model,
                formats=request["weights"],
                act=request["act"],
                compute=request["compute"],
                cache=request["cache"],
                families=[name for name in request["kernels"] if name in kernels.families()],
            )
        except (KeyError, TypeError, ValueError) as error:
            notes.append(f"which parts of {model} call a kernel is not told: {error}")
            continue
        for item in planned:
            found.setdefault(item.workload.key, {})[model] = item.workload.label.partition(" ")[2]
    return found, notes


def phases_of(request: Mapping[str, Any], found: Sequence[Measured]) -> list[Phase]:
    """Decoding one token and each prefill, per model and weight format; sums only where no kernel is missing."""
    by_key = {kernel.workload.key: kernel for kernel in found}
    phases = []
    for model in request.get("models", ()):
        for weights in request.get("weights", ()):
            for name, jobs in _passes(request, model, weights).items():
                phases.append(_phase(model, name, weights, jobs, by_key))
    return [phase for phase in phases if phase.missing < phase.kernels]


def _passes(request: Mapping[str, Any], model: str, weights: str) -> dict[str, list[Job]]:
    """The jobs of each pass, as `kernels.plan` asks for them; the extras that only settle borders are no pass."""
    try:
        ask = Ask((weights,), request["act"], request["compute"], request["cache"], ROWS, CONTEXT)
        sheet = load_model(model)
    except (KeyError, ValueError):
        return {}
    found: dict[str, list[Job]] = {}
    for name, family in kernels.families().items():
        for job in family.jobs(sheet, ask)[0] if name in request["kernels"] else ():
            found.setdefault(job.phase, []).append(job)
    return {name: jobs for name, jobs in found.items() if name.startswith(("decode", "prefill"))}


def _phase(model: str, name: str, weights: str, jobs: Sequence[Job], found: Mapping[str, Measured]) -> Phase:
    mine = [(job.count, found.get(job.workload.key)) for job in jobs]
    here = [(count, kernel) for count, kernel in mine if kernel is not None]
    whole = len(here) == len(mine)
    defaults = [(count, kernel.default_ns) for count, kernel in here]
    default_ns = sum(count * ns for count, ns in defaults if ns is not None)
    return Phase(
        model=model,
        name=name,
        weights=weights,
        calls=sum(job.count for job in jobs),
        kernels=len({job.workload.key for job in jobs}),
        missing=len({job.workload.key for job in jobs} - set(found)),
        tuned_ns=sum(count * kernel.ns for count, kernel in here) if whole else None,
        tuned_interval_ns=(
            sum(count * kernel.interval_ns[0] for count, kernel in here),
            sum(count * kernel.interval_ns[1] for count, kernel in here),
        )
        if whole
        else None,
        default_ns=default_ns if whole and all(ns is not None for _, ns in defaults) else None,
    )
