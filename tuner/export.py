"""The tuned config as a function of a journal: no device is needed to write it, and the same journal gives the same.

A study's `final` records hold the paired samples of every finalist; the decision is taken from them here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import kernels
from harness.candidate import Candidate
from harness.devices import sheet_from
from harness.errors import KilnError
from harness.records import errors_of
from harness.timing import stats
from kernels.entry import make_entry
from kernels.identity import identify
from kernels.select import BORDERS, row_regime
from kernels.spec import DeviceSheet, DTypes, Errors, Family, Workload
from kernels.tuned import (
    Bucket,
    DeviceFacts,
    Entry,
    EntryStats,
    Interval,
    KernelSection,
    Match,
    ProvenOn,
    TunedConfig,
    Verification,
)
from tuner import crossover
from tuner.choose import GroupKey, boxes, group_key
from tuner.finals import Final, Finalist, Winner, decide

Record = Mapping[str, Any]
ALTERNATES = 2  # entries kept beside a winner, for devices that reject it


@dataclass(frozen=True)
class Decision:
    """One workload's finals and what won them."""

    workload: Workload
    final: Final
    winner: Winner


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


def final_record(
    calls: float, finalists: Sequence[Finalist], errors: Mapping[Candidate, Errors], facts: Mapping[str, Any]
) -> dict[str, Any]:
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
                "errors": asdict(errors[f.candidate]),
            }
            for f in finalists
        ],
        "facts": dict(facts),
    }


def _final_of(record: Record) -> tuple[Final, dict[Candidate, Errors]]:
    workload = workload_of(record["workload"])
    family = kernels.families()[workload.family]
    found, errors = [], {}
    for item in record["finalists"]:
        candidate = Candidate(family, workload, item["config"], item["driver_local"])
        found.append(Finalist(candidate, tuple(map(float, item["samples_ns"]))))
        errors[candidate] = errors_of(item["errors"])
    local = next((f for f in found if f.candidate.driver_local), None)
    return Final(record["calls"], tuple(found), found[0], local, record["facts"]), errors


# ---------------------------------------------------------------- the document


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


def decisions(finals: Sequence[Record], sheet: DeviceSheet) -> tuple[list[Decision], dict[Candidate, Errors]]:
    """Who won, per workload in the journal's order, and the errors that every finalist was checked with."""
    errors: dict[Candidate, Errors] = {}
    groups: dict[GroupKey, list[tuple[int, Workload, Final]]] = {}
    for place, record in enumerate(finals):
        final, found = _final_of(record)
        errors |= found
        workload = final.default.candidate.workload
        key = group_key(final.default.candidate.family, workload)
        groups.setdefault(key, []).append((place, workload, final))
    decided: dict[int, Decision] = {}
    for group in groups.values():
        try:
            _, winners = decide([final for _, _, final in group], sheet)
        except ValueError as error:
            raise KilnError(str(error)) from error
        for (place, workload, final), winner in zip(group, winners, strict=True):
            decided[place] = Decision(workload, final, winner)
    return [decided[place] for place in sorted(decided)], errors


def tuned_config(records: Sequence[Record], version: str) -> TunedConfig:
    """The document of the journal's last finished study. Raises KilnError where there is none."""
    study, finals = latest_study(records)
    sheet = sheet_from(study["device"])
    device = identify(study["device"], sheet)
    decided, errors = decisions(finals, sheet)
    sections = {}
    for name, family in kernels.families().items():
        mine = [decision for decision in decided if decision.workload.family == name]
        if mine:
            entries = _entries(mine, errors, sheet, device)
            sections[name] = KernelSection(family.abi, tuple(entries), default=entries[0].id)
    routes = crossover.routes(_notes(records, crossover.NOTE), tuple(sections))
    return TunedConfig(
        device=device,
        protocol={
            "id": study["protocol"],
            "clock": "device time from event profiling, first start to last end",
            "statistic": "median over interleaved rounds, bootstrap 95 % interval",
            "weights": "cold: copies rotate through more than the last-level cache",
            "conditions": _conditions([record["facts"]["conditions"] for record in finals]),
            "probe": study["rates"],
            "wall_gap": _wall_gaps(records, decided),
        },
        provenance={
            "generator": f"kiln-workbench {version}",
            "request": study["request"],
            "started": study["started"],
            "verdicts": dict(sorted(_verdicts(records, {d.workload.key for d in decided}).items())),
        },
        ops={"matmul": routes} if routes else {},
        kernels=sections,
    )


def _wall_gaps(records: Sequence[Record], decided: Sequence[Decision]) -> dict[str, float]:
    """Per entry, by what fraction its share of a batch without profiling exceeded its event time."""
    ids = {decision.workload.key: entry_id(decision.workload) for decision in decided}
    notes = [note for note in _notes(records, "wall") if note["workload"] in ids]
    return {ids[note["workload"]]: round(note["gap"], 4) for note in notes}


def _notes(records: Sequence[Record], text: str) -> list[Record]:
    """Notes of one kind since the last study began."""
    since = max(place for place, record in enumerate(records) if record["kind"] == "study")
    return [record for record in records[since:] if record["kind"] == "note" and record["text"] == text]


def _conditions(all_of: Sequence[Record]) -> dict[str, Any]:
    """Conditions of all finals together: what was alike as it is, numbers that differed as [least, most]."""
    found: dict[str, Any] = {}
    for name in all_of[0]:
        if name == "generation":  # which runner it was depends on how often this study was interrupted
            continue
        values = [conditions.get(name) for conditions in all_of]
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        if all(value == values[0] for value in values):
            found[name] = values[0]
        elif len(numbers) == len(values):
            found[name] = [min(numbers), max(numbers)]
        else:
            found[name] = list(dict.fromkeys(map(str, values)))
    return found


def _verdicts(records: Sequence[Record], workloads: Collection[str]) -> Counter[str]:
    """How the trials of these workloads ended, those of earlier runs of the study included."""
    mine = (r for r in records if r["kind"] == "trial" and r["workload"] in workloads)
    return Counter(record["measurement"]["verdict"] for record in mine)


def _entries(
    decided: Sequence[Decision], errors: Mapping[Candidate, Errors], sheet: DeviceSheet, device: DeviceFacts
) -> list[Entry]:
    by_match: dict[str, list[Decision]] = {}
    for decision in decided:
        by_match.setdefault(str(Match.of(decision.workload, kernels.families()[decision.workload.family])), []).append(
            decision
        )
    entries, spare = [], []
    for group in by_match.values():
        family = kernels.families()[group[0].workload.family]
        free = [{dim: n for dim, n in d.workload.dims.items() if dim not in family.fixed} for d in group]
        cuts = boxes(free, _bounds(family, [d.workload for d in group]), BORDERS)
        for decision, bucket in zip(group, cuts, strict=True):
            name = entry_id(decision.workload)
            others = [f for f in decision.winner.ranking if f is not decision.winner.finalist][:ALTERNATES]
            more = [_entry(decision, f, f"{name}-alt{i}", None, errors, sheet, device) for i, f in enumerate(others, 1)]
            best = _entry(decision, decision.winner.finalist, name, bucket, errors, sheet, device)
            entries.append(replace(best, alternates=tuple(entry.id for entry in more)))
            spare += more
    return entries + spare


def _bounds(family: Family, tuned_at: Sequence[Workload]) -> dict[str, Interval]:
    """What entries tuned at these sizes may serve: the family's range, rows only as far as their regime reaches.

    A configuration that won with one row is right with sixteen, but up to 1.6 times slower than the untuned default
    (16384×2048, int4/g128, PoCL on Zen 5).
    """
    bounds = dict(family.bounds)
    if "M" in family.dims:
        rows = [workload.dims["M"] for workload in tuned_at]
        low, (_, high) = row_regime(min(rows))[0], row_regime(max(rows))
        most = bounds.get("M", (1, None))[1]
        bounds["M"] = (low, high if most is None else most if high is None else min(high, most))
    return bounds


def entry_id(workload: Workload) -> str:
    """Unique within a kernel: what is stored, the arithmetic, sizes and options."""
    sizes = "-".join(f"{dim.lower()}{size}" for dim, size in workload.dims.items())
    options = "".join(f"-{name}" if value is True else f"-{name}-{value}" for name, value in workload.options.items())
    stored = workload.weights or workload.dtypes.cache or "plain"
    return f"{stored.replace('/', '-')}-{workload.dtypes.compute}-{sizes}{options}"


def _entry(
    decision: Decision,
    finalist: Finalist,
    name: str,
    bucket: Bucket | None,
    errors: Mapping[Candidate, Errors],
    sheet: DeviceSheet,
    device: DeviceFacts,
) -> Entry:
    candidate, final = finalist.candidate, decision.final
    found = stats(finalist.samples_ns)
    limit = final.facts["limit"]
    entry = make_entry(
        candidate.family,
        candidate.workload,
        candidate.config,
        sheet,
        id=name,
        bucket=bucket,
        verification=_verification(errors[candidate], candidate, sheet, device),
        stats=EntryStats(
            median_ns=found.median_ns,
            interval_ns=found.interval_ns,
            default_ns=final.default.median_ns,
            driver_local_ns=final.driver_local.median_ns if final.driver_local else None,
            percent_of_limit=round(100 * limit["ns"] / found.median_ns, 2),
            limited_by=limit["limited_by"],
        ),
    )
    if not candidate.driver_local:
        return entry
    return replace(entry, launches=candidate.schedule.launches, needs=replace(entry.needs, work_group=1))


def _verification(errors: Errors, candidate: Candidate, sheet: DeviceSheet, device: DeviceFacts) -> Verification:
    """Reported by the metric that came nearer to its limit."""
    found = {"nmse": errors.nmse, "max_scaled": errors.max_scaled}
    limits = asdict(errors.limits)
    metric = max(found, key=lambda name: found[name] / limits[name])
    native = candidate.workload.dtypes.compute == "fp16" and sheet.has("cl_khr_fp16")
    subgroups = any("subgroup" in extension for extension in candidate.variant.needs)
    width = max(sheet.subgroup_sizes) if subgroups and sheet.subgroup_sizes else None
    proven = ProvenOn(f"{device.vendor} {device.model}", "native" if native else "emulated", width)
    return Verification(metric, found[metric], limits[metric], errors.shapes, proven)
