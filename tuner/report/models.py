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
    phases: dict[tuple[str, str, str | None], Phase] = {}
    for model in request.get("models", ()):
        for weights in request.get("weights", ()):
            for name, jobs in _passes(request, model, weights).items():
                phase = _phase(model, name, weights, jobs, request.get("kernels", ()), by_key)
                phases.setdefault((model, name, phase.weights), phase)
    return [phase for phase in phases.values() if phase.missing < phase.kernels]


def _passes(request: Mapping[str, Any], model: str, weights: str) -> dict[str, list[Job]]:
    """The jobs of each pass, as `kernels.plan` asks for them; the extras that only settle borders are no pass."""
    try:
        ask = Ask((weights,), request["act"], request["compute"], request["cache"], ROWS, CONTEXT)
        sheet = load_model(model)
    except (KeyError, ValueError):
        return {}
    found: dict[str, list[Job]] = {}
    for family in kernels.families().values():
        for job in family.jobs(sheet, ask)[0]:
            found.setdefault(job.phase, []).append(job)
    return {name: jobs for name, jobs in found.items() if name.startswith(("decode", "prefill"))}


def _phase(
    model: str, name: str, weights: str, every: Sequence[Job], asked: Sequence[str], found: Mapping[str, Measured]
) -> Phase:
    jobs = [job for job in every if job.workload.family in asked]
    families = tuple(dict.fromkeys(job.workload.family for job in jobs))
    whole_pass = len(families) == len({job.workload.family for job in every})
    here = [(job.count, found[job.workload.key]) for job in jobs if job.workload.key in found]
    complete = bool(here) and len(here) == len(jobs)
    default_ns = sum(count * (kernel.default_ns or 0.0) for count, kernel in here)
    lows, highs = (sum(count * kernel.interval_ns[end] for count, kernel in here) for end in (0, 1))
    return Phase(
        model=model,
        name=name,
        weights=weights if any(job.workload.weights for job in jobs) else None,
        only=() if whole_pass else families,
        kernels=len({job.workload.key for job in jobs}),
        missing=len({job.workload.key for job in jobs} - set(found)),
        tuned_ns=sum(count * kernel.ns for count, kernel in here) if complete else None,
        tuned_interval_ns=(lows, highs) if complete else None,
        default_ns=default_ns if complete and all(kernel.default_ns for _, kernel in here) else None,
    )
