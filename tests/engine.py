"""What an engine needs to run Kiln's kernels: plain pyopencl, the facts of its device, and an entry for each workload.

Everything that depends on the device (which variant, its parameters, launches, scratch and layouts) comes with the
entry that `kernels.select` gives; an engine evaluates sizes with integer arithmetic and binds arguments by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyopencl as cl

import kernels
from harness.devices import sheet_from
from harness.runner.describe import describe
from kernels.identity import identify
from kernels.select import select
from kernels.spec import ImageView, Workload, evaluate
from kernels.tuned import Entry, TunedConfig

Array = np.ndarray[Any, Any]


class Engine:
    """Runs workloads on one device, each by the best entry that its tuned configs have, or the built-in default."""

    def __init__(self, device: cl.Device, configs: Sequence[TunedConfig] = ()) -> None:
        description = describe(device)
        self._facts = identify(description, sheet_from(description))
        self._configs = configs
        self._families = kernels.families()
        self._context = cl.Context([device])
        self._queue = cl.CommandQueue(self._context)  # in order: each launch sees what those before it wrote
        self._entries: dict[Workload, Entry] = {}
        self._programs: dict[tuple[str, tuple[str, ...]], dict[str, cl.Kernel]] = {}
        self._scratch: dict[str, cl.Buffer] = {}

    def entry(self, workload: Workload) -> Entry:
        """What to run for a workload. Ask before packing a tensor: the entry says in which layout it is read."""
        if workload not in self._entries:
            family = self._families[workload.family]
            chosen = select(self._configs, workload, self._facts, family, veto=_needs_images)
            self._entries[workload] = chosen.entry
        return self._entries[workload]

    def run(self, workload: Workload, **tensors: cl.Buffer) -> None:
        """Launch a workload; `tensors` are the arguments of its family's ABI by name."""
        entry = self.entry(workload)
        compiled = self._kernels(entry, workload.family)
        values: dict[str, Any] = {dim: np.int32(size) for dim, size in workload.dims.items()} | tensors
        for scratch in entry.scratch:
            values[scratch.name] = self._at_least(scratch.name, evaluate(scratch.bytes, workload.dims))
        for launch in entry.launches:
            grid = tuple(evaluate(size, workload.dims) for size in launch.grid)
            args = [values[str(arg)] for arg in launch.args]  # names alone, see _needs_images
            compiled[launch.entry](self._queue, grid, launch.local, *args)

    def upload(self, array: Array) -> cl.Buffer:
        """A buffer with this content."""
        flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
        return cl.Buffer(self._context, flags, hostbuf=np.ascontiguousarray(array))

    def empty(self, shape: Sequence[int], dtype: Any) -> cl.Buffer:
        """A buffer that an array of this shape fits."""
        return cl.Buffer(self._context, cl.mem_flags.READ_WRITE, int(np.prod(shape)) * np.dtype(dtype).itemsize)

    def write(self, buffer: cl.Buffer, array: Array) -> None:
        """Replace a buffer's content, once the launches so far have ended."""
        cl.enqueue_copy(self._queue, buffer, np.ascontiguousarray(array))

    def read(self, buffer: cl.Buffer, shape: Sequence[int], dtype: Any) -> Array:
        """A buffer's content, once the launches so far have ended."""
        array = np.empty(shape, dtype)
        cl.enqueue_copy(self._queue, array, buffer)
        return array

    def _kernels(self, entry: Entry, family: str) -> dict[str, cl.Kernel]:
        """The kernels of an entry's program. Sizes are arguments, so that other sizes find it built."""
        key = (entry.source_sha256, entry.build_options)
        if key not in self._programs:
            source = self._families[family].variant(entry.variant).source
            program = cl.Program(self._context, source).build(list(entry.build_options))
            self._programs[key] = {kernel.function_name: kernel for kernel in program.all_kernels()}
        return self._programs[key]

    def _at_least(self, name: str, size: int) -> cl.Buffer:
        """A scratch buffer, shared by all that call it so; its content does not outlive one workload's launches."""
        if name not in self._scratch or self._scratch[name].size < size:
            self._scratch[name] = cl.Buffer(self._context, cl.mem_flags.READ_WRITE, size)
        return self._scratch[name]


def _needs_images(entry: Entry) -> str | None:
    """This engine's own reason against an entry: it binds buffers only."""
    views = [arg for launch in entry.launches for arg in launch.args if isinstance(arg, ImageView)]
    return "this engine makes no images" if views else None
