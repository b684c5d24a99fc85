"""Where one kernel gives way to another along a size: both interleaved, at sizes that both serve.

GEMV and GEMM meet along the rows (`tuner.matmul`), kernels of one family along the dim in which its buckets lie side by
side (`tuner.edges`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.candidate import Candidate
from harness.contest import compete
from harness.measure import Meter
from harness.probe import ProbeResult
from harness.timing import LEAST_SAMPLES, paired_ratio
from kernels.space import Space
from kernels.spec import DeviceSheet, Verdict

Samples = Mapping[str, Sequence[float]]  # per side: the rounds of its fastest, paired
_BUDGET_S = 2.0  # of rounds, per size


def meet(
    meter: Meter,
    sides: Mapping[str, Sequence[Candidate]],
    sizes: Mapping[str, int],
    probe: ProbeResult,
    sheet: DeviceSheet,
) -> dict[str, list[int]] | None:
    """The rounds, ns, of the fastest of each side at other sizes; None where a side has nothing that runs there."""
    moved = {name: [one for c in side if (one := at(c, sizes, sheet))] for name, side in sides.items()}
    if not all(moved.values()):
        return None
    everyone = list(dict.fromkeys(candidate for side in moved.values() for candidate in side))
    contest = compete(meter, everyone, probe, rounds=LEAST_SAMPLES, budget_s=_BUDGET_S)
    ok = {c.candidate: c.measurement for c in contest.contestants if c.measurement.verdict is Verdict.OK}
    best: dict[str, list[int]] = {}
    for name, side in moved.items():
        times = {c: found.median_ns for c in side if c in ok and (found := ok[c].stats)}
        if not times:
            return None
        best[name] = [round(ns) for ns in ok[min(times, key=times.__getitem__)].samples_ns]
    return best


def at(candidate: Candidate, sizes: Mapping[str, int], sheet: DeviceSheet) -> Candidate | None:
    """The same configuration at other sizes, or None where it is not legal there."""
    workload = candidate.workload.with_dims(**sizes)
    if Space(candidate.family, workload, sheet).illegal(candidate.config):
        return None
    return replace(candidate, workload=workload)


def faster(samples: Samples) -> str:
    """The side that is faster by the median over the rounds."""
    (one, ones), (other, others) = samples.items()
    return other if paired_ratio(ones, others).ratio < 1 else one


def last_of(side: str, won: Mapping[int, str]) -> int:
    """The largest size for which `side`, which serves the smallest, is kept: beyond it the other wins all the way.

    `won` says who is faster at each size that was tried. Between a size that `side` won and the next one tried, which
    the other won, the edge is their geometric mean. The other must have won the largest; raises ValueError otherwise.
    """
    sizes = sorted(won)
    if won[sizes[-1]] == side:
        raise ValueError(f"{side} won every size up to {sizes[-1]}")
    kept = max((place for place, size in enumerate(sizes) if won[size] == side), default=-1)
    if kept < 0:
        raise ValueError(f"{side} won no size")
    low, high = sizes[kept], sizes[kept + 1]
    return min(max(low, math.isqrt(low * high)), high - 1)


def plain(record: Mapping[str, Any]) -> dict[str, list[float]]:
    """A journal's samples as numbers."""
    return {name: list(map(float, samples)) for name, samples in record["samples_ns"].items()}
