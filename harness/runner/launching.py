"""Launches of a run: their arguments bound once, then enqueued sample after sample as cheaply as Python can."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyopencl as cl

from harness.runner.protocol import Kind
from harness.runner.server import RequestError
from harness.runner.texels import Texels

Resident = Callable[[str, int], cl.Buffer]  # (name, turn of the rotation) → buffer
Kernels = Callable[[str | None], Mapping[str, cl.Kernel]]  # program that a launch names, or None → kernels by entry
_ORDER = {"R": cl.channel_order.R, "RG": cl.channel_order.RG, "RGBA": cl.channel_order.RGBA}
_TYPE = {
    "uint32": (cl.channel_type.UNSIGNED_INT32, 4),
    "uint16": (cl.channel_type.UNSIGNED_INT16, 2),
    "fp16": (cl.channel_type.HALF_FLOAT, 2),
    "fp32": (cl.channel_type.FLOAT, 4),
}


@dataclass(frozen=True)
class _Bound:
    """One launch with every argument made. Per turn of the rotation, `args` holds what must be set before it."""

    kernel: cl.Kernel
    global_size: tuple[int, ...]
    local_size: tuple[int, ...] | None
    args: tuple[tuple[tuple[int, Any], ...], ...]
    made: tuple[Any, ...]  # keeps images and sub-buffers alive: a kernel does not retain its arguments
    texels: tuple[tuple[Texels, ...], ...]  # per turn: those to make before it


def bind(
    context: cl.Context,
    launches: Iterable[Mapping[str, Any]],
    kernels: Kernels,
    resident: Resident,
    turns: int,
) -> list[_Bound]:
    """Make the arguments of each launch, once per turn. Raises RequestError for what is missing or malformed."""
    launches = list(launches)
    uses = Counter((one.get("program"), one.get("entry")) for one in launches)
    bound = []
    for one in launches:
        entry, there = str(one.get("entry")), kernels(one.get("program"))
        if entry not in there:
            raise RequestError(Kind.BAD_REQUEST, f"no kernel {entry!r}; there are {', '.join(sorted(there))}")
        kernel = there[entry]
        parts = [[_make(context, arg, resident, turn) for arg in one["args"]] for turn in range(turns)]
        texels = tuple(tuple(part for part in turn if isinstance(part, Texels)) for turn in parts)
        made = [[part.made if isinstance(part, Texels) else part for part in turn] for turn in parts]
        if len(made[0]) != kernel.num_args:
            raise RequestError(Kind.BAD_REQUEST, f"{entry} takes {kernel.num_args} arguments, not {len(made[0])}")
        for index, value in enumerate(made[0]):
            kernel.set_arg(index, value)
        # An argument is set again only if another launch shares the kernel object or a turn changes it: setting six
        # arguments costs pyopencl about as much as a small launch, and would be seen on the non-profiling queue.
        shared = uses[one.get("program"), one.get("entry")] > 1
        changing = tuple(
            tuple((i, v) for i, v in enumerate(turn) if shared or (turns > 1 and not isinstance(v, np.generic)))
            for turn in made
        )
        local = one.get("local")
        local = tuple(local) if local else None
        bound.append(_Bound(kernel, tuple(one["global"]), local, changing, tuple(made), texels))
    return bound


def _make(context: cl.Context, arg: Mapping[str, Any], resident: Resident, turn: int) -> Any:
    if "i32" in arg:
        if not -(1 << 31) <= arg["i32"] < 1 << 31:  # NumPy 1 would wrap it around
            raise RequestError(Kind.BAD_REQUEST, f"{arg['i32']} is no 32-bit integer")
        return np.int32(arg["i32"])
    if "f32" in arg:
        return np.float32(arg["f32"])
    if "image" in arg:
        return _image(context, arg["image"], resident, turn)
    if "buf" not in arg:
        raise RequestError(Kind.BAD_REQUEST, f"an argument is buf, i32, f32 or image, not {dict(arg)!r}")
    buffer = resident(arg["buf"], turn)
    if "offset" not in arg and "bytes" not in arg:
        return buffer
    offset = int(arg.get("offset") or 0)
    return _region(buffer, offset, int(arg.get("bytes") or buffer.size - offset))


def _region(buffer: cl.Buffer, offset: int, size: int) -> cl.Buffer:
    if not 0 <= offset < offset + size <= buffer.size:
        raise RequestError(Kind.BAD_REQUEST, f"bytes {offset} to {offset + size} of a {buffer.size}-byte buffer")
    return buffer.get_sub_region(offset, size)


def _image(context: cl.Context, view: Mapping[str, Any], resident: Resident, turn: int) -> cl.Image | Texels:
    """A 2D image over a buffer (cl_khr_image2d_from_buffer), or what stands in for it."""
    stand_in = bool(view.get("texels"))
    if not stand_in and "cl_khr_image2d_from_buffer" not in context.devices[0].extensions.split():
        raise RequestError(Kind.UNSUPPORTED, "the device has no cl_khr_image2d_from_buffer")
    if view.get("channels") not in _ORDER or view.get("type") not in _TYPE:
        raise RequestError(Kind.BAD_REQUEST, f"no image of {view.get('channels')!r} and {view.get('type')!r}")
    channel_type, channel_bytes = _TYPE[view["type"]]
    buffer = resident(view["buf"], turn)
    pitch = int(view["width"]) * len(view["channels"]) * channel_bytes
    offset = int(view.get("offset") or 0)
    size = pitch * int(view["height"])
    whole = offset == 0 and size == buffer.size
    part = (
        buffer if whole else _region(buffer, offset, size)
    )  # a name of its own: the descriptor does not keep it alive
    if stand_in:
        return Texels(context, part, view)
    desc = cl.ImageDescriptor()
    desc.image_type = cl.mem_object_type.IMAGE2D
    desc.shape = (int(view["width"]), int(view["height"]), 0)  # pyopencl wants three and two; a 2D image has no more
    desc.pitches = (pitch, 0)
    desc.buffer = part
    form = cl.ImageFormat(_ORDER[view["channels"]], channel_type)
    return cl.Image(context, cl.mem_flags.READ_ONLY, form, desc=desc)


class Sequence:
    """The bound launches of one run, repeated; counts the turns of the rotation."""

    def __init__(
        self,
        queue: cl.CommandQueue,
        launches: list[_Bound],
        restore: list[tuple[cl.Buffer, cl.Buffer]],
        turns: int,
        first: int,
    ) -> None:
        self._queue = queue
        self._launches = launches
        self._restore = restore
        self._turns = turns
        self._sample = first
        self._host_ns: list[list[int]] = []  # around each enqueue of the present sample

    def _put_back(self) -> None:
        for target, source in self._restore:
            cl.enqueue_copy(self._queue, target, source, byte_count=source.size)

    def one(self) -> list[cl.Event]:
        """Enqueue every launch once, restored buffers first, and take the next turn."""
        self._put_back()
        return self._launch()

    def _launch(self, gate: cl.UserEvent | None = None) -> list[cl.Event]:
        turn = self._sample % self._turns
        self._sample += 1
        events: list[cl.Event] = []
        self._host_ns = []
        for launch in self._launches:
            for index, value in launch.args[turn]:
                launch.kernel.set_arg(index, value)
            wait_for = [gate] if gate is not None and not events else None
            for texels in launch.texels[turn]:
                texels.make(self._queue)
            before = time.monotonic_ns()
            events.append(
                cl.enqueue_nd_range_kernel(
                    self._queue, launch.kernel, launch.global_size, launch.local_size, wait_for=wait_for
                )
            )
            self._host_ns.append([before, time.monotonic_ns()])
        return events

    def _launch_together(self) -> list[cl.Event]:
        """Enqueue one sample so that its launches follow each other as fast as the device allows.

        Python takes 18 to 30 µs for an enqueue, which would stand between the launches of one sample as if the device
        needed it (int8 GEMV 2048×2048 on PoCL: 65 % of bandwidth with the gap, 88 % without; engines enqueue far
        faster). So the first launch waits for an event that is set when all are enqueued.
        """
        if len(self._launches) == 1 or any(any(launch.texels) for launch in self._launches):
            return self._launch()  # a launch alone; or texels, which the host makes from what earlier launches wrote
        gate = cl.UserEvent(self._queue.context)
        try:
            return self._launch(gate)
        finally:
            gate.set_status(cl.command_execution_status.COMPLETE)

    def batch(self, samples: int) -> int:
        """Nanoseconds of wall time from the first enqueue of all samples to the queue's end."""
        start = time.perf_counter_ns()
        for _ in range(samples):
            self.one()
        self._queue.finish()
        return time.perf_counter_ns() - start

    def timed(self, samples: int, abort_above_ns: int | None, clock: bool = False) -> dict[str, Any]:
        """Event times of each launch of each sample, the queue empty in between; with `clock` the host's times too."""
        samples_ns: list[list[list[int]]] = []
        wall_ns: list[int] = []
        host: dict[str, list[Any]] = {"host_ns": [], "finished_ns": []}
        aborted = False
        while len(samples_ns) < samples and not aborted:
            self._put_back()
            self._queue.finish()
            start = time.perf_counter_ns()
            events = self._launch_together()
            self._queue.finish()
            wall_ns.append(time.perf_counter_ns() - start)
            host["finished_ns"].append(time.monotonic_ns())
            host["host_ns"].append(self._host_ns)
            profiles = [event.profile for event in events]
            samples_ns.append([[p.queued, p.submit, p.start, p.end] for p in profiles])
            took_ns = samples_ns[-1][-1][3] - samples_ns[-1][0][2]
            aborted = abort_above_ns is not None and took_ns > abort_above_ns
        return {"samples_ns": samples_ns, "wall_ns": wall_ns, "aborted": aborted, **(host if clock else {})}
