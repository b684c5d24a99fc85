"""A whole step of a model: every job of a pass in the model's order, each with the tensors that it reads and writes.

Which jobs there are, their shapes and how often they run are the families' own answers (`Family.jobs`), as the tuner
plans them; here they get an order and are wired to each other. What no family does is no part of a step: looking up
embeddings, the product of gate and up where a GEMV gives both, the choice of a token. Values are random and mean
nothing; shapes, formats, layouts, cached lengths and who reads what another one wrote are the model's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import kernels
from kernels.jobs import Ask, Job, phase_of
from kernels.models import Decoder, ModelSheet, Tower
from kernels.spec import Workload

Phase = Literal["slice-encode", "prompt-eval", "token-eval"]  # as the OnePlus 13R study divides a query
CACHE = "cache."  # begins the names of the tensors that are a layer's KV cache
_ACT_BYTES = {"fp16": 2, "fp32": 4}
_OWN: Mapping[str, View] = MappingProxyType({})  # weights named after their call
_CACHED = {name: f"{CACHE}{name}" for name in ("k", "v", "ks", "vs")}


@dataclass(frozen=True)
class View:
    """A tensor from some byte on, as an argument takes it."""

    tensor: str
    offset: int = 0


@dataclass(frozen=True)
class Call:
    """One job in its place."""

    name: str  # "q", "attention norm": names its weights too
    workload: Workload
    layer: int | None  # None: it belongs to no layer (lm_head)
    wires: Mapping[str, View] = field(default_factory=dict)  # by ABI argument; an argument without one has its own

    def view(self, argument: str) -> View:
        """The tensor that an argument is bound to."""
        return self.wires.get(argument) or View(f"{self.name}.{argument}")

    @property
    def label(self) -> str:
        """For people: `layer 3 gate`."""
        return self.name if self.layer is None else f"layer {self.layer} {self.name}"


@dataclass(frozen=True)
class Step:
    """One pass of a model."""

    name: str  # "decode", "prefill", "image encoder"
    phase: Phase
    part: str  # whose weights it reads: "decoder", "image": steps of one part share them
    layers: int
    tokens: int  # that it reads or writes; 0 for an encoder
    about: str
    calls: tuple[Call, ...]


def steps(sheet: ModelSheet, ask: Ask) -> tuple[Step, ...]:
    """The steps of a model in the order of a query: its encoders, the prompt, one token.

    `ask.m` holds the row counts of the decoder's passes, 1 for decoding, and `ask.formats` one weight format. Raises
    ValueError where a family gives a job that has no place here, since a step that leaves one out would look fast.
    """
    groups: dict[str, dict[tuple[str, str], Job]] = {}
    for family in kernels.families().values():
        for job in family.jobs(sheet, ask)[0]:
            part = job.workload.label.removeprefix(f"{sheet.name} ")
            groups.setdefault(job.phase, {})[family.name, part] = job
    found = []
    for tower in sheet.towers:
        jobs = groups[f"tower {tower.name}"]
        about = f"{tower.name} encoder: {tower.tokens} tokens"
        wiring = _Wiring({(family, part.removeprefix(f"{tower.name} ")): job for (family, part), job in jobs.items()})
        calls = wiring.tower(tower)
        found.append(
            Step(f"{tower.name} encoder", "slice-encode", tower.name, tower.layers - tower.skip_last, 0, about, calls)
        )
    if (d := sheet.decoder) is not None:
        for rows in sorted(set(ask.m), reverse=True):
            jobs = dict(groups[phase_of(rows)])
            if rows > 1 and ("gemv_decode", "lm_head") not in jobs:  # a prompt's last row alone is projected
                jobs["gemv_decode", "lm_head"] = groups[phase_of(1)]["gemv_decode", "lm_head"]
            calls = _Wiring(jobs).decoder(d)
            if rows == 1:
                about = f"decode: one token, {ask.context} cached"
                found.append(Step("decode", "token-eval", "decoder", d.layers, 1, about, calls))
            else:
                about = f"prefill: {rows} tokens"
                found.append(Step("prefill", "prompt-eval", "decoder", d.layers, rows, about, calls))
    return tuple(found)


def remarks(sheet: ModelSheet, ask: Ask) -> tuple[str, ...]:
    """What the families left out or changed of what was asked, in sentences."""
    found = [note for family in kernels.families().values() for note in family.jobs(sheet, ask)[1]]
    return tuple(dict.fromkeys(found))


class _Wiring:
    """A step being made: its jobs by family and name, and which tensor holds what at this point."""

    def __init__(self, jobs: Mapping[tuple[str, str], Job]) -> None:
        self._jobs = jobs
        self._matmul = {name: family for family, name in jobs if family in ("gemv_decode", "gemm_prefill")}
        self._used: set[tuple[str, str]] = set()
        self._calls: list[Call] = []
        self._h = "x"  # what the next matrices read
        self._stream = "x"  # the residual stream, and what the next norm adds to it
        self._out: str | None = None
        self._fused = False  # the last matrix has added the stream already
        self._turn = 0

    def decoder(self, d: Decoder) -> tuple[Call, ...]:
        """All blocks of a decoder, the last norm, lm_head."""
        for layer in range(d.layers):
            self._norm("attention norm", layer)
            self._linear("q", layer, self._h, "q")
            self._linear("kv", layer, self._h, "kv")
            self._attend(layer, View("q"), "kv", 0)
            self._linear("o", layer, "a", "t")
            self._norm("feed-forward norm", layer)
            self._feed_forward(layer, "down" if d.gated else "fc2", gated=d.gated)
        self._norm("last norm", None)
        self._linear("lm_head", None, self._h, "logits")
        return self._done()

    def tower(self, t: Tower) -> tuple[Call, ...]:
        """All blocks of an encoder, then whatever follows them: norm, projection of the pooled row, projector."""
        for layer in range(t.layers - t.skip_last):
            self._norm("attention norm", layer)
            self._linear("qkv", layer, self._h, "qkv")
            self._attend(layer, View("qkv"), "qkv", 1)
            self._linear("o", layer, "a", "t")
            self._norm("feed-forward norm", layer)
            self._feed_forward(layer, "fc2", gated=False)
        features = "t"
        if not t.skip_last:
            self._norm("last norm", None)
            features = self._h
        if ("gemv_decode", "projection") in self._jobs:
            self._linear("projection", None, features, "projected")
        for name in sorted(name for name in self._matmul if name.startswith("projector ")):
            self._linear(name, None, features, name)
            features = name
        return self._done()

    def _done(self) -> tuple[Call, ...]:
        if left := sorted(set(self._jobs) - self._used):
            raise ValueError(f"no place in a step is known for {', '.join(' '.join(key) for key in left)}")
        return tuple(self._calls)

    # ------------------------------------------------------------ one job each

    def _job(self, family: str, name: str) -> Workload:
        self._used.add((family, name))
        return self._jobs[family, name].workload

    def _add(self, name: str, workload: Workload, layer: int | None, **wires: View) -> None:
        self._calls.append(Call(name, workload, layer, wires))

    def _norm(self, name: str, layer: int | None) -> None:
        """The stream and its norm, each written where the one before is not read any more.

        Where the matrix before has added the stream in its epilogue, the job still adds a second operand, as it is
        planned: it gets the norm before, so that values stay small.
        """
        self._turn ^= 1
        y, total = f"h{self._turn}", f"stream{self._turn}"
        if self._out is None:
            self._add(name, self._job("rmsnorm", "first norm"), layer, x=View("x"), y=View(y))
        else:
            wires = {"x": self._out, "r": self._h if self._fused else self._stream, "sum": total, "y": y}
            views = {argument: View(tensor) for argument, tensor in wires.items()}
            self._add(name, self._job("rmsnorm", "norm"), layer, **views)
            self._stream = total
        self._h = y

    def _linear(
        self, name: str, layer: int | None, x: str, y: str, job: str = "", weights: Mapping[str, View] = _OWN
    ) -> None:
        workload = self._job(self._matmul[job or name], job or name)
        added = bool(workload.options.get("residual"))
        residual = {"r": View(self._stream)} if added else {}
        self._add(name, workload, layer, x=View(x), y=View(y), **residual, **weights)
        if y == "t":
            self._out, self._fused = y, added

    def _attend(self, layer: int, q: View, kv: str, parts_before: int) -> None:
        """New K and V into the layer's cache, then attention over it, in a cache of one size.

        K and V come from one matrix; with more than one row their numbers lie interleaved in its output, where the
        concat takes them apart: here it reads the same bytes as two blocks.
        """
        concat = self._job("kv_concat", "kv")
        dims = concat.dims
        block = dims["M"] * dims["G"] * dims["D"] * _ACT_BYTES[concat.dtypes.act]
        new = {f"{name}_new": View(kv, (parts_before + i) * block) for i, name in enumerate(("k", "v"))}
        cached = {argument: View(tensor) for argument, tensor in _CACHED.items()}
        turned = {"q": q} if concat.options.get("q") else {}
        self._add("concat", concat, layer, **turned, **new, **cached)
        attention = self._job("flash_attention", "attention").with_dims(S=dims["S"])
        self._add("attention", attention, layer, q=q, o=View("a"), **cached)

    def _feed_forward(self, layer: int, last: str, *, gated: bool) -> None:
        if not gated:
            self._linear("fc1", layer, self._h, "inner")
        elif self._matmul["gate/up"] == "gemv_decode":
            self._linear("gate", layer, self._h, "inner", job="gate/up")
            self._linear("up", layer, self._h, "inner up", job="gate/up")
        else:
            weights = {"w": "gate.w", "sb": "gate.sb", "w_up": "up.w", "sb_up": "up.sb"}
            views = {argument: View(tensor) for argument, tensor in weights.items()}
            self._linear("gate/up", layer, self._h, "inner", weights=views)
        self._linear(last, layer, "inner", "t")
