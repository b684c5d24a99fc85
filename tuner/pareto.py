"""`python -m tuner pareto FILE`: what may be traded for what, from the finals in the journal beside a document.

Time first: of all calls of a family in the passes that were planned. Against it stand the longest single dispatch (the
screen waits that long), the number of programs (each is compiled at start-up) and energy where the device counts it.
Nothing is made up: a kernel counts only at sizes where it ran, and what no sensor told is missing, with the reason.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.devices import sheet_from
from harness.errors import UsageError
from harness.records import read
from harness.tables import json_text, say, table, time_text
from harness.timing import TIE
from kernels.spec import DeviceSheet
from tuner.decisions import Decision, Record, decisions, latest_study
from tuner.programs import Server, choose, decided, servers
from tuner.request import OBJECTIVES, objectives

DISPATCHES = 12  # bounds on the longest dispatch that are tried, spread over those that kernels have
_UNTOLD = {
    "dispatch": "the journal is older than its records of single launches",
    "energy": "the device counts no energy",
}


@dataclass(frozen=True)
class Point:
    """One way to serve a family: a kernel for each of its workloads. None: not known."""

    time_ns: float
    dispatch_ns: float | None
    programs: int
    energy_j: float | None
    kernels: Mapping[str, str]  # workload key → variant and parameters
    chosen: bool  # whether the document has it

    def value(self, objective: str) -> float | None:
        """What it is worth by one objective: less is better."""
        found = {"time": self.time_ns, "dispatch": self.dispatch_ns, "energy": self.energy_j}
        return float(self.programs) if objective == "programs" else found[objective]


@dataclass(frozen=True)
class Front:
    """The ways to serve one family that no other is better than, fastest first, and the document's own."""

    family: str
    points: tuple[Point, ...]
    why: Mapping[str, str]  # objective → why nobody knows it

    def as_json(self) -> dict[str, Any]:
        """For `--json`: times in ns, energies in J."""
        points = [
            {
                "time_ns": point.time_ns,
                "dispatch_ns": point.dispatch_ns,
                "programs": point.programs,
                "energy_j": point.energy_j,
                "chosen": point.chosen,
                "kernels": dict(point.kernels),
            }
            for point in self.points
        ]
        return {"family": self.family, "points": points, "why": dict(self.why)}


def fronts(records: Sequence[Record], sheet: DeviceSheet, wanted: Sequence[str]) -> list[Front]:
    """A front for each family of a journal's last finished study. Raises KilnError for a journal without finals."""
    _, finals = latest_study(records)
    own = {decision.workload: decision for decision in decided(records, sheet)}
    found = []
    for mine, able in servers(records, decisions(finals, sheet)):
        chosen = _point(mine, [_server_of(own[decision.workload]) for decision in mine], chosen=True)
        points = [chosen, *_candidates(mine, able, wanted)]
        why = {name: _why(name, finals) for name in wanted if all(p.value(name) is None for p in points)}
        known = [name for name in wanted if name not in why]
        found.append(Front(mine[0].workload.family, _front(points, known), why))
    return found


def of_journal(path: Path, wanted: Sequence[str]) -> list[Front]:
    """The fronts of a journal file. Raises KilnError for one that cannot be read or has no finals."""
    records = read(path).records
    return fronts(records, sheet_from(latest_study(records)[0]["device"]), wanted)


def _server_of(decision: Decision) -> Server:
    return Server(0.0, decision.winner.finalist, decision.final)


def _why(objective: str, finals: Sequence[Record]) -> str:
    """A sensor's own reason where the finals have one."""
    reasons = finals[0]["facts"]["conditions"].get("why", {})
    told = next((text for name, text in sorted(reasons.items()) if name.endswith("energy_j")), None)
    return told if objective == "energy" and told else _UNTOLD[objective]


def _point(mine: Sequence[Decision], serving: Sequence[Server], chosen: bool = False) -> Point:
    calls = [decision.final.calls for decision in mine]
    dispatches = [max(server.finalist.launches_ns, default=None) for server in serving]
    energies = [server.finalist.energy_j for server in serving]
    return Point(
        time_ns=sum(n * server.ns for n, server in zip(calls, serving, strict=True)),
        dispatch_ns=None if None in dispatches else max(ns for ns in dispatches if ns is not None),
        programs=len({server.finalist.candidate.program for server in serving}),
        energy_j=None
        if None in energies
        else sum(n * joules for n, joules in zip(calls, energies, strict=True) if joules is not None),
        kernels={
            decision.workload.key: str(server.finalist.candidate).partition("/")[2]
            for decision, server in zip(mine, serving, strict=True)
        },
        chosen=chosen,
    )


def _candidates(
    mine: Sequence[Decision], able: Sequence[Mapping[str, Server]], wanted: Sequence[str]
) -> Iterator[Point]:
    """The least time, and energy, for each number of programs and each bound on a dispatch that may matter."""
    most = len({program for bucket in able for program in bucket})
    counts = range(1, min(most, len(mine)) + 1) if "programs" in wanted else (most,)
    for bound in _bounds(able) if "dispatch" in wanted else (None,):
        within = [{p: s for p, s in bucket.items() if bound is None or _dispatch_ns(s) <= bound} for bucket in able]
        if not all(within):
            continue
        for count in counts:
            for costs in _costs(mine, within, wanted):
                serves = choose(costs, count, judge=lambda spent: (sum(spent),)).serves
                yield _point(mine, [bucket[program] for bucket, program in zip(within, serves, strict=True)])


def _costs(
    mine: Sequence[Decision], able: Sequence[Mapping[str, Server]], wanted: Sequence[str]
) -> Iterator[list[dict[str, float]]]:
    """Per workload, what each program costs in all its calls: time, and energy where everybody's is known."""
    calls = [decision.final.calls for decision in mine]
    yield [{p: n * s.ns for p, s in bucket.items()} for n, bucket in zip(calls, able, strict=True)]
    if "energy" in wanted and all(s.finalist.energy_j is not None for bucket in able for s in bucket.values()):
        yield [{p: n * (s.finalist.energy_j or 0) for p, s in b.items()} for n, b in zip(calls, able, strict=True)]


def _dispatch_ns(server: Server) -> float:
    return max(server.finalist.launches_ns, default=0.0)


def _bounds(able: Sequence[Mapping[str, Server]]) -> list[float]:
    """Bounds on a dispatch, the loosest first: below the largest of the workloads' shortest nothing is left."""
    least = max(min(map(_dispatch_ns, bucket.values())) for bucket in able)
    every = sorted({ns for bucket in able for ns in map(_dispatch_ns, bucket.values()) if ns >= least}, reverse=True)
    step = max(1.0, (len(every) - 1) / (DISPATCHES - 1))
    return [every[min(round(i * step), len(every) - 1)] for i in range(min(DISPATCHES, len(every)))]


# ---------------------------------------------------------------- what is better than what


def _front(points: Sequence[Point], wanted: Sequence[str]) -> tuple[Point, ...]:
    """The points that no other is better than, fastest first; the document's own stays, whatever the others are."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda one: (not one.chosen, one.time_ns, one.programs)):
        if not any(_covers(other, point, wanted) for other in kept):
            kept = [other for other in kept if other.chosen or not _covers(point, other, wanted)]
            kept.append(point)
    return tuple(sorted(kept, key=lambda one: one.time_ns))


def _covers(one: Point, other: Point, wanted: Sequence[str]) -> bool:
    """Whether nobody would take `other`: by every objective `one` is as good, or behind by less than one notices."""
    pairs = [(one.value(name), other.value(name)) for name in wanted]
    return all(a is not None and (b is None or a <= b * TIE) for a, b in pairs)


# ---------------------------------------------------------------- for people

_HEADERS = {"time": "time", "dispatch": "longest dispatch", "programs": "programs", "energy": "energy"}


def text(found: Sequence[Front], wanted: Sequence[str]) -> str:
    """A table a family; what nobody knows has a sentence below."""
    parts = []
    for front in found:
        lines = [(*(_cell(point, name) for name in wanted), "chosen" if point.chosen else "") for point in front.points]
        parts.append(f"{front.family}: no kernel set is better by all of these\n")
        parts[-1] += table([*(_HEADERS[name] for name in wanted), ""], lines)
        parts[-1] += "".join(f"\n{_HEADERS[name]} is missing: {reason}" for name, reason in front.why.items())
    return "\n\n".join(parts)


def _cell(point: Point, objective: str) -> str | None:
    value = point.value(objective)
    if value is None:
        return None
    return (
        f"{value:.0f}" if objective == "programs" else f"{value:.3g} J" if objective == "energy" else time_text(value)
    )


def main(words: Sequence[str]) -> None:
    """The verb. Raises UsageError for what is wrong with its words or files."""
    parser = argparse.ArgumentParser(prog="python -m tuner pareto", description=__doc__.split("\n\n", maxsplit=1)[0])
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="a tuned config with its journal beside it")
    add("--objectives", default=",".join(OBJECTIVES), metavar="A,B", help="some of %(default)s (default all)")
    add("--json", action="store_true", help="print JSON")
    args = parser.parse_args(words)
    wanted = objectives(args.objectives)
    if not wanted:
        raise UsageError(f"--objectives needs at least one of {', '.join(OBJECTIVES)}")
    journal = args.file.with_suffix(".journal.jsonl")
    if not journal.exists():
        raise UsageError(f"{journal} is not there; python -m tuner --out {args.file} writes both")
    found = of_journal(journal, wanted)
    say(json_text([front.as_json() for front in found]) if args.json else text(found, wanted))
