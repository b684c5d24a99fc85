"""Keeps one runner alive and the host safe from it: deadlines, verdicts for its deaths, restarts, recycling.

What went wrong comes as one of two exceptions, each with the verdict it means for the candidate at hand:
`Refused`, an answer of a healthy runner, and `RunnerLost`, after which the next call starts a fresh runner that knows
no buffers and no programs (`generation` has grown).

It is long because it is one thing: every request and every way to lose a runner ends in the same few fields, the child,
its spare, its hello and what is resident.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from harness.answers import Build, Hello, KernelLimits, Refused, Rotation, Run, RunnerLost, Sensors, Timeouts
from harness.child import Child, Ended
from harness.errors import KilnError
from harness.link import Link
from harness.runner.protocol import PROTOCOL, GarbageError, Kind
from kernels.spec import Verdict

__all__ = [
    "Build",
    "Hello",
    "KernelLimits",
    "Refused",
    "Rotation",
    "Run",
    "RunnerLost",
    "Sensors",
    "Supervisor",
    "Timeouts",
]

T = TypeVar("T")
_GRACE_S = 5.0  # for a runner that has a limit of its own to keep it and say so


class Supervisor:
    """A runner that is started when needed, watched, and replaced. For one thread; a context manager."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        timeouts: Timeouts | None = None,
        recycle_after: int | None = 200,
        link: Link | None = None,
    ) -> None:
        """`link` is what lies between, None for a process of this machine."""
        self.generation = 0  # how many runners there have been: residency is per generation
        self._command = tuple(command)
        self._link = link
        self._timeouts = timeouts or (Timeouts(bytes_per_s=link.bytes_per_s) if link else Timeouts())
        self._recycle_after = recycle_after
        self._child: Child | None = None
        self._spare: Child | None = None  # one that has lost its worker and will begin a fresh one with the next hello
        self._hello: Hello | None = None
        self._requests = 0
        self._built = 0  # programs that this runner has compiled
        self._programs: set[str] = set()  # of them those that are resident: building one again is free
        self._still = False
        self._stilling = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the runner, politely where it listens."""
        if self._child is not None:
            try:
                with contextlib.suppress(RunnerLost, Refused):
                    self._ask("bye", {}, timeout_s=2.0)
            finally:
                self._end()
        self._drop_spare()

    def restart(self) -> None:
        """End this runner; the next call starts a fresh one."""
        self.close()

    def kill(self) -> None:
        """End this runner at once, from any thread: whoever waits for its answer has lost it."""
        if (child := self._child) is not None:
            child.kill()

    def freeze(self, still: bool) -> None:
        """Have the runner and those that follow it stand still, or go on; from any thread. Deadlines do not wait."""
        with self._stilling:
            self._still = still
            if (child := self._child) is not None:
                child.freeze(still)

    @property
    def waited_s(self) -> float:
        """For how long the link has waited in all, for its other end to come back or to cool."""
        return self._link.waited_s if self._link else 0.0

    def settle(self) -> None:
        """Wait until the device is fit to be measured, between candidates. Raises KilnError as the link does."""
        if self._link:
            self._link.settle()

    def recycle_if_due(self) -> bool:
        """Restart a runner that has built its share of programs: drivers leak (Mali's in every sweep).

        Never done unasked, because it empties the device: call it between candidates. True if it was done.
        """
        if self._recycle_after is None or self._built < self._recycle_after:
            return False
        self.restart()
        return True

    def hello(self) -> Hello:
        """Who is at the other end. Starts the runner if there is none."""
        self._start()
        assert self._hello is not None
        return self._hello

    @property
    def alive(self) -> bool:
        """Whether the present runner still is, as far as is known; after a fatal refusal it is not."""
        return self._child is not None

    def have(self, name: str, size: int) -> bool:
        """Whether a buffer of this name and size is resident."""
        answer, _ = self._request("put", {"buf": name, "bytes": size})
        with self._reading("put"):
            return bool(answer["have"])

    def put(self, name: str, data: bytes | bytearray | memoryview) -> None:
        """Make a buffer resident with this content (a C-contiguous array's `.data` will do)."""
        view = memoryview(data).cast("B")
        limit = self._timeouts.other_s + len(view) / self._timeouts.bytes_per_s
        self._request("put", {"buf": name, "bytes": len(view)}, (view,), limit)

    def fill(self, name: str, size: int, pattern: bytes = b"\0") -> None:
        """Make a buffer of `size` bytes resident, filled with the pattern over and over; nothing big is sent."""
        limit = self._timeouts.other_s + size / (100 * self._timeouts.bytes_per_s)
        self._request("put", {"buf": name, "bytes": size, "pattern": pattern.hex()}, (), limit)

    def copy(self, name: str, source: str, size: int) -> None:
        """Make a buffer resident with the first `size` bytes of a resident one, copied on the device."""
        limit = self._timeouts.other_s + size / (100 * self._timeouts.bytes_per_s)
        answer, _ = self._request("put", {"buf": name, "bytes": size, "from": source}, (), limit)
        if "have" in answer:  # a runner that knows no `from` was asked whether it has the buffer
            raise Refused(Kind.UNSUPPORTED, "the runner is too old to copy a buffer on the device: update it")

    def get(self, name: str, offset: int = 0, size: int | None = None) -> bytearray:
        """Bytes of a resident buffer; `size` None means all from `offset`."""
        limit = self._timeouts.other_s + (size or 1 << 30) / self._timeouts.bytes_per_s
        part = {"buf": name, "offset": offset} | ({} if size is None else {"bytes": size})
        _, blobs = self._request("get", part, (), limit)
        with self._reading("get"):
            (blob,) = blobs
            if size is not None and len(blob) != size:
                raise ValueError(f"{len(blob)} bytes instead of {size}")
            return blob

    def drop(self, bufs: Iterable[str] = (), programs: Iterable[str] = ()) -> None:
        """Forget buffers and programs; names that are not resident are fine."""
        if self._child is not None:
            programs = list(programs)
            self._programs.difference_update(programs)
            self._request("drop", {"bufs": list(bufs), "programs": programs})

    def build(self, program: str, source: str, options: Sequence[str] = (), timeout_s: float | None = None) -> Build:
        """Compile a program under a name of the host's choice. Raises Refused with the compiler's log."""
        frame = {"program": program, "options": list(options)}
        self._start()
        if program not in self._programs:
            self._built += 1
            self._programs.add(program)
        answer, _ = self._request("build", frame, (source.encode(),), timeout_s or self._timeouts.build_s)
        with self._reading("build"):
            kernels = {entry: KernelLimits(**limits) for entry, limits in answer["kernels"].items()}
            return Build(answer["log"], answer["build_ms"], kernels, bool(answer.get("cached")))

    def run(
        self,
        program: str | None,
        launches: Sequence[Mapping[str, Any]],
        *,
        warmup: int = 0,
        samples: int = 1,
        rotate: Rotation | None = None,
        restore: Sequence[tuple[str, str]] = (),
        abort_above_ns: int | None = None,
        profile: bool = True,
        clock: bool = False,
        timeout_s: float | None = None,
    ) -> Run:
        """Launch (see harness.runner.protocol.launch) and time. `restore` lists (buffer, what it is restored from).

        `program` None: every launch names its own. `clock` asks for the host's times of the enqueues as well.
        """
        frame: dict[str, Any] = {"program": program, "launches": list(launches), "warmup": warmup, "samples": samples}
        frame |= {"profile": profile, "restore": [{"buf": buf, "from": source} for buf, source in restore]}
        if rotate is not None:
            frame["rotate"] = {"bufs": list(rotate.bufs), "copies": rotate.copies, "first": rotate.first}
        if abort_above_ns is not None:
            frame["abort_above_ns"] = abort_above_ns
        if clock:
            frame["clock"] = True
        answer, _ = self._request("run", frame, (), timeout_s or self._timeouts.run_s)
        with self._reading("run"):
            if (resets := answer.get("resets") or 0) > 0:  # what else it says is of a GPU that began anew in between
                times = "once" if resets == 1 else f"{resets} times"
                raise self._lost(Verdict.CRASHED, "run", f"saw the GPU reset {times} (its driver's count)")
            stamps = tuple(tuple((q, s, b, e) for q, s, b, e in sample) for sample in answer.get("samples_ns", ()))
            if not answer["wall_ns"]:
                raise ValueError("no wall_ns")
            host = tuple(tuple((b, a) for b, a in sample) for sample in answer.get("host_ns", ()))
            finished = tuple(answer.get("finished_ns", ()))
            return Run(stamps, tuple(answer["wall_ns"]), bool(answer.get("aborted")), host, finished)

    def sensors(self) -> Sensors:
        """Clock, temperature and the like, as the runner can read them now."""
        answer, _ = self._request("sensors", {})
        with self._reading("sensors"):
            return Sensors(answer["values"], answer["why"])

    def ask(self, op: str, fields: Mapping[str, Any], take: Callable[[Mapping[str, Any]], T]) -> T:
        """One of the optional requests (`hello().ops`), its answer as `take` gives it.

        An answer that `take` raises LookupError, TypeError or ValueError of costs the runner its life.
        """
        answer, _ = self._request(op, fields)
        with self._reading(op):
            return take(answer)

    def inject(self, fault: str | None, on: str, after: int = 1, lasting: bool = False) -> None:
        """Ask a runner that was started with --inject for a fault, or (None) take it back. For tests."""
        self._request("inject", {"fault": fault, "on": on, "after": after, "lasting": lasting})

    def _start(self) -> None:
        if self._child is not None:
            return
        if self._link:
            self._link.ready()
        try:
            self._child = self._take_spare() or Child(self._command)
        except OSError as error:
            raise KilnError(f"the runner does not start: {error}; its command is {' '.join(self._command)}") from error
        with self._stilling:
            if self._still:
                self._child.freeze(True)
        self.generation += 1
        try:
            answer, _ = self._ask("hello", {"protocol": PROTOCOL}, timeout_s=self._timeouts.start_s, name="start")
        except Refused as refusal:
            self._end()
            raise KilnError(f"the runner and this program do not understand each other: {refusal.message}") from refusal
        if (spoken := answer.get("protocol", PROTOCOL)) != PROTOCOL:
            self._end()
            raise KilnError(f"the runner speaks protocol {spoken}, and this program {PROTOCOL}: build the runner anew")
        with self._reading("start"):
            hints = dict(answer.get("hints") or {})
            ops = tuple(map(str, answer.get("ops") or ()))
            self._hello = Hello(answer["runner"], answer["device"], tuple(answer["sensors"]), hints, ops)

    def _request(
        self,
        op: str,
        fields: Mapping[str, Any],
        blobs: Sequence[bytes | memoryview] = (),
        timeout_s: float | None = None,
    ) -> tuple[dict[str, Any], list[bytearray]]:
        self._start()
        return self._ask(op, fields, blobs, timeout_s or self._timeouts.other_s)

    def _ask(
        self,
        op: str,
        fields: Mapping[str, Any],
        blobs: Sequence[bytes | memoryview] = (),
        timeout_s: float = 0.0,
        name: str | None = None,
    ) -> tuple[dict[str, Any], list[bytearray]]:
        """One request, one answer. Whatever else happens, Ctrl-C included, the runner does not survive it."""
        assert self._child is not None
        self._requests += 1
        frame = {"id": self._requests, "op": op, **fields}
        deadline = time.monotonic() + timeout_s
        if self._hello is not None and "limit" in self._hello.ops:  # it ends what hangs by itself, and lives on
            frame["limit_ms"] = round(timeout_s * 1000)
            deadline += _GRACE_S
        try:
            answer, out = self._child.ask(frame, blobs, deadline)
            if type(answer.get("ok")) is not bool:
                raise GarbageError(f"an answer without ok: {list(answer)}")
            error = answer.get("error") or {}
            if not isinstance(error, dict):
                raise GarbageError(f"an error that is {error!r}")
        except TimeoutError:
            what = f"did not answer within {timeout_s:g} s and was killed"
            raise self._lost(Verdict.TIMEOUT, name or op, what) from None
        except GarbageError as garbage:
            what = f"sent something else than an answer ({garbage})"
            raise self._lost(Verdict.WORKER_LOST, name or op, what) from None
        except Ended as ended:
            # One that died before it read the request was not killed by it; nor one that outlives its driver by design:
            # at the other end of an `ssh` it was the network.
            outlives = self._link is None and self._hello is not None and "limit" in self._hello.ops
            blamed = op in ("build", "run") and ended.had_read and not outlives
            verdict = Verdict.CRASHED if blamed else Verdict.WORKER_LOST
            raise self._lost(verdict, name or op, str(ended), ended.status) from None
        except BaseException:
            self._child.kill()
            self._end()
            raise
        if answer["ok"]:
            return answer, out
        kind = Kind(error["kind"]) if error.get("kind") in list(Kind) else Kind.INTERNAL
        message = str(error.get("message", ""))
        if kind is Kind.BAD_REQUEST:
            raise ValueError(f"the runner was asked wrongly to {op}: {message}")  # a bug on this side
        if kind in (Kind.CRASHED, Kind.TIMEOUT):
            raise self._lost_worker(kind, name or op, message)
        if error.get("fatal"):
            self._end()
        raise Refused(kind, message)

    @contextlib.contextmanager
    def _reading(self, op: str) -> Iterator[None]:
        """Around taking an answer apart: one that is not what the protocol says costs the runner its life."""
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise self._lost(Verdict.WORKER_LOST, op, f"gave an incomplete answer ({error!r})") from error

    def _lost(self, verdict: Verdict, op: str, what: str, status: int | None = None) -> RunnerLost:
        assert self._child is not None
        self._child.kill()
        words = self._child.last_words()
        self._end()
        if self._link and op != "bye":  # whoever says goodbye waits for nobody
            verdict, what = self._link.judge(op, verdict, what, status)
        doing = "when it started" if op == "start" else f"during {op}"
        return RunnerLost(verdict, op, f"the runner {what} {doing}" + (f"; it said last:\n{words}" if words else ""))

    def _lost_worker(self, kind: Kind, op: str, message: str) -> RunnerLost:
        """The runner has outlived its driver's process: it is kept, but as one that knows nothing."""
        self._spare, self._child = self._child, None
        self._end()
        verdict = Verdict.TIMEOUT if kind is Kind.TIMEOUT else Verdict.CRASHED
        if kind is Kind.CRASHED and op not in ("build", "run"):
            verdict = Verdict.WORKER_LOST
        return RunnerLost(verdict, op, f"the runner lost its worker: {message}")

    def _take_spare(self) -> Child | None:
        spare, self._spare = self._spare, None
        if spare is not None and not spare.running:
            spare.close()
            return None
        return spare

    def _drop_spare(self) -> None:
        if spare := self._take_spare():
            spare.close()

    def _end(self) -> None:
        child, self._child, self._hello, self._built = self._child, None, None, 0
        self._programs.clear()
        if child is not None:
            child.close()
