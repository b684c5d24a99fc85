"""The tuned config as a function of a journal: no device is needed to write it, and the same journal gives the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from typing import Any

import kernels
from harness.devices import known_sheet, sheet_from
from harness.errors import KilnError
from harness.timing import stats
from kernels.claims import deny_rules
from kernels.entry import make_entry
from kernels.identity import identify
from kernels.select import BORDERS, row_regime
from kernels.spec import DeviceSheet, Errors, Family, Workload
from kernels.tuned import (
    Bucket,
    DeviceFacts,
    Entry,
    EntryStats,
    Interval,
    KernelSection,
    Match,
    Programs,
    ProvenOn,
    TunedConfig,
    Verification,
)
from tuner import edges, matmul, programs
from tuner.choose import boxes
from tuner.decisions import Decision, Record, latest_study, left_out, notes
from tuner.finals import Finalist

ALTERNATES = 2  # entries kept beside a winner, for devices that reject it


def tuned_config(records: Sequence[Record], version: str) -> TunedConfig:
    """The document of the journal's last finished study. Raises KilnError where there is none."""
    study, finals = latest_study(records)
    sheet = sheet_from(study["device"])
    device = identify(study["device"], sheet)
    known = known_sheet(study["device"])
    decided = programs.decided(records, sheet)
    most, most_ms = (study["request"].get(name) for name in ("max_programs", "max_dispatch_ms"))
    measured = edges.edges(notes(records, edges.NOTE), [decision.workload for decision in decided])
    sections = {}
    for name, family in kernels.families().items():
        mine = [decision for decision in decided if decision.workload.family == name]
        if mine:
            entries = _entries(mine, measured, sheet, device, left_out(finals))
            limited = _programs(mine, most) if most is not None else None
            deny = deny_rules(known, name) if known else ()
            sections[name] = KernelSection(family.abi, tuple(entries), entries[0].id, deny, limited)
    routes = matmul.routes(notes(records, matmul.NOTE), tuple(sections))
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
            **({} if most_ms is None else {"max_dispatch_ms": most_ms}),
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


def _programs(decided: Sequence[Decision], most: int) -> Programs:
    """How many programs serve a family, and what that costs."""
    regrets = [decision.regret or 0.0 for decision in decided]
    count = len({decision.winner.finalist.candidate.program for decision in decided})
    return Programs(most, count, max(regrets), sum(regrets) / len(regrets))


def _wall_gaps(records: Sequence[Record], decided: Sequence[Decision]) -> dict[str, float]:
    """Per entry, by what fraction its share of a batch without profiling exceeded its event time."""
    ids = {decision.workload.key: entry_id(decision.workload) for decision in decided}
    gaps = [note for note in notes(records, "wall") if note["workload"] in ids]
    return {ids[note["workload"]]: round(note["gap"], 4) for note in gaps}


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
    decided: Sequence[Decision],
    measured: edges.Edges,
    sheet: DeviceSheet,
    device: DeviceFacts,
    unserved: Sequence[Workload],
) -> list[Entry]:
    by_match: dict[str, list[Decision]] = {}
    for decision in decided:
        by_match.setdefault(str(Match.of(decision.workload, kernels.families()[decision.workload.family])), []).append(
            decision
        )
    entries, spare = [], []
    for group in by_match.values():
        served = buckets([d.workload for d in group], measured, unserved)
        for decision, bucket in zip(group, served, strict=True):
            name = entry_id(decision.workload)
            others = [f for f in decision.winner.ranking if f is not decision.winner.finalist][:ALTERNATES]
            more = [_entry(decision, f, f"{name}-alt{i}", None, sheet, device) for i, f in enumerate(others, 1)]
            best = _entry(decision, decision.winner.finalist, name, bucket, sheet, device)
            entries.append(replace(best, alternates=tuple(entry.id for entry in more)))
            spare += more
    return entries + spare


def buckets(group: Sequence[Workload], measured: edges.Edges, unserved: Sequence[Workload] = ()) -> list[Bucket]:
    """Which sizes each of these is to serve; they differ in nothing but sizes. `measured` are edges by two keys."""
    family = kernels.families()[group[0].family]
    free = [{dim: n for dim, n in workload.dims.items() if dim not in family.fixed} for workload in group]
    place = {workload.key: index for index, workload in enumerate(group)}
    inside = {(place[a], place[b]): edge for (a, b), edge in measured.items() if {a, b} <= place.keys()}
    return list(boxes(free, _bounds(family, group, unserved), BORDERS, inside))


def _bounds(family: Family, tuned_at: Sequence[Workload], unserved: Sequence[Workload]) -> dict[str, Interval]:
    """What entries tuned at these sizes may serve: the family's range, rows only as far as their regime reaches.

    A configuration that won with one row is right with sixteen, but up to 1.6 times slower than the untuned default
    (16384×2048, int4/g128, PoCL on Zen 5). They end before the first number of rows that is `unserved`, since what
    serves fewer launches for too long there as well.
    """
    bounds = dict(family.bounds)
    if "M" in family.dims:
        rows = [workload.dims["M"] for workload in tuned_at]
        low, (_, high) = row_regime(min(rows))[0], row_regime(max(rows))
        most = bounds.get("M", (1, None))[1]
        same = [one for one in unserved if Match.of(one, family) == Match.of(tuned_at[0], family)]
        beyond = min((one.dims["M"] for one in same if one.dims["M"] > max(rows)), default=None)
        ends = [end for end in (high, most, None if beyond is None else beyond - 1) if end is not None]
        bounds["M"] = (low, min(ends, default=None))
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
    sheet: DeviceSheet,
    device: DeviceFacts,
) -> Entry:
    candidate, final = finalist.candidate, decision.final
    found = stats(final.comparable_ns(finalist))
    limit = final.facts["limit"]
    entry = make_entry(
        candidate.family,
        candidate.workload,
        candidate.config,
        sheet,
        id=name,
        bucket=bucket,
        verification=_verification(finalist, sheet, device),
        stats=EntryStats(
            median_ns=found.median_ns,
            interval_ns=found.interval_ns,
            default_ns=final.default.median_ns,
            driver_local_ns=final.driver_local.median_ns if final.driver_local else None,
            percent_of_limit=round(100 * limit["ns"] / found.median_ns, 2),
            limited_by=limit["limited_by"],
            regret=decision.regret if bucket is not None else None,
        ),
    )
    if not candidate.driver_local:
        return entry
    return replace(entry, launches=candidate.schedule.launches, needs=replace(entry.needs, work_group=1))


def _verification(finalist: Finalist, sheet: DeviceSheet, device: DeviceFacts) -> Verification:
    """What the finalist was checked with, on the device itself."""
    errors, candidate = finalist.errors, finalist.candidate
    if errors is None:
        raise KilnError(f"the journal does not say how far {candidate} was from the reference; tune again")
    native = candidate.workload.dtypes.compute == "fp16" and sheet.has("cl_khr_fp16")
    subgroups = any("subgroup" in extension for extension in candidate.variant.needs)
    width = max(sheet.subgroup_sizes) if subgroups and sheet.subgroup_sizes else None
    proven = ProvenOn(f"{device.vendor} {device.model}", "native" if native else "emulated", width)
    return verification(errors, proven)


def verification(errors: Errors, proven: ProvenOn) -> Verification:
    """Errors as an entry reports them: by the metric that came nearer to its limit."""
    found = {"nmse": errors.nmse, "max_scaled": errors.max_scaled}
    limits = asdict(errors.limits)
    metric = max(found, key=lambda name: found[name] / limits[name])
    return Verification(metric, found[metric], limits[metric], errors.shapes, proven)
