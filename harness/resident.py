"""The tensors of whole steps on a device: weights and caches of as many layers as there is room for.

An engine holds all layers. Where memory does not allow that, the layers take turns with as many copies as fit, so that
what a layer reads has been thrown out of the caches by the layers in between. One copy of a weight feeds every step
whose kernels read it in one layout, as a tuned config promises.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from harness.buffers import Blob
from harness.candidate import Candidate, Ref, launches
from harness.step import CACHE, Call, Step, View
from harness.supervisor import Supervisor
from kernels.spec import Case, evaluate

# Of layers' weights and caches: all of Gemma 2B's 18 in 4 bits (1 GiB), and a run still stays under 4 GiB.
LAYERS_BYTES = 3 << 29


@dataclass
class _Tensor:
    """What is known of a tensor before it is on the device."""

    name: str  # of its buffer
    bytes: int
    part: str | None  # whose layers each have one of their own; None: there is one
    kept: tuple[str, str] | None  # part and name of a weight or cache; None: it does not outlive a step
    content: memoryview | None  # None: whatever is in it, nobody reads it before it is written


@dataclass(frozen=True)
class Layers:
    """How many of a part's layers have weights and caches of their own."""

    resident: int
    of: int
    bytes_each: int


class Residence:
    """Where each call's arguments are. Register every call, `load` once, then ask for launches."""

    def __init__(self, room_bytes: int) -> None:
        self.layers: dict[str, Layers] = {}  # by part, once loaded
        self._room = room_bytes
        self._tensors: dict[str, _Tensor] = {}
        self._scratch: dict[str, int] = {}
        self._align = 1
        self._counts: dict[str, int] = {}  # layers of each part

    # ------------------------------------------------------------ what there will be

    def register(self, step: Step, call: Call, candidate: Candidate, case: Case, blobs: Mapping[str, Blob]) -> None:
        """Note what a call reads and writes; the first one that names a tensor gives its content.

        Raises ValueError where a call reads a tensor that a call before has made too small: a fault of `step`.
        """
        self._counts[step.part] = step.layers
        outputs = {name: prod(part.shape) * part.dtype.itemsize for name, part in case.outputs.items()}
        for argument, size in {**{name: blob.size for name, blob in blobs.items()}, **outputs}.items():
            view = call.view(argument)
            name = self._name(step, call, candidate, argument)
            known = self._tensors.get(name)
            if known is None:
                kept = (step.part, view.tensor) if _kept(candidate, argument, view) else None
                part = step.part if kept and call.layer is not None else None
                content = blobs[argument].data if argument in blobs else None
                self._tensors[name] = known = _Tensor(name, view.offset + size, part, kept, content)
            if known.bytes < view.offset + size:
                raise ValueError(f"{step.name} {call.label}: {argument} needs {size} bytes of {known.bytes} in {name}")
        for scratch in candidate.schedule.scratch:
            size = evaluate(scratch.bytes, candidate.workload.dims)
            self._scratch[f"step:scratch:{scratch.name}:{size}"] = size

    def apart(self) -> dict[str, list[str]]:
        """By part, the weights and caches of which there is a copy for each of several layouts."""
        counts = Counter(tensor.kept for tensor in self._tensors.values())
        found: dict[str, list[str]] = {}
        for kept, count in counts.items():
            if kept is not None and count > 1:
                found.setdefault(kept[0], []).append(kept[1])
        return found

    def remarks(self, cold_bytes: int) -> list[str]:
        """Once loaded: what an engine would not like, and what is not cold. Above `cold_bytes` nothing stays cached."""
        found = [
            f"{part}: {', '.join(names)} are read in more than one layout; there is a copy for each, which an engine "
            "would have to keep as well"
            for part, names in self.apart().items()
        ]
        for part, layers in self.layers.items():
            if layers.resident < layers.of and layers.resident * layers.bytes_each <= cold_bytes:
                found.append(
                    f"the {part}'s layers that fit ({layers.resident}) may stay in the caches: weights are not cold"
                )
        return found

    def _name(self, step: Step, call: Call, candidate: Candidate, argument: str) -> str:
        """Weights and caches are a part's, once for each layout they are read in; all else is the step's own."""
        view = call.view(argument)
        if not _kept(candidate, argument, view):
            return f"step:{step.name}:{view.tensor}"
        layouts = ",".join(f"{tensor}={layout}" for tensor, layout in sorted(candidate.layouts.items()))
        return f"step:{step.part}:{view.tensor}:{candidate.workload.weights}:{layouts}"

    # ------------------------------------------------------------ on the device

    def load(self, supervisor: Supervisor) -> int:
        """Put everything on the device; returns the bytes that lie there. Raises what the supervisor raises."""
        self._align = supervisor.hello().device["mem_base_addr_align_bytes"]
        each = {part: sum(t.bytes for t in self._tensors.values() if t.part == part) for part in self._counts}
        whole = sum(size * self._counts[part] for part, size in each.items())
        fraction = min(1.0, self._room / whole) if whole else 1.0
        for part, size in each.items():
            count = self._counts[part]
            self.layers[part] = Layers(max(1, int(fraction * count)), count, size)
        total = 0
        for tensor in self._tensors.values():
            first = f"{tensor.name}:0"
            if tensor.content is None:
                supervisor.fill(first, tensor.bytes)
            else:
                supervisor.put(first, tensor.content)
            tensor.content = None
            slots = 1 if tensor.part is None else self.layers[tensor.part].resident
            for slot in range(1, slots):
                supervisor.copy(f"{tensor.name}:{slot}", first, tensor.bytes)
            total += slots * tensor.bytes
        for name, size in self._scratch.items():
            supervisor.fill(name, size)
            total += size
        return total

    def launches(self, step: Step, call: Call, candidate: Candidate, texels: bool = False) -> list[dict[str, Any]]:
        """A call's launches as a runner takes them, each with its program."""
        refs = dict(self._refs(step, call, candidate))
        found = launches(candidate, refs, texels=texels)
        return [{**launch, "program": candidate.program} for launch in found]

    def _refs(self, step: Step, call: Call, candidate: Candidate) -> Iterator[tuple[str, Ref]]:
        for arg in candidate.family.abi.args:
            tensor = self._tensors.get(self._name(step, call, candidate, arg.name))
            if tensor is None:
                continue  # a dim, or an argument that this job does not have
            slot = 0 if tensor.part is None else (call.layer or 0) % self.layers[tensor.part].resident
            ref: dict[str, Any] = {"buf": f"{tensor.name}:{slot}"}
            offset = call.view(arg.name).offset
            if offset:  # a sub-buffer starts where the device allows it
                ref |= {"offset": offset - offset % self._align}
            yield arg.name, ref
        for scratch in candidate.schedule.scratch:
            size = evaluate(scratch.bytes, candidate.workload.dims)
            yield scratch.name, {"buf": f"step:scratch:{scratch.name}:{size}"}


def _kept(candidate: Candidate, argument: str, view: View) -> bool:
    """Whether a tensor outlives a step: a weight or a KV cache."""
    return argument in candidate.family.abi.cold or view.tensor.startswith(CACHE)
