"""Compile ahead: what will probably be measured next is built while the host checks and decides.

Builders are runners beside the one that measures, which share its folder of program binaries. Each takes a candidate
that somebody foresees, builds it, and, where a driver compiles at the first launch, launches it once on a tiny shape.
What comes of that is a file for the runner that measures, and nothing else: every verdict is that runner's, which
builds from source whatever it does not find. A builder that dies or hangs over a candidate has tried it for the last
time, and costs a fresh builder.

While a timing is taken builders stand still, by a signal to all their processes; and no more compilers are at work
than there are cores, the measuring runner's counted.

The journal's `begin` names the candidate that is being measured. A machine that goes down may have gone down over
another one, in a builder; so a `begin` says whether there were builders (see harness.journal): then nobody is blamed,
and that study goes on without builders, until whoever it was is met alone.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import prod

from harness.answers import Refused, RunnerLost, Timeouts
from harness.binding import Bench, bind
from harness.buffers import BufferStore
from harness.candidate import Candidate
from harness.case import CaseStore
from harness.devices import DeviceChoice
from harness.errors import KilnError
from harness.scratch import Scratch
from harness.supervisor import Supervisor

# Builders. One alone would gain nothing where its guesses are right: the runner that measures would wait for it, and a
# core for both. A third would build what one trial in four does not turn out to want.
MOST = 2
# Platforms on which it was measured to pay, and whether the driver compiles at the first launch. The same 24 trials of
# a 2048 by 2048 GEMV (int4), with what a real search had foreseen, took without and with builders, in turn: on PoCL 94
# and 70 s, then 152 and 91; on Intel 44 and 37, then 65 and 46 (Zen 3, two cores that others kept busy, so that only
# neighbours compare). Of the 24, 15 to 18 had been begun by a builder. 16 trials of a GEMM on PoCL: 142 and 134 s.
_PLATFORMS = {"Portable Computing Language": True, "Intel(R) OpenCL": False}
# Of a build or a launch in a builder, standing still included: a hung one is not looked at again before.
_DEADLINE_S = 120.0
# Of the runner that measures, for a builder that is at the same candidate. Builds take up to six seconds (PoCL, Zen 3,
# two busy cores); a builder at a candidate that hangs is not to cost much more than the candidate will.
_PATIENCE_S = 15.0
_STARTS = 3  # a builder whose runner does not start gives up; but one may be killed while it starts
# PoCL compiles in its worker threads; processes that pin them alike would compile on one core. Not `nice`: on a busy
# machine the runner that measures would wait for builders that everybody else passes by.
_UNPINNED = ("env", "POCL_AFFINITY=0")

_What = tuple[str, tuple[tuple[int, ...] | None, ...]]


@dataclass
class Counts:
    """What building ahead has come to."""

    built: int = 0  # candidates, by builders
    failed: int = 0  # of those begun: the builder's compiler refused, died or hung
    ready: int = 0  # trials whose programs were there when they were wanted
    waited: int = 0  # trials that waited for a builder to finish
    unforeseen: int = 0  # trials that were not, or not yet, begun


@contextlib.contextmanager
def opened(device: DeviceChoice, wanted: bool = True) -> Iterator[tuple[tuple[str, ...], Ahead | None]]:
    """The command of the runner that measures, and the builders beside it, where there are any.

    None on one core, for a runner that keeps no binaries, and on platforms where nobody has seen it pay.
    """
    launches = _PLATFORMS.get(device.description.get("platform_name", ""))
    cores = len(os.sched_getaffinity(0)) if sys.platform.startswith("linux") else 1  # elsewhere, see _Builder
    if not wanted or not device.python_runner or launches is None or cores == 1:
        yield device.command, None
        return
    with Scratch() as scratch:
        command = (*device.command, "--binaries", str(scratch.path))
        ahead = Ahead(command, device, launches=launches, cores=cores)
        try:
            yield command, ahead
        finally:
            ahead.close()


class Ahead:
    """Builders, and what they are to build. Its methods are for one thread; builders have threads of their own."""

    def __init__(self, command: Sequence[str], device: DeviceChoice, *, launches: bool, cores: int) -> None:
        """`launches`: the driver compiles at the first launch. Builders start when there is something to build."""
        self.counts = Counts()
        self._state = threading.Condition()
        self._waiting: deque[Candidate] = deque()
        self._begun: set[_What] = set()  # by anybody
        self._built: set[_What] = set()
        self._cores, self._moving, self._closing = cores, cores, False  # how many may move
        count = min(MOST, cores)
        self._builders = [_Builder(self, (*_UNPINNED, *command), device, launches) for _ in range(count)]

    def want(self, candidates: Sequence[Candidate]) -> None:
        """Build these, the first first, instead of what was wanted before and is not begun."""
        with self._state:
            if self._closing:
                return
            self._waiting = deque(one for one in candidates if _what(one) not in self._begun)
            self._state.notify_all()
        for builder in self._builders:
            builder.start()

    @contextlib.contextmanager
    def beside(self, candidate: Candidate) -> Iterator[None]:
        """Around building and checking a candidate to be measured: waits for a builder that is at it.

        Where none has built it, the runner that measures compiles now, and takes a core for that.
        """
        ready = self._ready(candidate)
        self._let_move(self._cores if ready else self._cores - 1)
        try:
            yield
        finally:
            self._let_move(self._cores)
            with self._state:
                self._built.add(_what(candidate))  # for other sizes; if in vain, builders could not change that

    def _ready(self, candidate: Candidate) -> bool:
        """Whether a builder has built it, perhaps just now."""
        what, end = _what(candidate), time.monotonic() + _PATIENCE_S
        with self._state:
            self._waiting = deque(one for one in self._waiting if _what(one) != what)
            builder = self._at(what)
            if builder is None:
                self.counts.ready += what in self._built
                self.counts.unforeseen += what not in self._begun
            self._begun.add(what)
            if builder is not None:
                self.counts.waited += 1
                while self._at(what) and (left := end - time.monotonic()) > 0:
                    self._state.wait(left)
                if self._at(what):
                    builder.kill()
            return what in self._built

    @contextlib.contextmanager
    def still(self) -> Iterator[None]:
        """Around a timing: builders stand still."""
        self._let_move(0)
        try:
            yield
        finally:
            self._let_move(self._cores)

    def close(self) -> None:
        """End the builders. Closing twice is harmless."""
        with self._state:
            self._closing = True
            self._waiting.clear()
            self._state.notify_all()
        for builder in self._builders:
            builder.end()

    def as_json(self) -> dict[str, int]:
        """The counts."""
        return asdict(self.counts)

    def _at(self, what: _What) -> _Builder | None:
        return next((builder for builder in self._builders if builder.at == what), None)

    def _let_move(self, count: int) -> None:
        """Have the first so many builders move, and no more."""
        with self._state:
            self._moving = count
            for place, builder in enumerate(self._builders):
                builder.supervisor.freeze(place >= count)
            self._state.notify_all()

    def _may_move(self, builder: _Builder) -> bool:
        return self._builders.index(builder) < self._moving

    # ------------------------------------------------------------ for builders

    def take(self, builder: _Builder) -> Candidate | None:
        """The next candidate for a builder, which is `at` it from then on; None: go home."""
        with self._state:
            while not self._closing and not (self._waiting and self._may_move(builder)):
                self._state.wait()
            if self._closing:
                return None
            candidate = self._waiting.popleft()
            builder.at = _what(candidate)
            self._begun.add(builder.at)
            return candidate

    def go_on(self, builder: _Builder) -> bool:
        """Wait until a builder may move; whether it is worth going on."""
        with self._state:
            while not self._closing and not self._may_move(builder):
                self._state.wait()
            return not self._closing

    def done(self, builder: _Builder, good: bool) -> None:
        """What came of what a builder was at."""
        with self._state:
            if good:
                assert builder.at is not None
                self._built.add(builder.at)
                self.counts.built += 1
            elif not self._closing:
                self.counts.failed += 1
            builder.at = None
            self._state.notify_all()


class _Builder:
    """One runner that builds, and the thread that talks to it.

    Only on Linux: elsewhere a runner that stands still would outlive a host that is killed, its input's end unseen.
    """

    def __init__(self, ahead: Ahead, command: Sequence[str], device: DeviceChoice, launches: bool) -> None:
        self.at: _What | None = None  # guarded by the lock of `ahead`
        self.supervisor = Supervisor(command, timeouts=Timeouts(start_s=_DEADLINE_S, other_s=_DEADLINE_S))
        self._ahead, self._launches = ahead, launches
        self._bench = Bench(self.supervisor, device.sheet, BufferStore(self.supervisor), CaseStore())
        self._thread: threading.Thread | None = None
        self._unborn = 0  # runners in a row that were lost before they had said hello

    def start(self) -> None:
        """Start its thread where there is none yet."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()

    def kill(self) -> None:
        """End its runner at once; another comes with the next candidate."""
        self.supervisor.kill()

    def end(self) -> None:
        """End its runner and, being told to go home, itself."""
        while self._thread is not None and self._thread.is_alive():
            self.kill()  # again, where it has just been starting one
            self._thread.join(0.1)
        self.supervisor.kill()
        self.supervisor.close()

    def _work(self) -> None:
        try:
            while (candidate := self._ahead.take(self)) is not None:
                good = False
                try:
                    good = self._build(candidate)
                finally:
                    self._ahead.done(self, good)
        except KilnError:  # its runner does not start: the one that measures will say why
            return

    def _build(self, candidate: Candidate) -> bool:
        """Build; launch where that compiles. Whether all went well. Raises KilnError where no runner starts."""
        bench = self._bench
        try:
            self.supervisor.recycle_if_due()
            bench.store.turn()
            self.supervisor.build(candidate.program, candidate.source, candidate.options, _DEADLINE_S)
            shape = self._smallest(candidate) if self._launches else None
            if shape is not None and self._ahead.go_on(self):
                bound = bind(bench, shape)
                self.supervisor.run(bound.program, bound.launches, restore=bound.restore, timeout_s=_DEADLINE_S)
                self.supervisor.drop(bufs=bound.buffers)
            self.supervisor.drop(programs=[candidate.program])
            return True
        except Refused:
            return False
        except RunnerLost as lost:
            self._unborn = self._unborn + 1 if lost.op == "start" else 0
            if self._unborn == _STARTS:
                raise KilnError(lost.log) from lost
            return False

    def _smallest(self, candidate: Candidate) -> Candidate | None:
        """The candidate at the least awkward shape that its program serves: local sizes are all that PoCL compiles by.

        A grid of more than 65,535 in one direction is another compilation there, which is left to the check.
        """
        sheet = self._bench.sheet
        shapes = [candidate.at(workload, sheet) for workload in candidate.family.awkward(candidate.workload)]
        return min((s for s in shapes if s), key=lambda s: prod(s.workload.dims.values()), default=None)


def _what(candidate: Candidate) -> _What:
    """What is compiled for a candidate: a program, and in PoCL its kernels at their local sizes."""
    return candidate.program, tuple(launch.local for launch in candidate.schedule.launches)
