"""Decides for a whole model at once: one layout per weight format, and which entry serves which sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Protocol

from kernels.space import Layout, layout_of
from kernels.spec import Config, Dims, Family, Workload

Box = Mapping[str, tuple[int, int | None]]  # inclusive interval per dim, None = unbounded
Edges = Mapping[tuple[int, int], tuple[str, int]]  # (small point, large point) → a dim, and the first one's last size


class Timed(Protocol):
    """A configuration and its time, be it measured or predicted."""

    @property
    def config(self) -> Config:
        """The configuration."""

    @property
    def cost_ns(self) -> float:
        """Its time."""


@dataclass(frozen=True)
class Searched:
    """One workload's successful trials or its predictions, fastest first, and how often the model runs it."""

    workload: Workload
    calls: float  # per token
    ok: tuple[Timed, ...]
    default: Config


GroupKey = tuple[str, str | None, str]  # what the layouts arrange, weights, dtype policy: what shares one layout


def group_key(family: Family, workload: Workload) -> GroupKey:
    """Workloads with one key read the same tensors, whatever their family, and so in one layout."""
    return family.shares or family.name, workload.weights, str(workload.dtypes)


def choose_layouts(families: Mapping[str, Family], searched: Sequence[Searched]) -> dict[GroupKey, Layout]:
    """Per group of workloads, the layout with the least total time, weighted as the model spends it.

    A weight is packed once and every kernel reads that copy, so the layout cannot be chosen per workload. Only layouts
    in which each workload is at least as fast as the family's default may win, so that tuning never slows one down;
    the default's own layout always qualifies where the default ran. Raises ValueError where nothing was measured.
    """
    groups: dict[GroupKey, list[Searched]] = {}
    for item in searched:
        groups.setdefault(group_key(families[item.workload.family], item.workload), []).append(item)
    return {key: _best_layout(families, group) for key, group in groups.items()}


def _best_layout(families: Mapping[str, Family], group: Sequence[Searched]) -> Layout:
    # Per workload: layout → the best time seen in it. Trials are sorted, so the first of a layout is its best.
    times: list[dict[Layout, float]] = []
    for item in group:
        if not item.ok:
            raise ValueError(f"no candidate of {item.workload.key} succeeded; see the failures above")
        best: dict[Layout, float] = {}
        family = families[item.workload.family]
        for trial in item.ok:
            variant = family.variant(trial.config["variant"])
            best.setdefault(layout_of(variant, trial.config, item.workload), trial.cost_ns)
        times.append(best)
    totals: dict[Layout, float] = {}
    for layout in set().union(*times):
        if all(layout in best for best in times):
            safe = all(best[layout] <= _default_ns(item) for item, best in zip(group, times, strict=True))
            total = sum(item.calls * best[layout] for item, best in zip(group, times, strict=True))
            totals[layout] = total if safe else math.inf
    if not totals:
        raise ValueError("no layout was measured for every workload; give the search more time")
    return min(totals, key=lambda layout: (totals[layout], layout))


def _default_ns(item: Searched) -> float:
    return next((t.cost_ns for t in item.ok if dict(t.config) == dict(item.default)), math.inf)


def boxes(
    points: Sequence[Dims],
    bounds: Box,
    borders: Mapping[str, Sequence[int]] = MappingProxyType({}),
    edges: Edges = MappingProxyType({}),
) -> list[dict[str, tuple[int, int | None]]]:
    """Cut the whole range of sizes into one box per measured point, without overlaps or gaps.

    Guillotine cuts: the dim whose neighbouring values lie farthest apart (as a ratio) is cut, after the first of its
    `borders` that lies between them, else where `edges` has measured that one point gives way to the other, else at
    their geometric mean, and each side is cut again. Raises ValueError where two points are the same.
    """
    dims = tuple(points[0])
    whole = {dim: bounds.get(dim, (1, None)) for dim in dims}
    return _cut(list(range(len(points))), points, whole, borders, edges)


def _cut(
    members: list[int],
    points: Sequence[Dims],
    box: dict[str, tuple[int, int | None]],
    borders: Mapping[str, Sequence[int]],
    edges: Edges,
) -> list[dict[str, tuple[int, int | None]]]:
    found: list[dict[str, tuple[int, int | None]]] = [{} for _ in points]
    if len(members) == 1:
        found[members[0]] = box
        return found
    gaps = []
    for dim in box:
        values = sorted({points[i][dim] for i in members})
        gaps += [(high / low, dim, low, high) for low, high in pairwise(values)]
    if not gaps:
        raise ValueError(f"two entries for one size: {dict(points[members[0]])}")
    _, dim, low, high = max(gaps, key=lambda gap: (gap[0], gap[1]))
    mean = max(low, min(math.isqrt(low * high), high - 1))
    measured = [
        edge
        for (one, other), (along, edge) in edges.items()
        if along == dim and {one, other} <= set(members) and (points[one][dim], points[other][dim]) == (low, high)
    ]
    edge = next((edge for edge in (*borders.get(dim, ()), *measured) if low <= edge < high), mean)
    first, last = box[dim]
    for side, part in (
        ([i for i in members if points[i][dim] <= edge], {**box, dim: (first, edge)}),
        ([i for i in members if points[i][dim] > edge], {**box, dim: (edge + 1, last)}),
    ):
        for index, cut in zip(range(len(points)), _cut(side, points, part, borders, edges), strict=True):
            if cut:
                found[index] = cut
    return found
