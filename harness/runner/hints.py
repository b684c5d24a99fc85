"""Priority and performance hints of a context and its queues, where the device takes them.

A low priority lets a phone's graphics go first (Transformer-Lite, arXiv 2403.20041, §2.2). Khronos's hint is a queue's,
Qualcomm's two are a context's. That an extension is listed does not mean that its hint is taken: old phones answer
CL_INVALID_PROPERTY (PaddlePaddle/Paddle-Lite#5389). So each is tried, and what came of it is told.

pyopencl has no way to pass these properties (inducer/pyopencl#875), hence the calls through ctypes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyopencl as cl

LEVELS = ("low", "normal", "high")
_QUEUE_PROPERTIES = 0x1093
_QUEUE_PRIORITY_KHR = 0x1096  # CL/cl_ext.h, cl_khr_priority_hints
_KHR = {"high": 1 << 0, "normal": 1 << 1, "low": 1 << 2}
_CONTEXT_PERF_HINT_QCOM = 0x40C2  # Qualcomm's cl_ext_qcom.h, cl_qcom_perf_hint
_PERFORMANCE = {"high": 0x40C3, "normal": 0x40C4, "low": 0x40C5}
_CONTEXT_PRIORITY_HINT_QCOM = 0x40C9  # cl_qcom_priority_hint
_PRIORITY = {"high": 0x40CA, "normal": 0x40CB, "low": 0x40CC}

Properties = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Queues:
    """A context with its two queues, and what came of each hint that was asked for, in words."""

    context: cl.Context
    timed: cl.CommandQueue
    plain: cl.CommandQueue
    told: Mapping[str, str]  # "priority", "performance"; only what was asked for


def open_queues(
    device: cl.Device, priority: str | None, performance: str | None, extensions: Sequence[str] | None = None
) -> Queues:
    """A context and queues with these hints (each of LEVELS, or None), without those that the device does not take."""
    listed = device.extensions.split() if extensions is None else extensions
    of_context: list[tuple[int, int]] = []
    told: dict[str, str] = {}
    if performance is not None:
        hint = (_CONTEXT_PERF_HINT_QCOM, _PERFORMANCE[performance])
        told["performance"] = _try_context(device, of_context, hint, performance, "cl_qcom_perf_hint", listed)
    of_queue: Properties = ()
    if priority is not None and "cl_khr_priority_hints" in listed:
        of_queue = ((_QUEUE_PRIORITY_KHR, _KHR[priority]),)
        status = _queue_status(device, of_queue)
        told["priority"] = _outcome(priority, "cl_khr_priority_hints", status)
        of_queue = () if status else of_queue
    if priority is not None and not ("priority" in told or "cl_qcom_priority_hint" in listed):
        names = "cl_khr_priority_hints nor cl_qcom_priority_hint"
        told["priority"] = f"default: {priority} was asked for, and the device lists neither {names}"
    elif priority is not None and not of_queue and "cl_qcom_priority_hint" in listed:
        hint = (_CONTEXT_PRIORITY_HINT_QCOM, _PRIORITY[priority])
        told["priority"] = _try_context(device, of_context, hint, priority, "cl_qcom_priority_hint", listed)
    context = make_context(device, of_context) if of_context else cl.Context([device])
    profiling = cl.command_queue_properties.PROFILING_ENABLE
    if not of_queue:
        return Queues(context, cl.CommandQueue(context, properties=profiling), cl.CommandQueue(context), told)
    timed = make_queue(context, device, [(_QUEUE_PROPERTIES, int(profiling)), *of_queue])
    return Queues(context, timed, make_queue(context, device, of_queue), told)


def _try_context(
    device: cl.Device, taken: list[tuple[int, int]], hint: tuple[int, int], level: str, name: str, listed: Sequence[str]
) -> str:
    """Add a hint to those that contexts take, if they take it; returns what came of it."""
    if name not in listed:
        return f"default: {level} was asked for, and the device does not list {name}"
    try:
        make_context(device, [*taken, hint])
    except HintRefusedError as refused:
        return _outcome(level, name, refused.status)
    taken.append(hint)
    return _outcome(level, name, 0)


def _queue_status(device: cl.Device, properties: Properties) -> int:
    try:
        make_queue(cl.Context([device]), device, properties)
    except HintRefusedError as refused:
        return refused.status
    return 0


def _outcome(level: str, name: str, status: int) -> str:
    if status == 0:
        return f"{level} by {name}"
    return f"default: {level} was asked for, and the driver refused {name} with error {status}"


# ---------------------------------------------------------------- the calls


class HintRefusedError(Exception):
    """The driver's error code for a context or queue with hints."""

    def __init__(self, status: int) -> None:
        super().__init__(f"error {status}")
        self.status = status


def make_context(device: cl.Device, properties: Properties) -> cl.Context:
    """A context with these properties. Raises HintRefusedError."""
    create = ctypes.CDLL(cl._cl.__file__).clCreateContext  # the one of pyopencl's own ICD loader
    create.restype = ctypes.c_void_p
    flat = [word for pair in properties for word in pair]
    listed = (ctypes.c_ssize_t * (len(flat) + 1))(*flat, 0)
    devices = (ctypes.c_void_p * 1)(device.int_ptr)
    status = ctypes.c_int32()
    made = create(listed, ctypes.c_uint32(1), devices, None, None, ctypes.byref(status))
    if status.value != 0 or not made:
        raise HintRefusedError(status.value)
    return cl.Context.from_int_ptr(made, retain=False)


def make_queue(context: cl.Context, device: cl.Device, properties: Properties) -> cl.CommandQueue:
    """A queue with these properties. Raises HintRefusedError."""
    create = ctypes.CDLL(cl._cl.__file__).clCreateCommandQueueWithProperties
    create.restype = ctypes.c_void_p
    flat = [word for pair in properties for word in pair]
    listed = (ctypes.c_uint64 * (len(flat) + 1))(*flat, 0)
    status = ctypes.c_int32()
    made = create(ctypes.c_void_p(context.int_ptr), ctypes.c_void_p(device.int_ptr), listed, ctypes.byref(status))
    if status.value != 0 or not made:
        raise HintRefusedError(status.value)
    return cl.CommandQueue.from_int_ptr(made, retain=False)
