"""What is resident on a device: content put once per runner, least recently used content dropped."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.supervisor import Supervisor
from kernels.spec import Stored

# Gemma's 279 MB output matrix in two layouts. On a CPU device it is the host's memory too, and a run stays under 4 GiB.
DEVICE_BYTES = 640 << 20


@dataclass(frozen=True)
class Blob:
    """Bytes and the name of their content. Make it with `Blob.of`, once per array; do not change the array after."""

    data: memoryview
    name: str  # "sha256:…"
    stored: Stored | None = None  # of an array

    @staticmethod
    def of(data: np.ndarray[Any, Any] | bytes | bytearray | memoryview) -> Blob:
        """Name the content of an array (made contiguous if it is not) or of bytes; about 1 GB/s, once."""
        stored = Stored(data.dtype, data.shape) if isinstance(data, np.ndarray) else None
        view = memoryview(np.ascontiguousarray(data).data if isinstance(data, np.ndarray) else data).cast("B")
        return Blob(view, f"sha256:{hashlib.sha256(view).hexdigest()}", stored)

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data)


class BufferStore:
    """The contents that a supervisor's present runner holds, bounded in bytes, rotation copies included.

    What has been asked for since the last `turn()` is never dropped, even beyond the bound: one candidate's buffers
    must be there together, and a device that cannot hold them says so itself.
    """

    def __init__(self, supervisor: Supervisor, limit_bytes: int = DEVICE_BYTES) -> None:
        self._supervisor = supervisor
        self._limit = limit_bytes
        self._held: OrderedDict[str, int] = OrderedDict()  # name → bytes with copies, least recently used first
        self._in_use: set[str] = set()
        self._generation = supervisor.generation

    def turn(self) -> None:
        """Begin with another candidate: what only earlier ones used may be dropped from now on."""
        self._in_use.clear()

    def ensure(self, blob: Blob, copies: int = 1) -> str:
        """Have the content resident and room for so many copies in a rotation; returns the buffer's name."""
        self._supervisor.hello()  # a lost runner is replaced here, so that the generation is the present one
        if self._generation != self._supervisor.generation:
            self._generation = self._supervisor.generation
            self._held.clear()
        want = blob.size * copies
        known = self._held.pop(blob.name, None)
        self._in_use.add(blob.name)
        self._make_room(max(want, known or 0))
        if known is None:
            self._supervisor.put(blob.name, blob.data)
        self._held[blob.name] = max(want, known or 0)
        return blob.name

    def drop(self, *names: str) -> None:
        """Drop contents now; names that are not held are fine."""
        self._supervisor.drop(bufs=names)
        for name in names:
            self._held.pop(name, None)

    def clear(self) -> None:
        """Drop everything that is held."""
        if self.held_bytes:
            self.drop(*self._held)
        self.turn()

    @property
    def held_bytes(self) -> int:
        """What the present runner holds, copies included."""
        return sum(self._held.values()) if self._generation == self._supervisor.generation else 0

    def _make_room(self, want: int) -> None:
        room = self._limit - sum(self._held.values())
        going = []
        for name, size in self._held.items():
            if room >= want:
                break
            if name not in self._in_use:
                going.append(name)
                room += size
        if going:
            self.drop(*going)
