"""Faults that a test asks a runner for, to prove that the host survives them. Only there with --inject."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Mapping
from typing import Any, BinaryIO

from harness.runner.protocol import Kind
from harness.runner.server import Answer, Blobs, Handler, RequestError


class Faults:
    """Wraps a runner's handlers; holds the one fault that was asked for until its moment comes."""

    def __init__(self, handlers: Mapping[str, Handler], sink: BinaryIO) -> None:
        self.handlers: dict[str, Handler] = {op: self._around(op, handler) for op, handler in handlers.items()}
        self.handlers["inject"] = self._inject
        self._sink = sink
        self._fault: str | None = None
        self._on = ""
        self._left = 0

    def _inject(self, frame: Mapping[str, Any], blobs: Blobs) -> Answer:
        if frame.get("fault") not in _FAULTS:
            raise RequestError(Kind.BAD_REQUEST, f"unknown fault {frame.get('fault')!r}; {', '.join(_FAULTS)}")
        self._fault, self._on, self._left = frame["fault"], frame.get("on", "run"), int(frame.get("after", 1))
        return {}, []

    def _around(self, op: str, handler: Handler) -> Handler:
        def handle(frame: Mapping[str, Any], blobs: Blobs) -> Answer:
            if self._fault is None or op != self._on:
                return handler(frame, blobs)
            self._left -= 1
            if self._left > 0:
                return handler(frame, blobs)
            fault, self._fault = self._fault, None
            return self._strike(fault, handler, frame, blobs)

        return handle

    def _strike(self, fault: str, handler: Handler, frame: Mapping[str, Any], blobs: Blobs) -> Answer:
        if fault == "exit":
            os._exit(7)
        if fault == "segfault":
            ctypes.string_at(0)  # a real one: PoCL's signal handler shrugs off a SIGSEGV that kill() sends
        if fault == "abort":
            os.write(2, b"LLVM ERROR: injected\n")
            os.abort()
        if fault == "hang":
            time.sleep(3600)
        if fault in ("garbage", "truncate"):
            self._sink.write(b"\x00\xffnot a frame\n" if fault == "garbage" else b'{"id":')
            self._sink.flush()
        if fault == "truncate":
            os._exit(0)
        if fault in _REFUSALS:
            raise RequestError(_REFUSALS[fault], "injected", fatal=fault == "poisoned")
        answer, out = handler(frame, blobs)
        if fault == "wrong_result":
            out = [bytes(255 - byte for byte in bytes(blob)) for blob in out]
        if fault == "backwards":
            answer["samples_ns"] = [[launch[::-1] for launch in sample] for sample in answer["samples_ns"]]
        return answer, out


_REFUSALS = {"out_of_resources": Kind.OUT_OF_RESOURCES, "poisoned": Kind.LAUNCH_FAILED}
_FAULTS = (
    *("exit", "segfault", "abort", "hang", "garbage", "truncate"),
    "wrong_result",  # on get: every byte inverted
    "backwards",  # on run: events that end before they start
    *_REFUSALS,
)
