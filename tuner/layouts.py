"""Layouts during a search: which are worth looking at, which one a model settles on, a configuration moved into one.

A weight is packed once and every kernel reads that copy (`tuner.choose`), so a search that looks at each workload alone
finds what cannot be chosen. On an H100 one spent all its trials of a GEMV on rows of single outputs (30 µs), which no
GEMM reads, and the model was left with the default of the common layout (284 µs).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import kernels
from kernels.space import Layout, Space, arranging, layout_of
from kernels.spec import Config
from tuner.choose import GroupKey, Searched, choose_layouts, group_key
from tuner.setting import Job

Settled = dict[str, Layout]  # by what reads the tensors


def groups(jobs: Sequence[Job]) -> dict[GroupKey, list[Job]]:
    """Jobs that read the same tensors."""
    found: dict[GroupKey, list[Job]] = {}
    for job in jobs:
        found.setdefault(group_key(job.space.family, job.workload), []).append(job)
    return found


def agree(jobs: Sequence[Job]) -> None:
    """Narrow each job's space to layouts that every job on the same tensors can read. One alone reads what it likes."""
    for group in groups(jobs).values():
        if len(group) == 1:
            continue
        common = frozenset.intersection(*(job.space.reachable_layouts() for job in group))
        for job in group:
            job.space = replace(job.space, layouts=common)


def undecided(job: Job) -> bool:
    """Whether there is more than one layout to choose from."""
    return job.space.layouts is not None and len(job.space.layouts) > 1


def settle(jobs: Sequence[Job]) -> Settled:
    """Keep to the layouts with the least total time so far. A group without a choice stays as it is."""
    settled = {}
    for key, group in groups(jobs).items():
        searched = [
            Searched(job.workload, job.planned.count, tuple(job.ok), job.default)
            for job in group
            if job.outcome is not None
        ]
        try:
            (layout,) = choose_layouts(kernels.families(), searched).values()
        except ValueError:
            continue  # a workload where nothing succeeded; the finals say so
        settled[_text(key)] = layout
    keep_to(settled, jobs)
    return settled


def keep_to(settled: Mapping[str, Sequence[Sequence[str]]], jobs: Sequence[Job]) -> None:
    """Narrow each job's space to what was settled for its tensors."""
    for key, group in groups(jobs).items():
        if layout := settled.get(_text(key)):
            for job in group:
                job.space = replace(job.space, layouts=frozenset([tuple((tensor, name) for tensor, name in layout)]))


def _text(key: GroupKey) -> str:
    return " ".join(filter(None, key))


def liked_by_others(job: Job, jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """The job's default in each layout that was the best for a job of another family on the same tensors.

    Without them a layout that one family likes has no number in the other, and cannot be weighed.
    """
    found = []
    for other in groups(jobs)[group_key(job.space.family, job.workload)]:
        if other.space.family is not job.space.family and other.ok:
            best = other.ok[0].config
            layout = layout_of(other.space.family.variant(best["variant"]), best, other.workload)
            found.append(moved(job.space, job.default, layout))
    return [config for config in found if config is not None]


def moved(space: Space, config: Config, layout: Layout) -> dict[str, Any] | None:
    """The configuration with those parameters changed that make it read this layout; None where that is not legal."""
    variant = space.family.variant(config["variant"])
    names = arranging(variant, space.workload)
    for values in product(*(variant.params[name] for name in names)):
        other = {**config, **dict(zip(names, values, strict=True))}
        if layout_of(variant, other, space.workload) == layout and space.reject(other) is None:
            return other
    return None
