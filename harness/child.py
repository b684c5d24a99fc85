"""A child process that answers frames, and the guarantee that it can be got rid of."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from harness import runtimes
from harness.runner.protocol import MAX_LINE_BYTES, GarbageError, decode, encode
from harness.scratch import Scratch

_PIPE_BYTES = 1 << 20  # Linux's limit for users; 256 MiB take 0.32 s through such a pipe, 0.61 s through 64 KiB (Zen 5)
_LAST_LINES = 30
LIBRARIES = "KILN_OPENCL_LIBRARIES"  # where a native runner of this machine looks last: what PyPI brought


def environment(folder: Path) -> dict[str, str]:
    """For a runner: this program's packages, a build that is a build, and every temporary file in `folder`."""
    packages = str(Path(__file__).resolve().parent.parent)
    paths = [packages, *filter(None, [os.environ.get("PYTHONPATH")])]
    private = {
        "PYTHONPATH": os.pathsep.join(paths),
        "TMPDIR": str(folder),
        "PYOPENCL_NO_CACHE": "1",
        "CUDA_CACHE_DISABLE": "1",  # NVIDIA's driver keeps binaries in ~/.nv otherwise
        "POCL_CACHE_DIR": str(folder / "pocl"),
        "POCL_KERNEL_CACHE": "0",  # files of a program go when it is dropped
        LIBRARIES: os.pathsep.join(driver.library for driver in runtimes.find().drivers),
    }
    if hasattr(os, "sched_getaffinity") and os.sched_getaffinity(0) >= set(range(os.cpu_count() or 1)):
        # A thread per core: two that the scheduler puts on one core take twice the time. Not in a part of a machine:
        # PoCL numbers its threads' cores from 0, and aborts where it may not use one.
        private["POCL_AFFINITY"] = "1"
    return {k: v for k, v in os.environ.items() if k != "PYOPENCL_BUILD_OPTIONS"} | private


class Ended(Exception):
    """The child ended without an answer; the text says how, to follow "the runner"."""

    def __init__(self, how: str, had_read: bool, status: int | None = None) -> None:
        super().__init__(how)
        self.had_read = had_read  # something of the request, which may then be what it died of
        self.status = status  # its exit status, the negative number of a signal, None where it only closed its output


class Child:
    """One started command with pipes. Raises OSError where it cannot be started."""

    def __init__(self, command: Sequence[str]) -> None:
        self._scratch = Scratch()
        self._words: deque[str] = deque(maxlen=_LAST_LINES)
        started: Future[subprocess.Popen[bytes]] = Future()
        # The thread that starts the child stays with it until it ends. Linux kills the child when its parent *thread*
        # ends (see the runner's _die_with_parent), so that must not be a worker thread of the host.
        self._keeper = threading.Thread(target=self._keep, args=(tuple(command), started), daemon=True)
        self._keeper.start()
        try:
            self._process = started.result()
        except OSError:
            self._scratch.remove()
            raise
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        self._read = bytearray()
        self._sent = 0  # bytes of the present request
        for pipe in (self._to, self._from):
            os.set_blocking(pipe, False)
            if sys.platform.startswith("linux"):
                with contextlib.suppress(OSError):  # the user's share of pipe memory may be used up
                    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def ask(
        self, frame: Mapping[str, Any], blobs: Sequence[bytes | memoryview], deadline: float
    ) -> tuple[dict[str, Any], list[bytearray]]:
        """Send a request, return its answer and blobs. `deadline` is a time.monotonic().

        Raises TimeoutError, GarbageError (not a frame, or the answer to something else) and Ended.
        """
        self._sent = 0
        try:
            for part in (encode(frame, [memoryview(b).cast("B") for b in blobs]), *blobs):
                self._write(memoryview(part), deadline)
        except BrokenPipeError:
            raise self._ended() from None
        answer, lengths = decode(self._line(deadline))
        if answer.get("id") != frame["id"]:
            raise GarbageError(f"answered request {answer.get('id')!r} instead of {frame['id']}")
        return answer, [self._blob(n, deadline) for n in lengths]

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End the child and everything it started, at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # a GPU driver can hold its process against any signal
            self._process.wait(5.0)

    def freeze(self, still: bool) -> None:
        """Have the child and everything it started stand still, or go on."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGSTOP if still else signal.SIGCONT)

    def last_words(self) -> str:
        """The last lines that the child, its driver above all, wrote to stderr; complete once it has ended."""
        self._keeper.join(0.5)
        return "\n".join(self._words)

    def close(self) -> None:
        """Let the child see the end of its input, give it a moment, then kill it. Its temporary files go with it."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5)
        self.kill()
        self._keeper.join(0.5)
        self._scratch.remove()

    def _keep(self, command: tuple[str, ...], started: Future[subprocess.Popen[bytes]]) -> None:
        pipe = subprocess.PIPE
        try:
            # Its own session: Ctrl-C in the terminal reaches the host alone, and one kill reaches all its processes.
            env = environment(self._scratch.path)
            process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=env, start_new_session=True)
        except OSError as error:
            started.set_exception(error)
            return
        started.set_result(process)
        assert process.stderr is not None
        with process.stderr as stderr:
            for line in iter(lambda: stderr.readline(4096), b""):
                self._words.append(line.decode(errors="replace").rstrip())

    def _write(self, data: memoryview, deadline: float) -> None:
        data = data.cast("B")
        while data:
            self._wait(self._to, select.POLLOUT, deadline)
            with contextlib.suppress(BlockingIOError):
                count = os.write(self._to, data[:_PIPE_BYTES])
                data, self._sent = data[count:], self._sent + count

    def _line(self, deadline: float) -> bytes:
        searched = 0
        while (end := self._read.find(b"\n", searched)) < 0:
            searched = len(self._read)
            if searched > MAX_LINE_BYTES:
                raise GarbageError("a line without an end")
            self._wait(self._from, select.POLLIN, deadline)
            with contextlib.suppress(BlockingIOError):
                if not (chunk := os.read(self._from, _PIPE_BYTES)):
                    raise self._ended()
                self._read += chunk
        line = bytes(self._read[:end])
        del self._read[: end + 1]
        return line

    def _blob(self, size: int, deadline: float) -> bytearray:
        try:
            blob = bytearray(size)
        except (MemoryError, OverflowError) as error:
            raise GarbageError(f"an answer with a blob of {size} bytes") from error
        view = memoryview(blob)
        ready = min(size, len(self._read))
        view[:ready] = self._read[:ready]
        del self._read[:ready]
        view = view[ready:]
        while view:
            self._wait(self._from, select.POLLIN, deadline)
            with contextlib.suppress(BlockingIOError):
                if not (count := os.readv(self._from, [view])):
                    raise self._ended()
                view = view[count:]
        return blob

    def _wait(self, pipe: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(pipe, event)
        left_ms = (deadline - time.monotonic()) * 1000
        if left_ms <= 0 or not poll.poll(left_ms):
            raise TimeoutError

    def _ended(self) -> Ended:
        try:
            unread = int.from_bytes(fcntl.ioctl(self._to, termios.FIONREAD, bytes(4)), sys.byteorder)
        except OSError:  # nothing tells on this system: it is taken to have read all
            unread = 0
        return Ended(self._how_it_ended(), unread < self._sent, self._process.poll())

    def _how_it_ended(self) -> str:
        """After its pipe closed: the signal or the exit status, for people."""
        try:
            status = self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            return "closed its output"
        if status >= 0:
            return f"ended with exit status {status}"
        name = signal.Signals(-status).name
        return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
