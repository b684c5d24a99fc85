"""Where one family gives way to another: the winners of GEMV and GEMM, interleaved, at row counts that both serve."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import kernels
from harness.candidate import Candidate
from harness.contest import compete
from harness.measure import Meter
from harness.probe import ProbeResult
from harness.timing import LEAST_SAMPLES, paired_ratio
from kernels.jobs import GEMV_ROWS
from kernels.space import Space
from kernels.spec import DeviceSheet, Verdict, Workload
from kernels.tuned import Route

FEW, MANY = "gemv_decode", "gemm_prefill"
ROWS = (2, 4, 8, 16)
_BUDGET_S = 2.0  # of rounds, per row count
NOTE = "crossover"  # the journal's notes about it


@dataclass(frozen=True)
class Rivals:
    """Winners of both families for one matrix and format, at whatever row counts they were tuned."""

    few: tuple[Candidate, ...]
    many: tuple[Candidate, ...]

    @property
    def workload(self) -> Workload:
        """The matrix and format."""
        return self.few[0].workload


def rivals(winners: Sequence[Candidate]) -> list[Rivals]:
    """Who competes: winners of plain products (no epilogue) of one matrix that both families were tuned for."""
    groups: dict[tuple[str | None, str, int, int], dict[str, list[Candidate]]] = {}
    for winner in winners:
        workload = winner.workload
        if workload.family in (FEW, MANY) and not workload.options:
            key = (workload.weights, str(workload.dtypes), workload.dims["N"], workload.dims["K"])
            groups.setdefault(key, {FEW: [], MANY: []})[workload.family].append(winner)
    return [Rivals(tuple(g[FEW]), tuple(g[MANY])) for g in groups.values() if g[FEW] and g[MANY]]


def race(meter: Meter, found: Rivals, probe: ProbeResult, sheet: DeviceSheet) -> Iterator[dict[str, Any]]:
    """One record per row count: the rounds of the fastest of each family, paired. Rows that a family fails at are
    left out."""
    for rows in ROWS:
        candidates = [moved for one in (*found.few, *found.many) if (moved := _at(one, rows, sheet))]
        contest = compete(meter, list(dict.fromkeys(candidates)), probe, rounds=LEAST_SAMPLES, budget_s=_BUDGET_S)
        best: dict[str, tuple[float, ...]] = {}
        for contestant in contest.contestants:
            family, measured = contestant.candidate.family.name, contestant.measurement
            if measured.verdict is Verdict.OK and measured.stats:
                held = best.get(family)
                if held is None or measured.stats.median_ns < sorted(held)[len(held) // 2]:
                    best[family] = measured.samples_ns
        if set(best) == {FEW, MANY}:
            workload = found.workload
            yield {
                "weights": workload.weights,
                "N": workload.dims["N"],
                "K": workload.dims["K"],
                "rows": rows,
                "samples_ns": {name: [round(ns) for ns in samples] for name, samples in best.items()},
            }


def _at(candidate: Candidate, rows: int, sheet: DeviceSheet) -> Candidate | None:
    """The same configuration at another row count, or None where it is not legal there."""
    workload = candidate.workload.with_dims(M=rows)
    if Space(candidate.family, workload, sheet).illegal(candidate.config):
        return None
    return replace(candidate, workload=workload)


def routes(notes: Sequence[Mapping[str, Any]], present: Sequence[str]) -> tuple[Route, ...]:
    """Which family serves how many rows: measured edges per weight format, and for the rest what the contracts say."""
    families = kernels.families()
    if not {FEW, MANY} <= set(present):
        return tuple(Route(name, None, dict(families[name].bounds)) for name in (FEW, MANY) if name in present)
    most = families[MANY].bounds["M"][1]
    found: list[Route] = []
    by_format: dict[str, list[Mapping[str, Any]]] = {}
    for note in notes:
        by_format.setdefault(note["weights"], []).append(note)
    for weights, measured in by_format.items():
        edge = last_row_of_gemv(measured)
        found += [Route(FEW, weights, {"M": (1, edge)}), Route(MANY, weights, {"M": (edge + 1, most)})]
    return tuple(found) or (Route(FEW, None, {"M": (1, GEMV_ROWS)}), Route(MANY, None, {"M": (GEMV_ROWS + 1, most)}))


def last_row_of_gemv(measured: Sequence[Mapping[str, Any]]) -> int:
    """The largest row count for which GEMV is kept: GEMM takes over where it wins from there on.

    Between a count that GEMV won and the next tried, which GEMM won, the edge is their geometric mean.
    """
    won = [(1, FEW), *sorted((int(note["rows"]), _winner(note)) for note in measured)]
    kept = max(place for place, (_, winner) in enumerate(won) if winner == FEW)
    last = won[kept][0]
    if kept == len(won) - 1:
        return GEMV_ROWS
    return min(max(last, math.isqrt(last * won[kept + 1][0])), won[kept + 1][0] - 1)


def _winner(note: Mapping[str, Any]) -> str:
    samples = note["samples_ns"]
    return MANY if paired_ratio(samples[FEW], samples[MANY]).ratio < 1 else FEW
