"""Where neighbouring buckets of one family meet: found by measuring both winners at sizes in between.

So the number of ranges that attention splits its keys into follows the cached length as this device wants it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from harness.candidate import Candidate
from harness.measure import Meter
from harness.probe import ProbeResult
from kernels.spec import DeviceSheet, Workload
from kernels.tuned import Match
from tuner.crossover import faster, last_of, meet, plain

NOTE = "edge"  # the journal's notes about it
LOW, HIGH = "low", "high"  # sides: the kernel that serves small sizes, and the one that serves large ones
# Family → the dim along which the best kernel changes, and dims that grow with it and change nothing.
ALONG: Mapping[str, tuple[str, frozenset[str]]] = {"flash_attention": ("T", frozenset({"S"}))}
TRIES = 4  # sizes between two buckets: 256 and 1,024 positions are then told apart within a tenth
NEAR = 1.2  # sizes as near as that need no other between them


@dataclass(frozen=True)
class Neighbours:
    """Winners of two buckets that lie side by side."""

    low: Candidate
    high: Candidate

    @property
    def dim(self) -> str:
        """Along which they lie."""
        return ALONG[self.low.family.name][0]

    def between(self, size: int) -> dict[str, int]:
        """All sizes where the dim has this one: others that differ move along in proportion, on a logarithmic scale."""
        low, high = self.low.workload.dims, self.high.workload.dims
        share = math.log(size / low[self.dim]) / math.log(high[self.dim] / low[self.dim])
        moved = {dim: round(low[dim] * (high[dim] / low[dim]) ** share) for dim in low if low[dim] != high[dim]}
        return {**moved, self.dim: size}


def neighbours(winners: Sequence[Candidate]) -> list[Neighbours]:
    """Winners of adjacent sizes that differ: for one kind of job, at sizes that are alike but for that dim."""
    rows: dict[tuple[str, ...], list[Candidate]] = {}
    for winner in winners:
        workload = winner.workload
        if workload.family in ALONG:
            dim, along = ALONG[workload.family]
            others = {name: size for name, size in workload.dims.items() if name != dim and name not in along}
            key = (workload.family, str(Match.of(workload, winner.family)), str(others))
            rows.setdefault(key, []).append(winner)
    found = []
    for row in rows.values():
        dim = ALONG[row[0].family.name][0]
        for low, high in pairwise(sorted(row, key=lambda winner: winner.workload.dims[dim])):
            if _choice(low) != _choice(high) and low.workload.dims[dim] < high.workload.dims[dim]:
                found.append(Neighbours(low, high))
    return found


def _choice(candidate: Candidate) -> tuple[dict[str, Any], bool]:
    return dict(candidate.config), candidate.driver_local


def race(meter: Meter, found: Neighbours, probe: ProbeResult, sheet: DeviceSheet) -> Iterator[dict[str, Any]]:
    """One record per size that was tried, each halving what is still open. Ends where one of the two does not run."""
    low, high = (one.workload.dims[found.dim] for one in (found.low, found.high))
    for _ in range(TRIES):
        if high <= NEAR * low:
            return
        size = math.isqrt(low * high)
        samples = meet(meter, {LOW: [found.low], HIGH: [found.high]}, found.between(size), probe, sheet)
        if samples is None:
            return
        workloads = {LOW: found.low.workload.key, HIGH: found.high.workload.key}
        yield {"between": workloads, "dim": found.dim, "size": size, "samples_ns": samples}
        low, high = (size, high) if faster(plain({"samples_ns": samples})) == LOW else (low, size)


Edges = Mapping[tuple[str, str], tuple[str, int]]  # keys of two workloads → the dim, and the first one's last size


def edges(notes: Sequence[Mapping[str, Any]], workloads: Sequence[Workload]) -> Edges:
    """What was measured between these workloads."""
    by_key = {workload.key: workload for workload in workloads}
    tried: dict[tuple[str, str], dict[int, str]] = {}
    dims: dict[tuple[str, str], str] = {}
    for note in notes:
        pair = note["between"][LOW], note["between"][HIGH]
        if set(pair) <= by_key.keys():
            dims[pair] = note["dim"]
            tried.setdefault(pair, {})[int(note["size"])] = faster(plain(note))
    found = {}
    for pair, won in tried.items():
        ends = {by_key[key].dims[dims[pair]]: side for key, side in zip(pair, (LOW, HIGH), strict=True)}
        found[pair] = dims[pair], last_of(LOW, won | ends)
    return found
