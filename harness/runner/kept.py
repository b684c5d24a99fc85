"""The protocol's optional requests for telemetry: `read`, and `watch` with `watched`, which drains what was kept."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from harness.runner.protocol import Kind
from harness.runner.server import Answer, Blobs, Handler, RequestError
from harness.runner.watching import Sampler, read_text, reason

OPS = ("read", "watch")  # as `hello` lists them; `watched` comes with `watch`
# Of texts that wait for the host, the oldest give way: some 50 kB come each second from a phone. Written as JSON they
# may be six times as long, which must be less than MAX_LINE_BYTES.
KEPT_BYTES = 10 << 20
_SAMPLE_BYTES = 64  # what a sample takes beside its text


class Kept:
    """One watch of a runner and what it has sampled."""

    def __init__(self, read: Callable[[str], str] = read_text, room: int = KEPT_BYTES) -> None:
        self._read = read
        self._room = room
        self._lock = threading.Lock()
        self._sampler: Sampler | None = None
        self._samples: deque[tuple[int, int, str | None]] = deque()
        self._why: dict[str, str] = {}  # by the file's index: why it could not be read the last time it could not
        self._held = 0  # bytes
        self._dropped = 0

    def handlers(self) -> dict[str, Handler]:
        """The operations by name."""
        return {"read": self.read, "watch": self.watch, "watched": self.watched}

    def read(self, frame: Mapping[str, Any], blobs: Blobs) -> Answer:
        """Texts of files as they are now, null with the reason where one cannot be read."""
        texts: list[str | None] = []
        why: list[str | None] = []
        for path in _paths(frame.get("paths")):
            try:
                texts.append(self._read(path))
                why.append(None)
            except OSError as error:
                texts.append(None)
                why.append(reason(error))
        return {"texts": texts, "why": why}, []

    def watch(self, frame: Mapping[str, Any], blobs: Blobs) -> Answer:
        """Sample these files from now on instead of those before; none stops it."""
        files = [(str(one["path"]), float(one["period_ms"])) for one in frame["files"]]
        if any(not period_ms >= 1 for _, period_ms in files):
            raise RequestError(Kind.BAD_REQUEST, "a period is 1 ms at least")
        if self._sampler is not None:
            self._sampler.stop()
        self._forget()
        self._sampler = Sampler(files, self._keep, self._read)
        return {"clock_ns": time.monotonic_ns()}, []

    def watched(self, frame: Mapping[str, Any], blobs: Blobs) -> Answer:
        """What was sampled since the last call."""
        with self._lock:
            samples, why, dropped = list(self._samples), dict(self._why), self._dropped
            self._samples.clear()
            self._held = self._dropped = 0
        cpu = {} if self._sampler is None else {"cpu_ns": self._sampler.cpu_ns}
        return {"samples": samples, "why": why, "dropped": dropped, **cpu, "clock_ns": time.monotonic_ns()}, []

    def _keep(self, t_ns: int, index: int, text: str | None, why: str | None) -> None:
        with self._lock:
            if why is not None:
                self._why[str(index)] = why
            self._samples.append((t_ns, index, text))
            self._held += _SAMPLE_BYTES + len(text or "")
            while self._held > self._room:
                self._held -= _SAMPLE_BYTES + len(self._samples.popleft()[2] or "")
                self._dropped += 1

    def _forget(self) -> None:
        self._samples.clear()
        self._why.clear()
        self._held = self._dropped = 0


def _paths(value: Any) -> list[str]:
    if not (isinstance(value, list) and all(isinstance(path, str) for path in value)):
        raise RequestError(Kind.BAD_REQUEST, f"paths is a list of texts, not {value!r}")
    return value
