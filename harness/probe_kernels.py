"""The kernels that probe a device (probe.cl): how each is built, launched, and known to have done its work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from harness.answers import Rotation, Run
from harness.runner.protocol import buffer_arg, f32_arg, i32_arg, launch
from harness.supervisor import Supervisor
from kernels.spec import Verdict

_FROM, _TO, _OUT = "probe:from", "probe:to", "probe:out"
_ONE = np.float32(1).tobytes()  # what is read: ones, so that every sum is known
_RUN_TIMEOUT_S = 30.0
_BUILD_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class ProbeKernel:
    """One way to ask a device for its utmost."""

    entry: str  # read_own, read_across, copy_own, copy_across, madd or nothing, as probe.cl explains them
    width: int = 1  # elements of a vector
    unroll: int = 4  # independent chains of a madd
    half: bool = False  # arithmetic in fp16
    relaxed: bool = True  # built with relaxed mathematics
    items: int = 1  # work-items
    local: int = 1
    amount: int = 1  # vectors that each work-item reads or copies, or rounds of a madd
    prefetch: int = 0  # bytes ahead that a stretch of one's own asks for
    copies: int = 1  # of the memory, through which launches rotate so that it is cold

    @property
    def options(self) -> tuple[str, ...]:
        """Compiler options."""
        relaxed = ("-cl-mad-enable", "-cl-fast-relaxed-math") if self.relaxed else ()
        ahead = (f"-DPREFETCH={self.prefetch}",) if self.prefetch else ()
        return (*relaxed, *ahead, f"-DWIDTH={self.width}", f"-DUNROLL={self.unroll}", f"-DHALF={int(self.half)}")

    @property
    def program(self) -> str:
        """Names the build."""
        return "probe:" + " ".join(self.options)

    @property
    def moves(self) -> bool:
        """Whether it is memory that this kernel asks for."""
        return self.entry.startswith(("read", "copy"))

    @property
    def vector_bytes(self) -> int:
        """Bytes of a vector in memory."""
        return self.width * (2 if self.half else 4)

    @property
    def buffer_bytes(self) -> int:
        """Bytes that one launch reads; 0 for kernels that only compute."""
        return self.items * self.amount * self.vector_bytes if self.moves else 0

    @property
    def work(self) -> float:
        """What one launch does: bytes read, bytes moved (a copy: read and written), or FLOPs."""
        if self.entry == "madd":
            return 2.0 * self.width * self.unroll * self.items * self.amount
        return self.buffer_bytes * (2.0 if self.entry.startswith("copy") else 1.0)

    def __str__(self) -> str:
        if self.entry == "nothing":
            return "empty kernel"
        share = "" if self.entry == "madd" else f" {self.entry.partition('_')[2]}"
        unroll = f" × {self.unroll} chains" if self.entry == "madd" else ""
        relaxed = "" if self.relaxed or self.moves else ", strict"
        kind = "half" if self.half else "float"
        ahead = f", {self.prefetch} bytes ahead" if self.prefetch else ""
        return f"{kind}{self.width}{unroll}{share}, {self.items} items by {self.local}{ahead}{relaxed}"


@cache
def source() -> str:
    """The text of probe.cl."""
    return files("harness").joinpath("probe.cl").read_text()


class ProbeError(Exception):
    """A probe kernel that ran but did not do its work."""

    verdict = Verdict.WRONG_RESULT


class ProbeBed:
    """What probe kernels need on a device: the memory they read and write, replaced when the runner is."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._sizes: dict[str, int] = {}
        self._generation = -1
        self._turn = 0

    def run(self, kernel: ProbeKernel, *, samples: int, warmup: int = 1, profile: bool = True) -> Run:
        """Build (free when done before) and run, carrying on in the rotation. Raises Refused and RunnerLost."""
        self._supervisor.build(kernel.program, source(), kernel.options, _BUILD_TIMEOUT_S)
        args = self._args(kernel)
        rotate = None
        if kernel.copies > 1:
            turned = (_FROM, _TO) if kernel.entry.startswith("copy") else (_FROM,)
            rotate = Rotation(turned, kernel.copies, self._turn % kernel.copies)
            self._turn += warmup + samples
        return self._supervisor.run(
            kernel.program,
            [launch(kernel.entry, (kernel.items,), (kernel.local,), args)],
            warmup=warmup,
            samples=samples,
            rotate=rotate,
            profile=profile,
            timeout_s=_RUN_TIMEOUT_S,
        )

    def _args(self, kernel: ProbeKernel) -> list[dict[str, Any]]:
        if kernel.entry == "nothing":
            return [i32_arg(0)]
        lanes = kernel.items * kernel.vector_bytes
        if kernel.entry == "madd":
            self._have(_OUT, lanes)
            return [buffer_arg(_OUT), f32_arg(0.5), f32_arg(0.5), i32_arg(kernel.amount)]
        self._have(_FROM, kernel.buffer_bytes, _ONE)
        to, size = (_TO, kernel.buffer_bytes) if kernel.entry.startswith("copy") else (_OUT, lanes)
        self._have(to, size)
        return [buffer_arg(_FROM), buffer_arg(to), i32_arg(kernel.amount)]

    def _have(self, name: str, size: int, pattern: bytes = b"\0") -> None:
        """At least so many bytes resident."""
        self._supervisor.hello()
        if self._generation != self._supervisor.generation:
            self._generation = self._supervisor.generation
            self._sizes.clear()
        if self._sizes.get(name, 0) < size:
            self._supervisor.fill(name, size, pattern)
            self._sizes[name] = size

    def verify(self, kernel: ProbeKernel) -> None:
        """Run once and see that the work was done: a compiler that removed it would look infinitely fast.

        Raises ProbeError, Refused and RunnerLost.
        """
        target = _TO if kernel.entry.startswith("copy") else _OUT
        self._sizes.pop(target, None)  # filled with zeros again
        self.run(replace(kernel, copies=1), samples=1, warmup=0)
        if kernel.entry.startswith("copy"):
            step = max(4096, kernel.buffer_bytes // 16)
            for offset in (*range(0, kernel.buffer_bytes, step), kernel.buffer_bytes - 4096):
                part = np.frombuffer(self._supervisor.get(_TO, offset, 4096), np.float32)
                if not (part == 1).all():
                    raise ProbeError(f"{kernel}: the copy differs from byte {offset} on")
            return
        dtype = np.float16 if kernel.half else np.float32
        lanes = np.frombuffer(self._supervisor.get(_OUT, 0, kernel.items * kernel.vector_bytes), dtype)
        right = float(kernel.unroll) if kernel.entry == "madd" else kernel.amount * 1.0
        if not np.allclose(lanes.astype(np.float64), right, rtol=1e-3):
            raise ProbeError(
                f"{kernel}: every lane should be {right:g}, but they reach from {lanes.min()} to {lanes.max()}"
            )

    def drop(self) -> None:
        """Free the memory."""
        if self._generation == self._supervisor.generation:
            self._supervisor.drop(bufs=tuple(self._sizes))
        self._sizes.clear()
