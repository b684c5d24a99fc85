"""Proves candidates for a device that is not here on a CPU that is: right or not, never fast or not.

The CPU is held to the absent device's limits: it may have no larger work-group, no more local memory, no wider image
and no extension that the other lacks. What the CPU itself lacks is emulated (`harness.emulation`), as little of it as
will do. Where one CPU driver cannot execute a candidate another one may; a wrong result anywhere is the last word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import TracebackType
from typing import Self

from harness.candidate import Candidate
from harness.devices import Attached, DeviceChoice
from harness.emulation import Form, forms
from harness.measure import Meter
from harness.supervisor import Supervisor
from harness.validate import prove
from kernels.identity import identify
from kernels.space import Space
from kernels.spec import DeviceSheet, Errors, Measurement, Verdict, Workload
from kernels.tuned import ProvenOn

# Of one call's operations at the candidate's own size: a second or two of NumPy and as much of a CPU running a kernel
# for phones. Beyond them fewer rows of the same build are proven, and the awkward shapes as always.
MOST_FLOPS = 2e9
_FEW_ROWS = (64, 17, 1)
# Subgroups wider than these are emulated: 64 lanes take Intel's compiler 12 to 20 s a kernel, 32 lanes four (Zen 3).
_WIDEST_SUBGROUP = 32
_SUBGROUPS = frozenset({"cl_intel_subgroups", "cl_intel_required_subgroup_size"})  # how a host may call what it has
_TRUE_SUBGROUPS = "#define SUBGROUPS 1"  # in a source that uses them (`_common/teams.clh`)


@dataclass(frozen=True)
class Proof:
    """A candidate that gave the right answers."""

    errors: Errors
    on: ProvenOn


@dataclass(frozen=True)
class Refusal:
    """A candidate that did not, or that nothing here could execute."""

    verdict: Verdict
    why: str


def hosts(attached: Attached) -> list[DeviceChoice]:
    """CPUs to prove on: first those that have by themselves what phones have."""
    found = [device.choice() for device in attached.devices if device.description["type"] == "cpu"]

    def lacks(choice: DeviceChoice) -> int:
        sheet = choice.sheet
        wanted = ("cl_khr_fp16", "cl_khr_integer_dot_product")
        return sum(not sheet.has(name) for name in wanted) + (not sheet.subgroup_sizes) + (not sheet.image_pitch_texels)

    return sorted(found, key=lacks)


def held_to(host: DeviceSheet, claim: DeviceSheet) -> DeviceSheet:
    """The claimed device as far as the host can be it: of every limit the lower one."""
    images = host.image2d and claim.image2d
    pitch = claim.image_pitch_texels if host.image_pitch_texels else 0
    fits = pitch and pitch % host.image_pitch_texels == 0
    sizes = tuple(n for n in claim.subgroup_sizes if n in host.subgroup_sizes and n <= _WIDEST_SUBGROUP)
    return replace(
        claim,
        max_work_group=min(host.max_work_group, claim.max_work_group),
        local_bytes=min(host.local_bytes, claim.local_bytes),
        max_alloc_bytes=min(host.max_alloc_bytes, claim.max_alloc_bytes),
        image2d=(min(host.image2d[0], claim.image2d[0]), min(host.image2d[1], claim.image2d[1]))  # type: ignore[index]
        if images
        else None,
        image_pitch_texels=pitch if fits else 0,
        image_base_texels=claim.image_base_texels if fits else 0,
        subgroup_sizes=sizes,
        extensions=host.extensions & (claim.extensions | (_SUBGROUPS if sizes else frozenset())),
        opencl_c=min(host.opencl_c, claim.opencl_c),
    )


@dataclass
class Host:
    """One CPU driver, kept running."""

    choice: DeviceChoice
    claim: DeviceSheet
    supervisor: Supervisor = field(init=False)
    meter: Meter = field(init=False)

    def __post_init__(self) -> None:
        self.supervisor = Supervisor(self.choice.command, link=self.choice.link)
        limits = {name: getattr(self.held, name) for name in ("max_work_group", "local_bytes")}
        self.meter = Meter(self.supervisor, replace(self.choice.sheet, **limits))

    @cached_property
    def held(self) -> DeviceSheet:
        """What it may be used for."""
        return held_to(self.choice.sheet, self.claim)

    def form(self, candidate: Candidate) -> Form | None:
        """The form that emulates least in which the candidate is legal here; None where it is in none.

        An emulation must not give the claimed device what it does not have.
        """
        one = replace(candidate.family, variants=(candidate.variant,))
        for form in forms():
            sheet = form.claim(self.held)
            if Space(one, candidate.workload, sheet).illegal(candidate.config) is None:
                return form
        return None

    def prove(self, candidate: Candidate) -> Proof | Refusal:
        """Build it in its form, run it on its own shape or a smaller one and on the awkward ones, compare."""
        form = self.form(candidate)
        if form is None:
            return Refusal(Verdict.UNSUPPORTED, f"{self.choice.slug} has no form in which it is legal")
        sheet = form.claim(self.held)
        shown = form.of(candidate.variant, self.held)
        family = replace(candidate.family, variants=(shown,))
        small = affordable(Candidate(family, candidate.workload, candidate.config), sheet)
        found = prove(self.meter, small, sheet, texels=form.texels)
        if isinstance(found, Measurement):
            return Refusal(found.verdict, found.log)
        return Proof(found, self.proven_on(candidate, form))

    def proven_on(self, candidate: Candidate, form: Form) -> ProvenOn:
        """This device, and what of the candidate's was emulated on it."""
        facts = identify(self.choice.description, self.choice.sheet)
        emulated = f", with {form}" if form.emulations else ""
        halves = candidate.workload.dtypes.compute == "fp16" and self.held.has("cl_khr_fp16")
        emulated_too = any(emulation.name == "a tree for subgroups" for emulation in form.emulations)
        true_ones = _TRUE_SUBGROUPS in candidate.variant.source and not emulated_too
        return ProvenOn(
            f"{facts.vendor} {facts.model}{emulated}",
            "native" if halves else "emulated",
            int(candidate.config["LANES"]) if true_ones else None,
        )

    def close(self) -> None:
        """End its runner."""
        self.supervisor.close()


def affordable(candidate: Candidate, sheet: DeviceSheet) -> Candidate:
    """The candidate, or the same program with fewer rows where its own size takes too long on a CPU."""
    family, workload = candidate.family, candidate.workload
    if family.cost(workload).flops <= MOST_FLOPS or "M" not in workload.dims:
        return candidate
    for rows in (n for n in _FEW_ROWS if n < workload.dims["M"]):
        smaller = _with_rows(workload, rows)
        moved = candidate.at(smaller, sheet)
        if moved is not None and family.cost(smaller).flops <= MOST_FLOPS:
            return moved
    return candidate


def _with_rows(workload: Workload, rows: int) -> Workload:
    """Fewer rows; a cache that grew by all of them is as much shorter."""
    if workload.dims.get("T") == workload.dims["M"]:
        return workload.with_dims(M=rows, T=rows)
    return workload.with_dims(M=rows)


class Prover:
    """All CPU drivers here, tried in order. Use it as a context manager."""

    def __init__(self, choices: Sequence[DeviceChoice], claim: DeviceSheet) -> None:
        self._hosts = [Host(choice, claim) for choice in choices]
        self._known: dict[Candidate, Proof | Refusal] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        for host in self._hosts:
            host.close()

    def able(self, candidate: Candidate) -> bool:
        """Whether there is a form in which a device here may run it."""
        return any(host.form(candidate) is not None for host in self._hosts)

    def prove(self, candidate: Candidate) -> Proof | Refusal:
        """The first driver's proof; the first wrong result ends it, what a driver cannot execute the next one may."""
        if candidate not in self._known:
            self._known[candidate] = self._prove(candidate)
        return self._known[candidate]

    def _prove(self, candidate: Candidate) -> Proof | Refusal:
        refusals = []
        for host in self._hosts:
            found = host.prove(candidate)
            if isinstance(found, Proof) or found.verdict is Verdict.WRONG_RESULT:
                return found
            refusals.append(Refusal(found.verdict, f"{host.choice.slug}: {found.why}"))
        return refusals[0] if refusals else Refusal(Verdict.UNSUPPORTED, "there is no CPU device here")
