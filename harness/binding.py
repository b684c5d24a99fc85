"""Puts a candidate's buffers on the device: inputs by content, written ones between margins that must stay clean.

Everything a kernel writes (outputs, in-place buffers, scratch) is a sub-buffer inside a larger buffer. Margins and
fresh outputs hold 0xff bytes: a NaN in every float format, so that what is read before it is written poisons the
result, and what is written outside is seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from harness.buffers import Blob, BufferStore
from harness.candidate import Candidate, Ref, launches
from harness.case import CaseStore
from harness.supervisor import Supervisor
from kernels.spec import DeviceSheet, Stored, evaluate

MARGIN_BYTES = 4096  # a stray vector store, or a row too many of a small output, lands inside
POISON = 0xFF


@dataclass(frozen=True)
class Bench:
    """One device and what is prepared for it."""

    supervisor: Supervisor
    sheet: DeviceSheet
    store: BufferStore
    cases: CaseStore
    margin_bytes: int = MARGIN_BYTES  # at both ends of what is written; 0 where the device itself watches every access
    texels: bool = False  # a buffer of texels stands in for each image


@dataclass(frozen=True)
class Guarded:
    """A written buffer between its margins."""

    name: str  # of the ABI argument or scratch
    buf: str
    bytes: int
    margin: int
    stored: Stored | None = None  # of an output or in-place buffer

    @property
    def ref(self) -> Ref:
        """The part between the margins, as a launch argument."""
        return {"buf": self.buf, "offset": self.margin, "bytes": self.bytes}


@dataclass(frozen=True)
class Bound:
    """A candidate with every argument in its place, ready to run."""

    program: str
    launches: Sequence[Mapping[str, Any]]
    outputs: Mapping[str, Guarded]  # outputs and in-place buffers
    scratch: Mapping[str, Guarded]
    cold: tuple[str, ...]  # resident buffers that a cold measurement rotates
    restore: tuple[tuple[str, str], ...]  # (in-place buffer, its pristine content)

    @property
    def buffers(self) -> tuple[str, ...]:
        """Buffers that belong to this candidate alone and are dropped with it."""
        guarded = [part.buf for part in (*self.outputs.values(), *self.scratch.values())]
        return (*guarded, *(source for _, source in self.restore))


def bind(bench: Bench, candidate: Candidate, copies: int = 1) -> Bound:
    """Put everything on the device: inputs and weights by content, written buffers poisoned. The program is not built.

    `copies` is how many of each weight or cache a rotation will want. Raises what the supervisor raises.
    """
    family, workload = candidate.family, candidate.workload
    case = bench.cases.case(family, workload)
    blobs = bench.cases.packed(family, workload, candidate.layouts)
    cold, inouts = family.abi.cold, family.abi.names("inout")  # formats and options may leave some of them out
    align = bench.supervisor.hello().device["mem_base_addr_align_bytes"]
    margin = max(bench.margin_bytes, align) if bench.margin_bytes else 0
    refs: dict[str, Ref] = {}
    for name, blob in blobs.items():
        if name not in inouts:
            refs[name] = {"buf": bench.store.ensure(blob, copies if name in cold else 1)}
    outputs, restore = {}, []
    in_place = {name: blobs[name].stored for name in inouts if name in blobs}
    for name, stored in {**case.outputs, **in_place}.items():
        assert stored is not None, f"{name} was packed from an array"
        size = prod(stored.shape) * stored.dtype.itemsize
        outputs[name] = Guarded(name, f"guarded:{name}:{size}", size, margin, stored)
        if name in inouts:
            restore.append(_pristine(bench, outputs[name], blobs[name]))
        _poison(bench, outputs[name])
    scratch = {}
    for part in candidate.schedule.scratch:
        size = evaluate(part.bytes, workload.dims)
        scratch[part.name] = Guarded(part.name, f"guarded:{part.name}:{size}", size, margin)
        _poison(bench, scratch[part.name])
    refs |= {name: guarded.ref for name, guarded in (outputs | scratch).items()}
    return Bound(
        candidate.program,
        launches(candidate, refs, texels=bench.texels),
        outputs,
        scratch,
        tuple(str(refs[name]["buf"]) for name in cold if name in refs),
        tuple(restore),
    )


def _poison(bench: Bench, guarded: Guarded) -> None:
    bench.supervisor.fill(guarded.buf, guarded.bytes + 2 * guarded.margin, bytes([POISON]))


def _pristine(bench: Bench, guarded: Guarded, blob: Blob) -> tuple[str, str]:
    """Put an in-place buffer's first content, margins included, where every launch can be preceded by a copy of it."""
    whole = np.full(guarded.bytes + 2 * guarded.margin, POISON, np.uint8)
    whole[guarded.margin : guarded.margin + guarded.bytes] = np.frombuffer(blob.data, np.uint8)
    source = f"pristine:{guarded.name}:{guarded.bytes}"
    bench.supervisor.put(source, whole.data)
    return guarded.buf, source
