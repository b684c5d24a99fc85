"""From a model's sheet to the workloads that its inference consists of, weighted by their share of its time.

Each family turns a sheet into jobs by one function in `_PLANNERS`; a new family adds its own and nothing else changes.
Identical jobs are one workload: their calls add up and their labels are joined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from kernels.models import Decoder, ModelSheet, load_model, model_names
from kernels.spec import DTypes, WeightFormat, Workload

__all__ = ["Plan", "Planned", "dtype_policy", "load_model", "model_names", "plan"]

FORMATS = ("int4/g128", "e0m4/g128")
GEMV_ROWS = 16  # the largest M that gemv_decode's contract covers; more rows are a GEMM

_ACC: dict[str, str] = {
    "fp32": "fp32",
    "fp16": "fp32",
    "int8": "int32",
}  # what the long sums of each compute type are in
_BYTES = {"fp16": 2, "fp32": 4}


def dtype_policy(act: str, compute: str, weights: str | None) -> DTypes:
    """The policy that a plan gives a workload: long sums as wide as the arithmetic allows.

    int8 activations multiply integer codes; against fp16 weights they would only lose accuracy, so fp32 is used there.
    """
    compute = "fp32" if compute == "int8" and weights == "fp16" else compute
    return DTypes(act, compute, _ACC[compute])  # type: ignore[arg-type]  # checked by `plan` and the command line


@dataclass(frozen=True)
class Planned:
    """One workload of a model, how often it runs and what part of the plan's time it is expected to take."""

    workload: Workload
    count_per_token: int  # calls per pass: of the decoder for one token (M rows), of a tower for one image or text
    least_bytes: int  # of one call, every tensor touched once
    share: float  # of the plan's time, by count times fewest bytes (decoding waits for memory), each model alike


@dataclass(frozen=True)
class Plan:
    """The workloads of one or more models, and what the plan left out or changed, in sentences."""

    items: tuple[Planned, ...]
    notes: tuple[str, ...]

    def __iter__(self) -> Iterator[Planned]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class _Ask:
    """What was asked for beside the model. `context` (cached positions) is for the families that have a cache."""

    formats: tuple[str, ...]
    act: str
    compute: str
    m: tuple[int, ...]
    context: int

    def dtypes(self, weights: str) -> DTypes:
        return dtype_policy(self.act, self.compute, weights)


@dataclass(frozen=True)
class _Job:
    workload: Workload
    count: int
    least_bytes: int
    share: float = 0.0


_Found = tuple[list[_Job], list[str]]  # jobs and notes


def plan(
    models: str | ModelSheet | Sequence[str | ModelSheet],
    *,
    formats: Sequence[str] = FORMATS,
    act: str = "fp16",
    compute: str = "fp32",
    m: Sequence[int] = (1,),
    context: int = 1024,
    families: Sequence[str] | None = None,
) -> Plan:
    """Every workload of a model (or of several, merged), heaviest first, with shares that sum to one.

    `m` are the numbers of rows (tokens) per pass. Weights of a decoder are planned once per format; towers always in
    fp16, as both papers run them. Raises ValueError naming the choices for an unknown model, family, format or type.
    """
    for text in formats:
        WeightFormat.parse(text)
    _one_of("activation type", act, _BYTES)
    _one_of("compute type", compute, _ACC)
    for family in families or ():
        _one_of("kernel", family, _PLANNERS)
    if not m or min(m) < 1 or context < 1:
        raise ValueError(f"rows and context are at least 1, not {tuple(m)} and {context}")
    ask = _Ask(tuple(dict.fromkeys(formats)), act, compute, tuple(dict.fromkeys(m)), context)
    jobs: list[_Job] = []
    notes: list[str] = []
    for model in [models] if isinstance(models, str | ModelSheet) else models:
        sheet = load_model(model) if isinstance(model, str) else model
        mine: list[_Job] = []
        for family in _PLANNERS if families is None else dict.fromkeys(families):
            found, remarks = _PLANNERS[family](sheet, ask)
            mine += found
            notes += remarks
        jobs += _weigh(mine)
    return Plan(_merge(jobs), tuple(dict.fromkeys(notes)))


def _one_of(what: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise ValueError(f'unknown {what} "{value}"; choose one of {", ".join(choices)}')


def _weigh(jobs: Sequence[_Job]) -> list[_Job]:
    """The jobs of one model with their shares of its time."""
    total = sum(job.count * job.least_bytes for job in jobs)
    return [replace(job, share=job.count * job.least_bytes / total) for job in jobs]


def _merge(jobs: Sequence[_Job]) -> tuple[Planned, ...]:
    """One item per workload key, heaviest first: `gemma-2b q` and `gemma-2b o` become `gemma-2b q, o`."""
    total = sum(job.share for job in jobs)
    merged: dict[str, Planned] = {}
    labels: dict[str, dict[str, dict[str, None]]] = {}  # key → model → its parts, in order
    for job in jobs:
        key = job.workload.key
        model, _, part = job.workload.label.partition(" ")
        labels.setdefault(key, {}).setdefault(model, {})[part] = None
        label = "; ".join(f"{name} {', '.join(parts)}" for name, parts in labels[key].items())
        count, share = (merged[key].count_per_token, merged[key].share) if key in merged else (0, 0.0)
        merged[key] = Planned(
            replace(job.workload, label=label), count + job.count, job.least_bytes, share + job.share / total
        )
    return tuple(sorted(merged.values(), key=lambda item: (-item.share, item.workload.key)))


# ---------------------------------------------------------------- gemv_decode


def _gemv_decode(sheet: ModelSheet, ask: _Ask) -> _Found:
    """The projections of every decoder block, lm_head, and the pooled row of a tower, wherever M is at most 16.

    K and V are one call, as their weights are read together; gate and up are two calls of one shape.
    """
    jobs: list[_Job] = []
    notes: list[str] = []
    rows = [m for m in ask.m if m <= GEMV_ROWS]
    if many := [str(m) for m in ask.m if m > GEMV_ROWS]:
        notes.append(f"gemv_decode serves up to {GEMV_ROWS} rows: M = {', '.join(many)} is left to a GEMM")
    if sheet.decoder:
        shapes = _decoder_shapes(sheet.decoder)
        for text in ask.formats:
            for m in rows:
                for part, n, k, count in shapes:
                    group = WeightFormat.parse(text).group
                    fits = not group or k % group == 0
                    if not fits:
                        notes.append(
                            f"{sheet.name} {part}: K = {k} is not a multiple of the group of {text}; planned with fp16"
                        )
                    jobs.append(_gemv(sheet, part, (m, n, k), count, text if fits else "fp16", ask))
    for tower in sheet.towers:
        if tower.project:
            part = f"{tower.name} projection"
            jobs.append(_gemv(sheet, part, (1, tower.project, tower.hidden), 1, "fp16", ask))
        if tower.tokens > GEMV_ROWS:
            notes.append(
                f"{sheet.name} {tower.name} tower: its blocks see {tower.tokens} rows at once, "
                f"more than gemv_decode's {GEMV_ROWS}: left to a GEMM"
            )
    return jobs, notes


def _decoder_shapes(d: Decoder) -> list[tuple[str, int, int, int]]:
    """(name, N, K, calls per token) of a decoder's weight matrices."""
    feed = ("gate/up", 2 * d.layers) if d.gated else ("fc1", d.layers)
    return [
        ("q", d.heads * d.head_dim, d.hidden, d.layers),
        ("kv", 2 * d.kv_heads * d.head_dim, d.hidden, d.layers),
        ("o", d.hidden, d.heads * d.head_dim, d.layers),
        (feed[0], d.inter, d.hidden, feed[1]),
        ("down" if d.gated else "fc2", d.hidden, d.inter, d.layers),
        ("lm_head", d.vocab, d.hidden, 1),
    ]


def _gemv(sheet: ModelSheet, part: str, mnk: tuple[int, int, int], count: int, weights: str, ask: _Ask) -> _Job:
    m, n, k = mnk
    label = f"{sheet.name} {part}"
    workload = Workload("gemv_decode", {"M": m, "N": n, "K": k}, ask.dtypes(weights), weights, label=label)
    scales = 2 * n if weights == "int8" else 0  # int8 has one fp16 scale per row, which bits_per_weight leaves out
    packed = round(n * k * workload.format.bits_per_weight / 8) + scales
    return _Job(workload, count, packed + m * (n + k) * _BYTES[ask.act])


_PLANNERS: dict[str, Callable[[ModelSheet, _Ask], _Found]] = {"gemv_decode": _gemv_decode}
