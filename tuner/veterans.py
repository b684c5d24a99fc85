"""The entries of a document as candidates to measure again, with what its journal remembers of their rivals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

import kernels
from harness.candidate import Candidate
from harness.records import Record, from_json
from kernels.entry import source_sha256
from kernels.space import Space
from kernels.spec import Config, DeviceSheet, Family, Workload
from kernels.tuned import ConfigError, Entry, TunedConfig
from tuner.board import Trial
from tuner.decisions import workload_of


@dataclass(frozen=True)
class Veteran:
    """One entry that won its finals once, and who runs against it now."""

    entry: Entry
    workload: Workload
    calls: int  # per pass, for weighing layouts; 1 where no journal tells
    default: Candidate
    winner: Candidate
    rivals: tuple[Candidate, ...]  # fastest first, as they were
    why_not: str  # the winner cannot run at all, "" = it can
    anchors_ns: Mapping[str, Sequence[float]]  # as they ran beside it then; empty where no journal tells

    @property
    def candidates(self) -> list[Candidate]:
        """Who is measured: the default first, its driver-local form, the winner, its rivals."""
        local = [replace(self.default, driver_local=True)] if self.default.variant.any_local else []
        winner = [] if self.why_not else [self.winner]
        return list(dict.fromkeys([self.default, *local, *winner, *self.rivals]))


def veterans(document: TunedConfig, past: Sequence[Record], sheet: DeviceSheet, top: int) -> list[Veteran]:
    """Every entry that is found by size, in the document's order. `past` are the journal's records, if there are any.

    `top` rivals of each are taken from the document's alternates, then from the journal's finals, then from its trials.
    Raises ConfigError for an entry that does not say at which sizes it was tuned, or of an unknown kernel.
    """
    found = []
    for name, section in document.kernels.items():
        if name not in kernels.families():
            raise ConfigError(f'this Kiln has no kernel "{name}"; retune with the Kiln that wrote the document')
        family = kernels.families()[name]
        entries = {entry.id: entry for entry in section.entries}
        for entry in section.entries:
            if entry.bucket is not None:
                alternates = [entries[other] for other in entry.alternates]
                found.append(_veteran(family, entry, alternates, past, sheet, top))
    return found


def _veteran(
    family: Family, entry: Entry, alternates: Sequence[Entry], past: Sequence[Record], sheet: DeviceSheet, top: int
) -> Veteran:
    workload = tuned_for(family, entry)
    calls, anchors_ns = 1, {}
    rivals = [_candidate(family, workload, other) for other in alternates]
    for record in reversed(past):
        if record["kind"] == "final" and workload_of(record["workload"]).key == workload.key:
            calls, workload = record["calls"], workload_of(record["workload"])
            anchors_ns = record["facts"].get("anchors_ns", {})
            ranked = sorted(record["finalists"], key=lambda item: float(np.median(item["samples_ns"])))
            rivals += [_known(family, workload, item["config"], item["driver_local"]) for item in ranked]
            break
    timed = [r for r in past if r["kind"] == "trial" and r["workload"] == workload.key and "stats" in r["measurement"]]
    for record in sorted(timed, key=lambda r: Trial(r["config"], from_json(r["measurement"])).cost_ns):
        rivals.append(_known(family, workload, record["config"], False))
    space = Space(family, workload, sheet)
    default = _known(family, workload, family.default(workload, sheet), False)
    assert default is not None
    winner = _candidate(family, workload, entry)
    why_not = _why_not(space, winner, entry)
    legal = [replace(rival, workload=workload) for rival in rivals if rival and not space.illegal(rival.config)]
    others = [one for one in dict.fromkeys(legal) if one not in (winner, default)]
    return Veteran(entry, workload, calls, default, winner or default, tuple(others[:top]), why_not, anchors_ns)


def _why_not(space: Space, winner: Candidate | None, entry: Entry) -> str:
    if winner is None:
        return f"this Kiln has no variant {entry.variant}"
    if why := space.illegal(winner.config):
        return f"its winner is not legal here any more: not so that {why}"
    if source_sha256(winner.variant) != entry.source_sha256:
        return "this Kiln has another source of its kernel"
    return ""


def tuned_for(family: Family, entry: Entry) -> Workload:
    """The job that an entry was tuned for: the last shape that it was verified at is its own. Raises ConfigError."""
    shapes = entry.verification.shapes if entry.verification else ()
    words = dict(word.partition("=")[::2] for word in shapes[-1].split()) if shapes else {}
    if set(words) != set(family.dims) or not all(size.isdecimal() for size in words.values()):
        raise ConfigError(f'entry "{entry.id}" does not say at which sizes it was verified; tune again')
    dims = {dim: int(words[dim]) for dim in family.dims}
    options = {name: value for name, value in entry.match.options.items() if name not in family.fixed}
    return Workload(family.name, dims, entry.match.dtypes, entry.match.weights, options)


def _candidate(family: Family, workload: Workload, entry: Entry) -> Candidate | None:
    """An entry's candidate; where all its work-groups are the driver's choice and the variant's are not, it is so."""
    local = all(launch.local is None for launch in entry.launches)
    plain = _known(family, workload, entry.config, False)
    if plain is None or not (local and plain.variant.any_local):
        return plain
    return replace(plain, driver_local=any(launch.local is not None for launch in plain.schedule.launches))


def _known(family: Family, workload: Workload, config: Config, driver_local: bool) -> Candidate | None:
    """A candidate; None for a variant that is no more."""
    variants = {variant.name: variant for variant in family.variants}
    variant = variants.get(config["variant"])
    if variant is None or set(config) - {"variant"} != set(variant.params) or (driver_local and not variant.any_local):
        return None
    return Candidate(family, workload, config, driver_local)
