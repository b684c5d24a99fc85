"""Prepares the inputs and right answers of workloads once, and packs them per layout, within a bound on host memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.buffers import Blob
from kernels.spec import Case, Family, Workload

HOST_BYTES = 640 << 20  # Gemma's lm_head, 279 MB, as it was drawn and in one layout, and some of its other shapes
SEED = 0  # one seed for all candidates of a workload: they answer the same question


@dataclass
class _Entry:
    case: Case
    bytes: int  # expected values
    canonical_bytes: int = 0  # tensors that the case's closure holds, known once they have been packed
    packed: OrderedDict[tuple[tuple[str, str], ...], Mapping[str, Blob]] = field(default_factory=OrderedDict)

    @property
    def total_bytes(self) -> int:
        return self.bytes + self.canonical_bytes + sum(_bytes(blobs) for blobs in self.packed.values())


def _bytes(blobs: Mapping[str, Blob]) -> int:
    return sum(blob.size for blob in blobs.values())


class CaseStore:
    """Cases by workload and their tensors by layout, the least recently used forgotten first."""

    def __init__(self, bound_bytes: int = HOST_BYTES) -> None:
        self._bound_bytes = bound_bytes
        self._entries: OrderedDict[Workload, _Entry] = OrderedDict()

    @property
    def bytes(self) -> int:
        """Host memory held, as far as it can be seen."""
        return sum(entry.total_bytes for entry in self._entries.values())

    def case(self, family: Family, workload: Workload) -> Case:
        """The workload's inputs and expected outputs, made on first use."""
        return self._entry(family, workload).case

    def _entry(self, family: Family, workload: Workload) -> _Entry:
        entry = self._entries.get(workload)
        if entry is None:
            case = family.case(workload, SEED)
            entry = _Entry(case, sum(int(array.nbytes) for array in case.expected.values()))
            self._entries[workload] = entry
        self._entries.move_to_end(workload)
        return entry

    def packed(self, family: Family, workload: Workload, layouts: Mapping[str, str]) -> Mapping[str, Blob]:
        """Every input and weight by ABI name, packed as `layouts` says, each with its content address."""
        entry = self._entry(family, workload)
        key = tuple(sorted(layouts.items()))
        if key not in entry.packed:
            blobs = {name: Blob.of(array) for name, array in entry.case.pack(layouts).items()}
            entry.canonical_bytes = entry.canonical_bytes or _bytes(blobs)  # about as much as one packed form
            entry.packed[key] = blobs
        entry.packed.move_to_end(key)
        found = entry.packed[key]
        self._evict(entry, key)
        return found

    def _evict(self, keep: _Entry, key: tuple[tuple[str, str], ...]) -> None:
        """Forget packings oldest first, then whole cases, but never what was just asked for."""
        excess = self.bytes - self._bound_bytes
        for workload, entry in list(self._entries.items()):
            for other in list(entry.packed):
                if excess <= 0:
                    return
                if entry is not keep or other != key:
                    excess -= _bytes(entry.packed.pop(other))
            if entry is not keep and excess > 0:
                excess -= self._entries.pop(workload).total_bytes
