"""Faults that a test asks a runner for, to prove that the host survives them. Only there with --inject."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from harness.runner.protocol import Kind, encode
from harness.runner.server import Answer, Blobs, Handler, RequestError

_CREEP = 0.05  # of a sample's time that each sample under `drift` is longer than the one before
_LEAK_BYTES = 1 << 30
_CLOCK_MHZ = 3000.0  # what `throttle` begins to fall from


class Faults:
    """Wraps a runner's handlers; holds the one fault that was asked for until its moment comes, or is over."""

    def __init__(self, handlers: Mapping[str, Handler], sink: BinaryIO) -> None:
        self.handlers: dict[str, Handler] = {op: self._around(op, handler) for op, handler in handlers.items()}
        self.handlers["inject"] = self._inject
        self._sink = sink
        self._fault: str | None = None
        self._on: tuple[str, ...] = ()
        self._left = 0
        self._lasting = False
        self._slower = 1.0  # times that drift has reached
        self._leaked = 0  # bytes

    def _inject(self, frame: Mapping[str, Any], blobs: Blobs) -> Answer:
        fault = frame.get("fault")
        if fault is not None and fault not in _FAULTS:
            raise RequestError(Kind.BAD_REQUEST, f"unknown fault {fault!r}; {', '.join(_FAULTS)}")
        on = frame.get("on") or "run"
        self._fault, self._left, self._lasting = fault, int(frame.get("after") or 1), bool(frame.get("lasting"))
        self._on = (on, "sensors") if fault == "throttle" else (on,)
        self._slower = 1.0
        return {}, []

    def _around(self, op: str, handler: Handler) -> Handler:
        def handle(frame: Mapping[str, Any], blobs: Blobs) -> Answer:
            if self._fault is None or op not in self._on:
                return handler(frame, blobs)
            self._left -= 1
            if self._left > 0:
                return handler(frame, blobs)
            fault = self._fault
            if not self._lasting:
                self._fault = None
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
        if fault == "leave":
            self._sink.write(encode({"id": frame.get("id"), "ok": True, **answer}, out))
            self._sink.writelines(out)
            self._sink.flush()
            os._exit(0)
        if fault in _LIES:
            out = [_in_the_middle(bytes(blob), _LIES[fault]) for blob in out]
        if fault == "backwards" and "samples_ns" in answer:
            answer["samples_ns"] = [[launch[::-1] for launch in sample] for sample in answer["samples_ns"]]
        if fault == "leak":
            self._leaked += _LEAK_BYTES
            answer["values"]["rss_bytes"] = (answer["values"]["rss_bytes"] or 0) + self._leaked
        if fault in ("drift", "throttle"):
            self._slow_down(answer)
        return answer, out

    def _slow_down(self, answer: dict[str, Any]) -> None:
        for sample in answer.get("samples_ns", ()):
            begin = sample[0][2]
            for launch in sample:
                launch[2:] = [begin + round(self._slower * (stamp - begin)) for stamp in launch[2:]]
            self._slower += _CREEP
        if "values" in answer:  # of the sensors, under `throttle`
            answer["values"]["cpu_clock_mhz"] = _CLOCK_MHZ / self._slower


def _in_the_middle(blob: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """A number or two are wrong (fp16 or fp32, whatever fits), where the margins of a guarded buffer are not."""
    at, width = len(blob) // 2 & -4, 2 if len(blob) % 4 else 4
    return blob[:at] + change(blob[at : at + width]) + blob[at + width :]


_LIES: dict[str, Callable[[bytes], bytes]] = {
    "wrong_result": lambda part: bytes(255 - byte for byte in part),
    "nan": lambda part: (b"\xff\x7f" * len(part))[: len(part)],  # in fp16, fp32 and fp64 alike
}
_REFUSALS = {"out_of_resources": Kind.OUT_OF_RESOURCES, "poisoned": Kind.LAUNCH_FAILED}
_FAULTS = (
    *("exit", "segfault", "abort", "hang", "garbage", "truncate"),
    *_LIES,  # on get: some bytes in the middle
    "backwards",  # on run: events that end before they start
    "drift",  # on run: each sample takes longer than the one before
    "throttle",  # the same, and the clock falls with it
    "leak",  # on sensors: a GiB more at each reading
    "leave",  # dies when it has answered
    *_REFUSALS,
)
