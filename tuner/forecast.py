"""How long a whole model should take on a device, phase by phase and family by family, in columns that are never mixed.

`roofline`: what the device's peaks allow, every tensor touched once. `kiln`: the cost model's time of Kiln's own best
configurations, in the layouts that serve the whole model. `replay`: what Transformer-Lite would take, if it reached the
same part of the roofline in each phase as it did on Gemma 2B: a prefill's part for every phase of many rows, decoding's
for decoding. None of the three is a measurement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import kernels
from harness.errors import KilnError
from kernels.jobs import Ask, Job
from kernels.models import ModelSheet, load_model
from kernels.peaks import Peaks
from kernels.plan import Planned
from kernels.published import FIGURES, Published
from kernels.space import Layout, Space, layout_of
from kernels.spec import Workload
from tuner import layouts, setting
from tuner.absent import Claim, shortlist
from tuner.choose import Searched, choose_layouts, group_key

_ORDER = {"prefill": 0, "decode": 1}  # and then the towers
KilnTimes = Mapping[Workload, float | None]  # ns of one call; None: Kiln has no legal configuration

ENGINE = "Transformer-Lite"
FITTED_ON, FITTED_PROMPT, FITTED_WEIGHTS = "gemma-2b", 128, "int4/g128"  # the paper does not say its groups' size


@dataclass(frozen=True)
class Part:
    """What one family does in one phase."""

    phase: str  # "prefill", "decode", "image", …
    family: str
    calls: int
    flops: float
    bytes: float  # every tensor touched once
    roofline_ns: float
    kiln_ns: float | None  # None: Kiln has no legal configuration of some workload there


@dataclass(frozen=True)
class Phase:
    """One pass of the model."""

    name: str
    tokens: int  # that it reads or writes; 0 for an encoder
    about: str  # for people
    parts: tuple[Part, ...]

    @property
    def roofline_ns(self) -> float:
        """Of the whole phase."""
        return sum(part.roofline_ns for part in self.parts)

    @property
    def kiln_ns(self) -> float | None:
        """Of the whole phase; None where a part has none."""
        times = [part.kiln_ns for part in self.parts]
        return None if None in times else sum(time for time in times if time is not None)

    def tokens_per_s(self, ns: float | None) -> float | None:
        """Speed at that time of the whole phase."""
        return self.tokens / ns * 1e9 if ns and self.tokens else None


def roofline_ns(workload: Workload, peaks: Peaks) -> float:
    """The larger of bytes over bandwidth and FLOPs over the rate of the workload's arithmetic.

    Activations that fit a last-level cache of known size need no memory, as in `harness.probe.limit`.
    """
    cost = kernels.families()[workload.family].cost(workload)
    moved = cost.cold if cost.bytes - cost.cold <= peaks.last_level_cache_bytes else cost.bytes
    rates = peaks.flops_per_ns
    rate = rates.get(workload.dtypes.compute) or rates.get("fp32") or max(rates.values())
    return max(moved / peaks.read_per_ns, cost.flops / rate)


def phases(
    sheet: ModelSheet, ask: Ask, peaks: Peaks, kiln: Mapping[Workload, float | None] | None = None
) -> list[Phase]:
    """Each pass of a model; without Kiln's times its column is empty."""
    groups: dict[str, dict[str, list[Job]]] = {}
    for job in _jobs(sheet, ask):
        groups.setdefault(job.phase, {}).setdefault(job.workload.family, []).append(job)
    found = []
    for phase in sorted(groups, key=lambda phase: _ORDER.get(phase.split()[0], len(_ORDER))):
        families = groups[phase]
        parts = [_part(_name(phase), family, jobs, peaks, kiln or {}) for family, jobs in families.items()]
        tokens, about = _about(phase, ask)
        found.append(Phase(_name(phase), tokens, about, tuple(parts)))
    return found


def _about(phase: str, ask: Ask) -> tuple[int, str]:
    if phase == "decode":
        return 1, f"decode: one token, {ask.context} cached"
    if phase.startswith("prefill"):
        return max(ask.m), f"prefill: {max(ask.m)} tokens"
    return 0, f"{_name(phase)} encoder"


def _jobs(sheet: ModelSheet, ask: Ask) -> list[Job]:
    return [job for family in kernels.families().values() for job in family.jobs(sheet, ask)[0]]


def _name(phase: str) -> str:
    return phase.partition(" ")[0] if phase.startswith("prefill") else phase.removeprefix("tower ")


def _part(phase: str, family: str, jobs: Sequence[Job], peaks: Peaks, kiln: KilnTimes) -> Part:
    costs = [(job.count, kernels.families()[family].cost(job.workload)) for job in jobs]
    times = [(job.count, kiln.get(job.workload)) for job in jobs]
    return Part(
        phase,
        family,
        calls=sum(job.count for job in jobs),
        flops=sum(count * cost.flops for count, cost in costs),
        bytes=sum(count * cost.bytes for count, cost in costs),
        roofline_ns=sum(job.count * roofline_ns(job.workload, peaks) for job in jobs),
        kiln_ns=None if any(ns is None for _, ns in times) else sum(count * (ns or 0.0) for count, ns in times),
    )


def kiln_times(sheet: ModelSheet, ask: Ask, claim: Claim) -> KilnTimes:
    """Per workload, the predicted time of the best legal configuration in the layouts chosen for the whole model."""
    counts: dict[Workload, int] = {}
    for asked in _jobs(sheet, ask):
        counts[asked.workload] = counts.get(asked.workload, 0) + asked.count
    jobs: list[setting.Job] = []
    times: dict[Workload, float | None] = dict.fromkeys(counts)
    for workload, count in counts.items():
        family = kernels.families()[workload.family]
        space, default = Space(family, workload, claim.sheet), family.default(workload, claim.sheet)
        if space.reject(default) is None:
            jobs.append(setting.Job(Planned(workload, count, 0.0, 0.0), space, default, limit_ns=0.0))
    layouts.agree(jobs)
    listed = {job.workload: shortlist(job.space, job.default, claim.peaks) for job in jobs}
    searched = [Searched(job.workload, job.planned.count, tuple(listed[job.workload]), job.default) for job in jobs]
    try:
        chosen = choose_layouts(kernels.families(), searched)
    except ValueError as error:
        raise KilnError(str(error)) from error
    for job in jobs:
        layout = chosen[group_key(job.space.family, job.workload)]
        times[job.workload] = min(one.cost_ns for one in listed[job.workload] if _reads(job, one.config, layout))
    return times


def _reads(job: setting.Job, config: Mapping[str, object], layout: Layout) -> bool:
    variant = job.space.family.variant(str(config["variant"]))
    return layout_of(variant, config, job.workload) == layout


# ---------------------------------------------------------------- Transformer-Lite, replayed


@dataclass(frozen=True)
class Replay:
    """Which part of the roofline Transformer-Lite reached on Gemma 2B, by kind of phase; None: not published."""

    device: str  # whose figures were fitted
    many_rows: float | None
    decode: float | None

    def ns(self, phase: Phase) -> float | None:
        """What it would take for a phase, at the same part of that phase's roofline."""
        return self.of_roofline(phase.name, phase.roofline_ns)

    def of_roofline(self, phase: str, ns: float) -> float | None:
        """The same for any time at the roofline."""
        part = self.decode if phase == "decode" else self.many_rows
        return None if part is None else ns / part


def fit(device: str, peaks: Peaks) -> Replay:
    """From the device's own published figures, or the Adreno 750's where it has none."""
    fitted = device if _figure(device, "prefill") else "adreno750"
    if fitted != device:
        peaks = Claim.of(fitted).peaks
    gemma = {phase.name: phase for phase in phases(load_model(FITTED_ON), ask_like_the_paper(), peaks)}
    parts = {}
    for name in ("prefill", "decode"):
        figure = _figure(fitted, name)
        parts[name] = gemma[name].roofline_ns / figure.ns if figure else None
    return Replay(fitted, parts["prefill"], parts["decode"])


def _figure(device: str, phase: str) -> Published | None:
    wanted = (FITTED_ON, phase, ENGINE, device)
    return next((f for f in FIGURES if (f.model, f.phase, f.engine, f.device) == wanted), None)


def ask_like_the_paper(prompt: int = FITTED_PROMPT, weights: str = FITTED_WEIGHTS) -> Ask:
    """Activations, arithmetic and cache in half precision, as arXiv 2403.20041 runs its models."""
    return Ask((weights,), "fp16", "fp16", "fp16", (1, prompt), prompt)


def ask_for(prompt: int, context: int, weights: str, compute: str, cache: str) -> Ask:
    """What a forecast is asked for."""
    return replace(ask_like_the_paper(prompt, weights), compute=compute, cache=cache, context=context)  # type: ignore[arg-type]
