"""What a model asks of the families: each turns a model's sheet into jobs by its own `jobs`, `kernels.plan` merges.

Beside the nouns stand the facts that more than one family needs: dtype policies and the matrices of a decoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from kernels.models import Decoder, ModelSheet, Tower
from kernels.spec import DTypes, Workload

GEMV_ROWS = 16  # the largest M that gemv_decode's contract covers; more rows are a GEMM
ACC: dict[str, str] = {"fp32": "fp32", "fp16": "fp32", "int8": "int32"}  # type of the long sums, by compute type


def dtype_policy(
    act: str, compute: str, weights: str | None, cache: Literal["fp16", "int8", "int4"] | None = None
) -> DTypes:
    """The policy that a plan gives a workload: long sums as wide as the arithmetic allows.

    int8 activations multiply integer codes; against fp16 weights or none they would only lose accuracy, so fp32 is
    used there.
    """
    compute = "fp32" if compute == "int8" and weights in (None, "fp16") else compute
    return DTypes(act, compute, ACC[compute], cache)  # type: ignore[arg-type]  # checked by `plan`


@dataclass(frozen=True)
class Ask:
    """What was asked for beside the model."""

    formats: tuple[str, ...]
    act: str
    compute: str
    cache: Literal["fp16", "int8", "int4"]
    m: tuple[int, ...]  # rows (tokens) per pass of the decoder
    context: int  # positions that are cached when a token is decoded
    overlap: tuple[int, ...] = ()  # row counts at which GEMV and GEMM compete, () = one of them is not asked for
    lengths: tuple[int, ...] = ()  # other cached lengths at which attention of one token is tuned, for its edges

    def dtypes(self, weights: str | None = None) -> DTypes:
        """The policy of a workload without a cache."""
        return dtype_policy(self.act, self.compute, weights)

    def cache_dtypes(self) -> DTypes:
        """The policy of a workload that reads or writes the KV cache."""
        return dtype_policy(self.act, self.compute, None, self.cache)


@dataclass(frozen=True)
class Job:
    """One workload of a model, how often one pass runs it, and the pass that it belongs to."""

    workload: Workload
    count: int
    phase: str  # "decode", "prefill 128", "tower image", "overlap", "lengths": passes that are weighed alike


Found = tuple[list[Job], list[str]]  # jobs, and notes on what was left out or changed


def phase_of(rows: int) -> str:
    """The decoder's pass over so many rows."""
    return "decode" if rows == 1 else f"prefill {rows}"


@dataclass(frozen=True)
class Passes:
    """One kind of pass: a stack of blocks over some rows."""

    part: str  # "" for the decoder, "image " for a tower: begins a label
    rows: int
    layers: int
    phase: str
    of: Decoder | Tower


def passes(sheet: ModelSheet, ask: Ask) -> Iterator[Passes]:
    """The decoder once per number of rows, each tower once."""
    for rows in ask.m if sheet.decoder else ():
        assert sheet.decoder is not None
        yield Passes("", rows, sheet.decoder.layers, phase_of(rows), sheet.decoder)
    for tower in sheet.towers:
        layers = tower.layers - tower.skip_last
        yield Passes(f"{tower.name} ", tower.tokens, layers, f"tower {tower.name}", tower)


@dataclass(frozen=True)
class Matrix:
    """A weight matrix of a decoder's block: [N, K], or a gate and an up matrix of that shape."""

    name: str
    N: int
    K: int
    count: int  # per pass


def matrices(d: Decoder) -> tuple[Matrix, ...]:
    """A decoder's weight matrices as a token meets them; K and V are one, as their weights are read together."""
    feed = ("gate/up", 2 * d.layers) if d.gated else ("fc1", d.layers)
    return (
        Matrix("q", d.heads * d.head_dim, d.hidden, d.layers),
        Matrix("kv", 2 * d.kv_heads * d.head_dim, d.hidden, d.layers),
        Matrix("o", d.hidden, d.heads * d.head_dim, d.layers),
        Matrix(feed[0], d.inter, d.hidden, feed[1]),
        Matrix("down" if d.gated else "fc2", d.hidden, d.inter, d.layers),
        Matrix("lm_head", d.vocab, d.hidden, 1),
    )


def heaviest(d: Decoder) -> Matrix:
    """The matrix of a block that takes most of its time: the crossover between families is measured on it."""
    return max((m for m in matrices(d) if m.name != "lm_head"), key=lambda m: m.N * m.K * m.count)
