"""From a model's sheet to the workloads that its inference consists of, weighted by their share of its time.

Each family says what a model asks of it (`Family.jobs`); here jobs are weighed, and identical ones become one workload:
their calls add up and their labels are joined.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import kernels
from kernels.jobs import ACC, Ask, Job
from kernels.models import ModelSheet, load_model, model_names
from kernels.spec import WeightFormat, Workload

__all__ = ["Plan", "Planned", "load_model", "model_names", "plan"]

FORMATS = ("int4/g128", "e0m4/g128")
ROWS = (1, 128, 1024)  # tokens per pass: decoding, a short prompt, a long one
CONTEXT = 1024  # positions cached when a token is decoded
LENGTHS = (256, 4096)  # at which it is tuned as well: the best number of key ranges follows the length
OVERLAP = (4, 16)  # rows at which GEMV and GEMM are both tuned, so that their crossover can be measured
MATMULS = frozenset({"gemv_decode", "gemm_prefill"})
# Operations per byte at which a device turns from waiting for memory to computing, for weighing alone: the geometric
# mean of the CPU runtimes' 7 and an Adreno 750's 73 in half precision.
BALANCE = 23.0
_EXTRA_WEIGHT = 0.25  # of a phase's: these are no part of a model's time, and few sizes decide an edge
_EXTRA = ("overlap", "lengths")

_ACTS = ("fp16", "fp32")
_CACHES = ("fp16", "int8", "int4")


@dataclass(frozen=True)
class Planned:
    """One workload of a model, how often it runs and what part of the plan's time it is expected to take."""

    workload: Workload
    count: int  # calls per pass: of the decoder over its rows, of a tower for one image or text
    least_bytes: float  # of one call, every tensor touched once
    share: float  # of the plan's time: each model alike, each of its passes alike, within a pass by least time


@dataclass(frozen=True)
class Plan:
    """The workloads of one or more models, and what the plan left out or changed, in sentences."""

    items: tuple[Planned, ...]
    notes: tuple[str, ...]

    def __iter__(self) -> Iterator[Planned]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


def plan(
    models: str | ModelSheet | Sequence[str | ModelSheet],
    *,
    formats: Sequence[str] = FORMATS,
    act: str = "fp16",
    compute: str = "fp32",
    cache: str = "fp16",
    m: Sequence[int] = ROWS,
    context: int = CONTEXT,
    families: Sequence[str] | None = None,
) -> Plan:
    """Every workload of a model (or of several, merged), heaviest first, with shares that sum to one.

    `m` are the numbers of rows (tokens) per pass. Weights of a decoder are planned once per format; towers always in
    fp16, as both papers run them. Raises ValueError naming the choices for an unknown model, family, format or type.
    """
    for text in formats:
        WeightFormat.parse(text)
    _one_of("activation type", act, _ACTS)
    _one_of("compute type", compute, ACC)
    _one_of("cache type", cache, _CACHES)
    known = kernels.families()
    for family in families or ():
        _one_of("kernel", family, sorted(known))
    if not m or min(m) < 1 or context < 1:
        raise ValueError(f"rows and context are at least 1, not {tuple(m)} and {context}")
    wanted = tuple(known if families is None else dict.fromkeys(families))
    ask = Ask(
        tuple(dict.fromkeys(formats)),
        act,
        compute,
        cache,  # type: ignore[arg-type]  # checked above
        tuple(dict.fromkeys(m)),
        context,
        OVERLAP if set(wanted) >= MATMULS else (),
        tuple(length for length in LENGTHS if length != context),
    )
    weighed: list[_Weighed] = []
    notes: list[str] = []
    for model in [models] if isinstance(models, str | ModelSheet) else models:
        sheet = load_model(model) if isinstance(model, str) else model
        mine: list[Job] = []
        for family in wanted:
            found, remarks = known[family].jobs(sheet, ask)
            mine += found
            notes += remarks
        weighed += _weigh(mine)
    return Plan(_merge(weighed), tuple(dict.fromkeys(notes)))


def _one_of(what: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise ValueError(f'unknown {what} "{value}"; choose one of {", ".join(choices)}')


@dataclass(frozen=True)
class _Weighed:
    job: Job
    least_bytes: float
    share: float


def _weigh(jobs: Sequence[Job]) -> list[_Weighed]:
    """The jobs of one model with their shares of its time, which sum to one."""
    costs = [kernels.families()[job.workload.family].cost(job.workload) for job in jobs]
    times = [job.count * max(cost.bytes, cost.flops / BALANCE) for job, cost in zip(jobs, costs, strict=True)]
    total: dict[str, float] = {}
    for job, time in zip(jobs, times, strict=True):
        total[job.phase] = total.get(job.phase, 0.0) + time
    weight = {phase: _EXTRA_WEIGHT if phase in _EXTRA else 1.0 for phase in total}
    return [
        _Weighed(job, cost.bytes, weight[job.phase] / sum(weight.values()) * time / total[job.phase])
        for job, cost, time in zip(jobs, costs, times, strict=True)
    ]


def _merge(weighed: Sequence[_Weighed]) -> tuple[Planned, ...]:
    """One item per workload key, heaviest first: `gemma-2b q` and `gemma-2b o` become `gemma-2b q, o`."""
    total = sum(one.share for one in weighed)
    merged: dict[str, Planned] = {}
    labels: dict[str, dict[str, dict[str, None]]] = {}  # key → model → its parts, in order
    for one in weighed:
        workload = one.job.workload
        model, _, part = workload.label.partition(" ")
        labels.setdefault(workload.key, {}).setdefault(model, {})[part] = None
        label = "; ".join(f"{name} {', '.join(parts)}" for name, parts in labels[workload.key].items())
        before = merged.get(workload.key)
        count, share = (before.count, before.share) if before else (0, 0.0)
        merged[workload.key] = Planned(
            replace(workload, label=label), count + one.job.count, one.least_bytes, share + one.share / total
        )
    return tuple(sorted(merged.values(), key=lambda item: (-item.share, item.workload.key)))
