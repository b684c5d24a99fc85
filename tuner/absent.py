"""Tuning for a device that is not here: candidates proven right on a CPU held to its limits, ranked by the cost model.

Layouts and buckets are chosen as in a measured run, from predicted times. Every entry says `predicted`, and by which
device it was proven; what nothing here could execute is left out. An engine loads such entries only when it asks to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import kernels
from harness.candidate import Candidate
from harness.devices import DeviceChoice, list_devices, resolve
from harness.errors import DeviceMissing, KilnError, UsageError
from kernels.claims import device_sheet, peaks
from kernels.identity import claimed
from kernels.peaks import Peaks
from kernels.plan import Planned
from kernels.sheet import Sheet, load_sheet, sheet_names
from kernels.space import Layout, Space, layout_of
from kernels.spec import Config, DeviceSheet, Workload
from kernels.tuned import DeviceFacts
from tuner import layouts
from tuner.choose import Searched, choose_layouts, group_key
from tuner.predict import MODEL_VERSION, Predicted, predict, rank
from tuner.proofs import Proves
from tuner.proving import Proof, hosts
from tuner.request import Request
from tuner.setting import Job, open_jobs

KEPT = 6  # configurations of each layout and variant that may be chosen: the model's best are much alike
ALTERNATES = 2  # proven ones beside the winner, for devices that reject it, while there is time
FAILURES = 3  # of one variant at one size, after which its others are not tried


@dataclass(frozen=True)
class Claim:
    """What is known of the device: its sheet in the forms that legality, the model and a document work with."""

    name: str
    title: str  # for people
    facts: DeviceFacts
    peaks: Peaks
    sources: Sheet

    @property
    def sheet(self) -> DeviceSheet:
        """Its limits."""
        return self.facts.sheet

    @staticmethod
    def of(name: str) -> Claim:
        """A sheet's claim. Raises KilnError where it does not say enough to rank anything."""
        sheet = load_sheet(name)
        found = peaks(sheet)
        if found is None or not found.flops_per_ns:
            raise KilnError(
                f"the sheet of {sheet.identity.model} does not say how fast it reads and multiplies, so that nothing "
                "can be ranked without it; connect the device"
            )
        return Claim(name, sheet.identity.model, replace(claimed(sheet), sheet=device_sheet(sheet)), found, sheet)


@dataclass(frozen=True)
class Ranked:
    """A configuration with its prediction."""

    config: Config
    predicted: Predicted

    @property
    def cost_ns(self) -> float:
        """The predicted time."""
        return self.predicted.ns


@dataclass(frozen=True)
class Foreseen:
    """What was decided for one workload."""

    job: Job
    default: Ranked
    chosen: tuple[tuple[Ranked, Proof], ...]  # the winner first

    @property
    def workload(self) -> Workload:
        """What it is for."""
        return self.job.workload

    def candidate(self, ranked: Ranked) -> Candidate:
        """A configuration of this workload."""
        return self.job.candidate(ranked.config)


def missing(request: Request) -> str | None:
    """Why a run must do without its device: no such GPU is attached. None where there is one.

    Raises DeviceMissing where the request insists on the device, names no model, or nothing here can prove anything.
    """
    if request.device not in sheet_names():
        return None
    try:
        resolve(request.device)
    except DeviceMissing as error:
        if request.require_device or not any(d.description["type"] == "cpu" for d in list_devices().devices):
            raise
        return str(error).partition("; ")[0]
    return None


def check(request: Request) -> None:
    """Raises UsageError for options that need the device itself."""
    given = {
        "--storage": request.storage,
        "--objectives": request.objectives,
        "--max-programs": request.max_programs,
        "--max-dispatch-ms": request.max_dispatch_ms,
        "--priority": request.priority,
        "--performance": request.performance,
        "--cool-below": request.cool_below,
        "--lock-clocks": request.lock_clocks,
    }
    if names := [name for name, value in given.items() if value]:
        raise UsageError(f"{names[0]} needs the device itself, and no {request.device} is attached; leave it out")


def foresee(
    request: Request, claim: Claim, planned: Sequence[Planned], prover: Proves, say: Callable[[str], None]
) -> list[Foreseen]:
    """Rank, choose layouts, prove. Raises KilnError where nothing can be proven."""
    jobs = open_jobs(planned, claim.sheet, claim.title, say, lambda workload: 0.0)
    layouts.agree(jobs)
    ranked: dict[Workload, list[Ranked]] = {}
    for job in jobs:
        able = partial(_able, prover, job)
        ranked[job.workload] = shortlist(job.space, job.default, claim.peaks, able)
    say(f"ranked {len(jobs)} workloads by {MODEL_VERSION}; proving the best that can run here")
    searched = [Searched(job.workload, job.planned.count, tuple(ranked[job.workload]), job.default) for job in jobs]
    try:
        chosen = choose_layouts(kernels.families(), searched)
    except ValueError as error:
        raise KilnError(str(error)) from error
    found, end = [], time.monotonic() + request.seconds
    for job in jobs:
        say(f"proving {job.name}")
        layout = chosen[group_key(job.space.family, job.workload)]
        foreseen = _prove(job, ranked[job.workload], layout, prover, end, say)
        found += [foreseen] if foreseen.chosen else []
    if not found:
        raise KilnError(f"nothing here could execute any candidate for {claim.title}; see the notes above")
    return found


def _able(prover: Proves, job: Job, config: Config) -> bool:
    return prover.able(job.candidate(config))


def shortlist(
    space: Space, default: Config, peaks: Peaks, able: Callable[[Config], bool] = lambda config: True
) -> list[Ranked]:
    """The model's best KEPT of each layout and variant that are `able` to be run, and the default, fastest first."""
    kept: dict[tuple[Layout, str], list[Ranked]] = {}
    for found, config in rank(space.family, space.workload, space.configs(), space.sheet, peaks):
        variant = space.family.variant(config["variant"])
        mine = kept.setdefault((layout_of(variant, config, space.workload), variant.name), [])
        if len(mine) < KEPT and able(config):
            mine.append(Ranked(config, found))
    every = [one for mine in kept.values() for one in mine]
    if not any(dict(one.config) == dict(default) for one in every):
        every.append(Ranked(default, predict(space.family, space.workload, default, space.sheet, peaks)))
    return sorted(every, key=lambda one: one.cost_ns)


def _prove(
    job: Job, ranked: Sequence[Ranked], layout: Layout, prover: Proves, end: float, say: Callable[[str], None]
) -> Foreseen:
    """Down the ranking until one is proven, and its alternates while there is time."""
    family, workload = job.space.family, job.workload
    default = next(one for one in ranked if dict(one.config) == dict(job.default))
    able = [one for one in ranked if layout_of(family.variant(one.config["variant"]), one.config, workload) == layout]
    failures: dict[str, int] = {}
    proven: list[tuple[Ranked, Proof]] = []
    for one in able:
        if len(proven) > ALTERNATES or (proven and time.monotonic() > end):
            break
        variant = one.config["variant"]
        if failures.get(variant, 0) >= FAILURES:
            continue
        found = prover.prove(job.candidate(one.config))
        if isinstance(found, Proof):
            proven.append((one, found))
        else:
            failures[variant] = failures.get(variant, 0) + 1
            why = found.why.strip().splitlines()[:1] or [""]
            say(f"note: {job.candidate(one.config)} is not proven: {found.verdict}, {why[0][:160]}")
    if not proven:
        say(f"note: {job.name} is left out: no device here could execute a candidate of the chosen layout")
    return Foreseen(job, default, tuple(proven))


def first_line(claim: Claim, why: str, choices: Sequence[str]) -> str:
    """What a run without its device does instead."""
    return (
        f"{why}: candidates for {claim.title} are proven on {' and '.join(choices)}, held to its limits, and ranked by "
        f"{MODEL_VERSION}; every entry will say predicted (--require-device makes this an error)"
    )


def default_out(claim: Claim) -> Path:
    """Where the document goes when the request does not say."""
    return Path("results") / "local" / f"{claim.name}.json"


def provers() -> list[DeviceChoice]:
    """The devices here that can prove, the ablest first."""
    return hosts(list_devices())


def protocol(claim: Claim, choices: Sequence[str]) -> Mapping[str, Any]:
    """How the entries came about, for the document."""
    p = claim.peaks
    return {
        "id": f"predicted-{MODEL_VERSION}",
        "clock": "none: nobody has timed this",
        "statistic": "time of one call by the cost model, weights cold",
        "proven_on": list(choices),
        "peaks": {
            "read_gb_per_s": p.read_per_ns,
            "copy_gb_per_s": p.copy_per_ns,
            "gflops": dict(p.flops_per_ns),
            "launch_ns": p.launch_ns,
            "registers": p.registers_per_work_item,
            "wave": p.wave,
            "compute_units": p.compute_units,
        },
    }
