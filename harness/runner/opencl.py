"""The driver's side of a runner: buffers, programs and launches of one OpenCL device, through pyopencl."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, cast

import numpy as np
import pyopencl as cl

from harness.runner import sensors
from harness.runner.binaries import Binaries
from harness.runner.describe import describe
from harness.runner.hints import open_queues
from harness.runner.kept import OPS, Kept
from harness.runner.launching import Sequence, bind
from harness.runner.protocol import PROTOCOL, Kind
from harness.runner.server import Answer, Blobs, Handler, RequestError

_FILL_BYTES = (1, 2, 4, 8, 16, 32, 64, 128)  # pattern lengths that clEnqueueFillBuffer takes
_FULL = {cl.status_code.MEM_OBJECT_ALLOCATION_FAILURE, cl.status_code.OUT_OF_RESOURCES}
_FULL |= {cl.status_code.OUT_OF_HOST_MEMORY, cl.status_code.INVALID_BUFFER_SIZE}
_CANNOT = {cl.status_code.IMAGE_FORMAT_NOT_SUPPORTED, cl.status_code.INVALID_IMAGE_SIZE}
_CANNOT |= {cl.status_code.INVALID_IMAGE_DESCRIPTOR, cl.status_code.INVALID_IMAGE_FORMAT_DESCRIPTOR}


class Device:
    """What is resident on one device, and the operations of the protocol on it."""

    def __init__(
        self,
        device: cl.Device,
        binaries: Binaries | None = None,
        priority: str | None = None,
        performance: str | None = None,
    ) -> None:
        self._device = device
        self._binaries = binaries
        queues = open_queues(device, priority, performance)
        self._context, self._timed, self._plain = queues.context, queues.timed, queues.plain
        self._hints = queues.told
        self._copies: dict[str, list[cl.Buffer]] = {}  # per name: the buffer itself, then its rotation copies
        self._programs: dict[str, tuple[dict[str, cl.Kernel], dict[str, Any]]] = {}
        self._kept = Kept()

    def handlers(self) -> dict[str, Handler]:
        """The protocol's operations by name."""
        return {
            "hello": self.hello,
            "put": _on_error(Kind.INTERNAL)(self.put),
            "drop": self.drop,
            "build": _on_error(Kind.BUILD_FAILED)(self.build),
            "run": sensors.counting_resets(_on_error(Kind.LAUNCH_FAILED)(self.run)),
            "get": _on_error(Kind.INTERNAL)(self.get),
            "sensors": lambda frame, blobs: (sensors.read(), []),
            **self._kept.handlers(),
            "bye": lambda frame, blobs: ({}, []),
        }

    def hello(self, frame: Mapping[str, Any], blobs: Blobs) -> Answer:
        """Say what this runner and its device are."""
        if frame.get("protocol") != PROTOCOL:
            raise RequestError(Kind.UNSUPPORTED, f"this runner speaks protocol {PROTOCOL}, not {frame.get('protocol')}")
        runner = f"kiln pyopencl {cl.VERSION_TEXT}"
        return {
            "protocol": PROTOCOL,
            "runner": runner,
            "device": describe(self._device),
            "sensors": list(sensors.SENSORS),
            "ops": list(OPS),
            **({"hints": dict(self._hints)} if self._hints else {}),
        }, []

    def put(self, frame: Mapping[str, Any], blobs: Blobs) -> Answer:
        """Make a buffer resident, or tell whether it is."""
        name, size = _field(frame, "buf", str), _field(frame, "bytes", int)
        pattern = frame.get("pattern")
        if not blobs and pattern is None:
            return {"have": name in self._copies and self._copies[name][0].size == size}, []
        if size <= 0 or (blobs and len(blobs[0]) != size):
            raise RequestError(Kind.BAD_REQUEST, f"{name}: {size} bytes announced, {sum(map(len, blobs))} sent")
        old = self._copies.pop(name, None)
        buffer = old[0] if old and old[0].size == size else cl.Buffer(self._context, cl.mem_flags.READ_WRITE, size)
        if blobs:
            cl.enqueue_copy(self._plain, buffer, np.frombuffer(blobs[0], np.uint8))
        else:
            self._fill(buffer, size, _hex(pattern))
        self._plain.finish()
        self._copies[name] = [buffer]
        return {}, []

    def _fill(self, buffer: cl.Buffer, size: int, pattern: bytes) -> None:
        whole = size - size % len(pattern) if len(pattern) in _FILL_BYTES else 0
        if whole:
            cl.enqueue_fill_buffer(self._plain, buffer, np.frombuffer(pattern, np.uint8), 0, whole)
        if whole < size:
            rest = np.frombuffer((pattern * ((size - whole) // len(pattern) + 1))[: size - whole], np.uint8)
            cl.enqueue_copy(self._plain, buffer, rest, dst_offset=whole)

    def drop(self, frame: Mapping[str, Any], blobs: Blobs) -> Answer:
        """Forget buffers, their copies and programs."""
        for name in frame.get("bufs") or ():
            for buffer in self._copies.pop(name, ()):
                buffer.release()
        for name in frame.get("programs") or ():
            self._programs.pop(name, None)
        return {}, []

    def build(self, frame: Mapping[str, Any], blobs: Blobs) -> Answer:
        """Compile a program and ask what its kernels need."""
        name = _field(frame, "program", str)
        if name in self._programs:
            return self._programs[name][1], []
        if not blobs:
            raise RequestError(Kind.BAD_REQUEST, f"{name}: no source was sent")
        start = time.perf_counter_ns()
        source, options = blobs[0].decode(), list(frame.get("options") or ())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", cl.CompilerWarning)  # its text is in the log below
            found = self._binaries.find(self._context, source, options) if self._binaries else None
            program, cached = found or cl.Program(self._context, source), found is not None
            try:
                if not cached:
                    program.build(options=options)
            except cl.RuntimeError as error:
                if error.code != cl.status_code.BUILD_PROGRAM_FAILURE:
                    raise
                raise RequestError(Kind.BUILD_FAILED, self._log(program) or str(error)) from error
        if self._binaries and not cached:
            cached = self._binaries.keep(program, source, options)
        # Not program.all_kernels(): pyopencl 2026.1 never frees those, and with them 1.8 MB a program on Intel's CPU.
        entries = str(program.get_info(cl.program_info.KERNEL_NAMES)).strip("\0").split(";")
        kernels = {entry: cl.Kernel(program, entry) for entry in entries if entry}
        answer = {
            "log": self._log(program),
            "build_ms": (time.perf_counter_ns() - start) / 1e6,
            "kernels": {entry: self._limits(kernel) for entry, kernel in kernels.items()},
        }
        if cached:
            answer["cached"] = True
        self._programs[name] = kernels, answer
        return answer, []

    def _log(self, program: cl.Program) -> str:
        log: str = program.get_build_info(self._device, cl.program_build_info.LOG)  # type: ignore[no-untyped-call]
        return log.strip("\0\n ")

    def _limits(self, kernel: cl.Kernel) -> dict[str, int]:
        info = cl.kernel_work_group_info
        asked = {
            "work_group": info.WORK_GROUP_SIZE,
            "local_bytes": info.LOCAL_MEM_SIZE,
            "private_bytes": info.PRIVATE_MEM_SIZE,
            "multiple": info.PREFERRED_WORK_GROUP_SIZE_MULTIPLE,
        }
        return {name: cast(int, kernel.get_work_group_info(what, self._device)) for name, what in asked.items()}

    def run(self, frame: Mapping[str, Any], blobs: Blobs) -> Answer:
        """Launch, timed by events (profile) or as one batch by the clock."""
        kernels, _ = self._program(_field(frame, "program", str))
        warmup, samples = int(frame.get("warmup") or 0), int(frame.get("samples") or 1)
        rotate = frame.get("rotate") or {}
        turns, first = int(rotate.get("copies", 1)), int(rotate.get("first", 0))
        rotated = frozenset(rotate.get("bufs", ()))
        for name in rotated:
            self._duplicate(name, turns)
        restore = [(self._buffer(r["buf"]), self._buffer(r["from"])) for r in frame.get("restore") or ()]

        def resident(name: str, turn: int) -> cl.Buffer:
            return self._copies[name][turn] if name in rotated else self._buffer(name)

        launches = bind(self._context, frame.get("launches") or (), kernels, resident, turns)
        queue = self._timed if frame.get("profile") else self._plain
        sequence = Sequence(queue, launches, restore, turns, first)
        try:
            for _ in range(warmup):
                sequence.one()
            queue.finish()
            if not frame.get("profile"):
                return {"wall_ns": [sequence.batch(samples)]}, []
            return sequence.timed(samples, frame.get("abort_above_ns")), []
        except cl.Error:
            queue.finish()  # an earlier launch of the sequence may still run, and `get` uses another queue
            raise

    def get(self, frame: Mapping[str, Any], blobs: Blobs) -> Answer:
        """Read bytes of a buffer back."""
        buffer = self._buffer(_field(frame, "buf", str))
        offset = int(frame.get("offset") or 0)
        size = int(frame.get("bytes") or buffer.size - offset)
        if not 0 <= offset < offset + size <= buffer.size:
            raise RequestError(Kind.BAD_REQUEST, f"bytes {offset} to {offset + size} of a {buffer.size}-byte buffer")
        out = np.empty(size, np.uint8)
        cl.enqueue_copy(self._plain, out, buffer, src_offset=offset)
        return {}, [out.data]

    def _program(self, name: str) -> tuple[dict[str, cl.Kernel], dict[str, Any]]:
        if name not in self._programs:
            raise RequestError(Kind.BAD_REQUEST, f"no program {name} is resident")
        return self._programs[name]

    def _buffer(self, name: str) -> cl.Buffer:
        if name not in self._copies:
            raise RequestError(Kind.BAD_REQUEST, f"no buffer {name} is resident")
        return self._copies[name][0]

    def _duplicate(self, name: str, copies: int) -> None:
        """Have at least so many copies of a buffer, the buffer itself counted."""
        source = self._buffer(name)
        held = self._copies[name]
        while len(held) < copies:
            copy = cl.Buffer(self._context, cl.mem_flags.READ_WRITE, source.size)
            cl.enqueue_copy(self._plain, copy, source, byte_count=source.size)
            held.append(copy)
        self._plain.finish()


def _on_error(kind: Kind) -> Callable[[Handler], Handler]:
    """Answer a driver's error with its own kind where it says one, else with `kind`."""

    def wrap(handler: Handler) -> Handler:
        @wraps(handler)
        def handle(frame: Mapping[str, Any], blobs: Blobs) -> Answer:
            try:
                return handler(frame, blobs)
            except cl.Error as error:
                full = isinstance(error, cl.MemoryError) or error.code in _FULL
                cannot = error.code in _CANNOT
                what = Kind.OUT_OF_RESOURCES if full else Kind.UNSUPPORTED if cannot else kind
                # What fails after it was enqueued (a bad access on a GPU) poisons the context and all it holds.
                # So does whatever makes a plain copy fail.
                fatal = what is Kind.INTERNAL or error.routine in ("clFinish", "clGetEventProfilingInfo")
                raise RequestError(what, str(error), fatal) from error

        return handle

    return wrap


def _field(frame: Mapping[str, Any], name: str, type_: type) -> Any:
    value = frame.get(name)
    if not isinstance(value, type_):
        raise RequestError(Kind.BAD_REQUEST, f"{frame.get('op')} needs {name}, {type_.__name__}; it is {value!r}")
    return value


def _hex(pattern: Any) -> bytes:
    try:
        value = bytes.fromhex(pattern)
    except (TypeError, ValueError):
        value = b""
    if not value:
        raise RequestError(Kind.BAD_REQUEST, f"a fill pattern is hexadecimal bytes, not {pattern!r}")
    return value
