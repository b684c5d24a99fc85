"""Documents and journals become kernels with their times: measured ones and predicted ones apart.

A journal has the paired samples behind every ratio, so its figures have intervals; a document alone keeps medians and
the winner's own interval, and what it does not keep is None, never made up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import kernels
from harness.journal import trial_key
from harness.records import Record
from harness.timing import stats
from kernels.entry import source_sha256
from kernels.spec import Cost, Family, Workload
from kernels.tuned import ConfigError, Entry, TunedConfig
from tuner import summary
from tuner.decisions import Decision
from tuner.export import entry_id
from tuner.report.models import Parts
from tuner.report.nouns import Kernel, Measured, Predicted
from tuner.veterans import tuned_for


def kernels_of(
    document: TunedConfig, decided: Sequence[Decision], parts: Parts
) -> tuple[list[Measured], list[Predicted], list[str]]:
    """Every entry that an engine finds by size, and notes on what is not shown. `decided` is what its journal says.

    A decision counts for an entry only where both tell the same time; else the document is of another run.
    """
    by_id = {(d.workload.family, entry_id(d.workload)): d for d in decided}
    measured: list[Measured] = []
    predicted: list[Predicted] = []
    notes: list[str] = []
    others = 0
    for name, section in document.kernels.items():
        family = kernels.families().get(name)
        if family is None:
            notes.append(f"{name} is left out: this Kiln has no such kernel")
            continue
        for entry in section.entries:
            if entry.bucket is None:
                continue
            try:
                known = _known(family, entry, document, parts)
            except ConfigError as error:
                notes.append(f"{name} is shown without one entry: {error}")
                continue
            if entry.stats is None and entry.prediction is not None:
                model = entry.prediction.model_version
                predicted.append(Predicted(**known, predicted_ns=entry.prediction.ns, model_version=model))
            elif entry.stats is not None:
                decision = by_id.get((name, entry.id))
                if decision and not _same(decision, entry):
                    decision, others = None, others + 1
                measured.append(_measured(known, entry, document, decision))
    if others:
        notes.append(f"{others} entries have other times than the journal beside the document: it is of another run")
    return measured, predicted, notes


def _known(family: Family, entry: Entry, document: TunedConfig, parts: Parts) -> dict[str, Any]:
    """What a measured and a predicted kernel have in common."""
    workload = job_of(family, entry)
    cost = family.cost(workload)
    variants = {variant.name: variant for variant in family.variants}
    ours = variants.get(entry.variant)
    told = entry.stats or entry.prediction
    return {
        "workload": workload,
        "parts": parts.get(workload.key, {}),
        "variant": entry.variant,
        "params": dict(entry.params),
        "flops": cost.flops,
        "bytes": cost.bytes,
        "bandwidth_bytes": read_alone(cost, document.device.sheet.cache_bytes),
        "limited_by": told.limited_by if told else None,
        "verification": entry.verification,
        "stale": ours is None or source_sha256(ours) != entry.source_sha256,
    }


def job_of(family: Family, entry: Entry) -> Workload:
    """The job that an entry was tuned for. Raises ConfigError where it does not tell.

    Its id has the sizes (`tuner.export.entry_id`). The last shape that it was verified at is the job's own only where
    the device itself ran it: what is predicted was proven at sizes that a CPU does in reasonable time.
    """
    options = {name: value for name, value in entry.match.options.items() if name not in family.fixed}
    found = re.search("-".join(rf"{dim.lower()}(\d+)" for dim in family.dims), entry.id)
    if found:
        dims = {dim: int(size) for dim, size in zip(family.dims, found.groups(), strict=True)}
        plain = Workload(family.name, dims, entry.match.dtypes, entry.match.weights)
        start, rest = entry_id(plain), entry.id.removeprefix(entry_id(plain))
        # Options stand in the id in the order that they were given in, which the document does not keep.
        told = [f"-{name}" if value is True else f"-{name}-{value}" for name, value in options.items()]
        if entry.id.startswith(start) and len(rest) == sum(map(len, told)) and all(part in rest for part in told):
            return replace(plain, options=options)
    if entry.stats is None:
        raise ConfigError(f'"{entry.id}" does not say which sizes its prediction is for; tune again')
    return tuned_for(family, entry)


def read_alone(cost: Cost, cache_bytes: int) -> float | None:
    """Bytes that `harness.probe.limit` divides by the read rate alone; None where it counts writes as well."""
    if cost.bytes - cost.cold <= cache_bytes:
        return cost.cold
    return None if cost.written else cost.bytes


def _same(decision: Decision, entry: Entry) -> bool:
    if entry.stats is None:
        return False
    ns = decision.final.median_ns(decision.winner.finalist)
    return abs(ns - entry.stats.median_ns) <= 1e-6 * ns


def _measured(known: Mapping[str, Any], entry: Entry, document: TunedConfig, decision: Decision | None) -> Measured:
    told = entry.stats
    assert told is not None
    # A winner that is the default has the default's own samples, so its time to the last digit.
    is_default = told.default_ns == told.median_ns
    ratio = told.default_ns / told.median_ns if told.default_ns else None
    more: dict[str, Any] = {"rounds": None, "default_interval_ns": None, "ratio_interval": None}
    percent_interval = None
    if decision is not None:
        final, winner = decision.final, decision.winner
        is_default = winner.finalist is final.default
        ratio = winner.speedup.ratio
        (row,) = summary.rows([decision])
        percent_interval = row["percent_interval"] and tuple(row["percent_interval"])
        more = {
            "rounds": len(winner.finalist.samples_ns),
            "default_interval_ns": stats(final.default.samples_ns).interval_ns,
            "ratio_interval": None if is_default else winner.speedup.interval,
        }
    return Measured(
        **known,
        ns=told.median_ns,
        interval_ns=told.interval_ns,
        default_ns=told.default_ns,
        is_default=is_default,
        ratio=ratio,
        percent=told.percent_of_limit,
        percent_interval=percent_interval,
        wall_gap=document.protocol.get("wall_gap", {}).get(entry.id),
        **more,
    )


def unknown_sources(decided: Sequence[Decision], study: Record, records: Sequence[Record]) -> int:
    """How many winners this Kiln would build from other sources than the journal's trials were."""
    keys = {record["key"] for record in records if record["kind"] == "trial"}
    winners = [d.winner.finalist.candidate for d in decided if not d.winner.finalist.candidate.driver_local]
    return sum(trial_key(candidate, study["device"]) not in keys for candidate in winners)


def order(one: Kernel) -> tuple[Any, ...]:
    """Sorts kernels as a reader looks for them: by family, format and rows, what moves most first."""
    return one.workload.family, one.stored, one.workload.dims.get("M", 0), -one.bytes, one.workload.key
