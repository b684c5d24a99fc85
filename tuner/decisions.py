"""What a journal's records decide: no device is needed, and the same records always decide the same.

A study's `final` records hold the paired samples of every finalist; winners and layouts are taken from them here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import kernels
from harness.candidate import Candidate
from harness.errors import KilnError
from harness.records import errors_of
from kernels.spec import DeviceSheet, DTypes, Workload
from tuner.choose import GroupKey, group_key
from tuner.finals import Final, Finalist, Winner, decide

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Decision:
    """One workload's finals and what won them."""

    workload: Workload
    final: Final
    winner: Winner
    regret: float | None = None  # by what fraction another program is faster here; None where they were not limited


# ---------------------------------------------------------------- records


def workload_record(workload: Workload) -> dict[str, Any]:
    """A workload as JSON."""
    return {
        "family": workload.family,
        "dims": dict(workload.dims),
        "dtypes": asdict(workload.dtypes),
        "weights": workload.weights,
        "options": dict(workload.options),
        "label": workload.label,
    }


def workload_of(record: Record) -> Workload:
    """The workload that `workload_record` wrote."""
    return Workload(**{**record, "dtypes": DTypes(**record["dtypes"])})


def final_record(calls: float, finalists: Sequence[Finalist], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The finals of one workload as a journal record; the first finalist is the family's default."""
    workload = finalists[0].candidate.workload
    return {
        "workload": workload_record(workload),
        "calls": calls,
        "finalists": [
            {
                "config": dict(f.candidate.config),
                "driver_local": f.candidate.driver_local,
                "samples_ns": [round(ns) for ns in f.samples_ns],
                "errors": asdict(f.errors) if f.errors else None,
                "launches_ns": [round(ns) for ns in f.launches_ns],
                "energy_j": f.energy_j,
            }
            for f in finalists
        ],
        "facts": dict(facts),
    }


def final_of(record: Record) -> Final:
    """The finals that `final_record` wrote."""
    workload = workload_of(record["workload"])
    family = kernels.families()[workload.family]
    found = []
    for item in record["finalists"]:
        candidate = Candidate(family, workload, item["config"], item["driver_local"])
        errors = errors_of(item["errors"]) if item["errors"] else None
        samples, launches = (tuple(map(float, item.get(name, ()))) for name in ("samples_ns", "launches_ns"))
        found.append(Finalist(candidate, samples, errors, launches, item.get("energy_j")))
    local = next((f for f in found if f.candidate.driver_local), None)
    return Final(record["calls"], tuple(found), found[0], local, record["facts"])


# ---------------------------------------------------------------- what they decide


def latest_study(records: Sequence[Record]) -> tuple[Record, list[Record]]:
    """The last study of a journal that reached its finals, and its final records. Raises KilnError for none."""
    found: tuple[Record, list[Record]] | None = None
    for record in records:
        if record["kind"] == "study":
            study, finals = record, []
        elif record["kind"] == "final":
            finals.append(record)
            found = (study, finals)
    if found is None:
        raise KilnError("this journal has no finals yet; run python -m tuner with the same --out to finish the study")
    return found


def decisions(finals: Sequence[Record], sheet: DeviceSheet) -> list[Decision]:
    """Who won, per workload in the journal's order. A workload is left out where every finalist launches something
    longer than the request allows. Raises KilnError where that leaves nothing."""
    groups: dict[GroupKey, list[tuple[int, Workload, Final]]] = {}
    for place, record in enumerate(finals):
        final = final_of(record)
        if not any(map(final.fits, final.finalists)):
            continue
        workload = final.default.candidate.workload
        key = group_key(final.default.candidate.family, workload)
        groups.setdefault(key, []).append((place, workload, final))
    if finals and not groups:
        raise KilnError("no candidate of any workload keeps its launches within --max-dispatch-ms; allow longer ones")
    decided: dict[int, Decision] = {}
    for group in groups.values():
        try:
            _, winners = decide([final for _, _, final in group], sheet)
        except ValueError as error:
            raise KilnError(str(error)) from error
        for (place, workload, final), winner in zip(group, winners, strict=True):
            decided[place] = Decision(workload, final, winner)
    return [decided[place] for place in sorted(decided)]


def left_out(finals: Sequence[Record]) -> list[Workload]:
    """Workloads in which every finalist launches something longer than the request allows."""
    every = map(final_of, finals)
    return [one.default.candidate.workload for one in every if not any(map(one.fits, one.finalists))]


def notes(records: Sequence[Record], text: str) -> list[Record]:
    """Notes of one kind since the last study began."""
    since = max(place for place, record in enumerate(records) if record["kind"] == "study")
    return [record for record in records[since:] if record["kind"] == "note" and record["text"] == text]
