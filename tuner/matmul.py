"""Where GEMV gives way to GEMM: the winners of both, interleaved, at row counts that both serve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import kernels
from harness.candidate import Candidate
from harness.measure import Meter
from harness.probe import ProbeResult
from kernels.jobs import GEMV_ROWS
from kernels.spec import DeviceSheet, Workload
from kernels.tuned import Route
from tuner.crossover import faster, last_of, meet, plain

FEW, MANY = "gemv_decode", "gemm_prefill"
ROWS = (2, 4, 8, 16)
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
        samples = meet(meter, {FEW: found.few, MANY: found.many}, {"M": rows}, probe, sheet)
        if samples is not None:
            dims = found.workload.dims
            yield {
                "weights": found.workload.weights,
                "N": dims["N"],
                "K": dims["K"],
                "rows": rows,
                "samples_ns": samples,
            }


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
    """The largest row count for which GEMV is kept: GEMM takes over where it wins from there on."""
    won = {1: FEW, **{int(note["rows"]): faster(plain(note)) for note in measured}}
    return GEMV_ROWS if won[max(won)] == FEW else last_of(FEW, won)
