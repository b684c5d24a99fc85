"""Small text files of /proc and /sys, read once, or again and again by a thread of its own.

The sampler is the same on a device, where a runner keeps the texts until its host fetches them (`harness.runner.kept`),
and on this machine, where `harness.telemetry` takes them as they come.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

MAX_BYTES = 64 << 10  # of one text: what stands in a longer file after that is not read
_TOGETHER = 0.05  # what is due within this part of the shortest period is read in the same turn
_PATIENCE_S = 5.0
_CORES = "/sys/devices/system/cpu/cpu{}/cpufreq/cpuinfo_max_freq"

Sink = Callable[[int, int, str | None, str | None], None]  # (clock_ns, file's index, text or null, why it is null)


def read_text(path: str) -> str:
    """The text of a small file; of a folder (a path that ends in /) the names in it, one a line. Raises OSError."""
    if path.endswith("/"):
        return "".join(f"{name}\n" for name in sorted(os.listdir(path)))
    # Never to wait: a FIFO or a device among the paths must not stop the runner.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    try:
        text = os.read(descriptor, MAX_BYTES)
        while text and len(text) < MAX_BYTES and (more := os.read(descriptor, MAX_BYTES - len(text))):
            text += more
    finally:
        os.close(descriptor)
    return text.decode(errors="replace")


def reason(error: OSError) -> str:
    """An error as its name and its words: "EACCES: Permission denied"."""
    name = errno.errorcode.get(error.errno or 0)
    return f"{name}: {error.strerror or os.strerror(error.errno or 0)}" if name else str(error) or type(error).__name__


class Sampler:
    """A thread that reads files, each at its period, and hands on what it read. Starts at once, until `stop`.

    A file that cannot be read is tried again at its next turn: one that comes back (a core that was switched off) goes
    on where it was. A turn that comes too late is left out rather than made up for.
    """

    def __init__(
        self, files: Sequence[tuple[str, float]], sink: Sink, read: Callable[[str], str] = read_text, pin: bool = True
    ) -> None:
        """`files` are (path, period in ms); `pin`: keep to the machine's slowest cores where its cores differ."""
        self.cpu_ns = 0  # CPU time that the thread has taken (CLOCK_THREAD_CPUTIME_ID)
        self.started_ns = self.ended_ns = time.monotonic_ns()
        self._files = [(path, max(1, round(period_ms * 1e6))) for path, period_ms in files]
        self._sink = sink
        self._read = read
        self._pin = pin
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True, name="telemetry")
        if self._files:
            self._thread.start()

    def stop(self) -> None:
        """End the thread; nothing is handed on after this. A driver may hold a reading for ever: it is left there."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_PATIENCE_S)
        self.ended_ns = time.monotonic_ns()

    @property
    def cpu_percent(self) -> float | None:
        """What the thread has taken of one core so far, in percent; None before any time has passed."""
        passed = (self.ended_ns if self._stop.is_set() else time.monotonic_ns()) - self.started_ns
        return 100 * self.cpu_ns / passed if passed > 0 else None

    def _sample(self) -> None:
        if self._pin:
            keep_to_slow_cores()
        due = [self.started_ns] * len(self._files)
        together = round(_TOGETHER * min(period_ns for _, period_ns in self._files))
        while True:
            now = time.monotonic_ns()
            for index, (path, period_ns) in enumerate(self._files):
                if due[index] <= now + together:
                    self._one(index, path)
                    due[index] += period_ns * max(1, -(-(now - due[index]) // period_ns))
            self.cpu_ns = time.thread_time_ns()
            if self._stop.wait(max(0, min(due) - time.monotonic_ns()) / 1e9):
                return

    def _one(self, index: int, path: str) -> None:
        text, why = None, None
        try:
            text = self._read(path)
        except OSError as error:
            why = reason(error)
        if not self._stop.is_set():
            self._sink(time.monotonic_ns(), index, text, why)


def keep_to_slow_cores() -> None:
    """Keep this thread off the cores that work is timed on, where they are of several kinds."""
    if not hasattr(os, "sched_setaffinity"):
        return
    with contextlib.suppress(OSError, ValueError):
        fastest = {core: int(Path(_CORES.format(core)).read_text()) for core in os.sched_getaffinity(0)}
        if slow := {core for core, khz in fastest.items() if khz < max(fastest.values())}:
            os.sched_setaffinity(threading.get_native_id(), {c for c in slow if fastest[c] == min(fastest.values())})
