"""Picks the entry for a workload on a device, and says how sure that choice is.

The levels, best first: the same GPU and driver; the same GPU with another driver (stale); the nearest device of the
same family; the vendor's default; the built-in safe default. Within a document: the entry whose bucket holds the sizes,
the nearest one of the same regime, the document's default; each with its alternates. Every rejection leaves a sentence,
and nothing ever matches by accident: what is not found is the built-in default, and is called so.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kernels.entry import built_in_entry
from kernels.fit import broken_rule, reason_against
from kernels.spec import Abi, DeviceSheet, Dims, Family, Workload
from kernels.tuned import Bucket, DeviceFacts, Entry, Evidence, Interval, KernelSection, Match, TunedConfig
from kernels.tuned.check import interval_distance

MAX_DISTANCE = 3.0  # a bucket further off than a factor of eight in sizes, summed over dims, says little
MAX_UNLIKE = 4.0  # devices of one family whose capabilities differ by more (in powers of two) are only of one vendor
# Row counts between which no configuration is borrowed: decoding, a few rows, prefill. The fastest variants differ.
_REGIMES: tuple[Interval, ...] = ((1, 1), (2, 16), (17, None))
BORDERS = {"M": tuple(high for _, high in _REGIMES if high is not None)}  # last row count of a regime

Veto = Callable[
    [Entry], str | None
]  # an engine's own reason against an entry, e.g. CL_KERNEL_WORK_GROUP_SIZE after build


class Level(enum.StrEnum):
    """How near the device of a document is to the one at hand."""

    EXACT = "exact"
    STALE = "stale"
    FAMILY = "family"
    VENDOR = "vendor"
    BUILT_IN = "built-in"


WORDS = {
    Level.EXACT: "tuned on this device with this driver",
    Level.STALE: "tuned on this device, but with another driver or edited since: check it again",
    Level.FAMILY: "tuned on a similar device of the same family",
    Level.VENDOR: "the default of another device of this vendor",
    Level.BUILT_IN: "not tuned: the built-in safe default",
}
_PREDICTED = {
    Level.EXACT: "predicted for this device, and measured on none",
    Level.STALE: "predicted for this device, but with another driver or edited since",
    Level.FAMILY: "predicted for a similar device of the same family",
}


def words(level: Level, evidence: Evidence) -> str:
    """A level for people; what is predicted was not tuned on anything."""
    return (_PREDICTED if evidence == "predicted" else WORDS).get(level, WORDS[level])


@dataclass(frozen=True)
class Selection:
    """The entry to run, at which level it was found, and every step that led there."""

    entry: Entry
    level: Level
    how: str  # how its sizes fit
    notes: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The level in words, for a log."""
        return f"{self.entry.id}: {words(self.level, self.entry.evidence)} ({self.how})"


def select(
    configs: Sequence[TunedConfig],
    workload: Workload,
    device: DeviceFacts,
    family: Family,
    *,
    predicted: bool = False,
    veto: Veto | None = None,
) -> Selection:
    """The entry to run. `predicted` admits entries that no one measured; `veto` is asked last about every candidate.

    Raises ValueError where the family has no kernel for this workload at all, tuned or not.
    """
    if set(workload.dims) != set(family.dims):
        raise ValueError(f"{family.name} needs {', '.join(family.dims)}, not {', '.join(workload.dims) or 'nothing'}")
    notes: list[str] = []
    for level, config in _ranked(configs, device, notes):
        section = config.kernels.get(family.name)
        label = f"document of {config.device.model}"
        if section is None:
            notes.append(f"{label}: has no kernel {family.name}")
            continue
        if why := _other_abi(section.abi, family.abi):
            notes.append(f"{label}: {family.name} {why}")
            continue
        if config.edited:
            notes.append(f"{label}: edited since it was written (its checksum differs); tune again to trust it")
        found = False
        for entry, how in _candidates(section, workload, family, level):
            found = True
            reason = reason_against(entry, section, workload, device, family, predicted) or (
                veto(entry) if veto else None
            )
            if reason is None:
                notes.append(f'{label}: entry "{entry.id}" taken, {how}')
                return Selection(entry, level, how, tuple(notes))
            notes.append(f'{label}: entry "{entry.id}" ({how}) not used: {reason}')
        if not found:
            notes.append(
                f"{label}: no entry for {Match.of(workload, family)} at these sizes; it has {_served(section)}"
            )
    entry = built_in_entry(family, workload, device.sheet)
    reason = broken_rule(entry, workload, device.sheet, family)
    if reason is None and veto is not None:
        reason = veto(entry)
    if reason is not None:
        raise ValueError(f"{family.name} cannot run {workload.key} on {device.model}: {reason}")
    notes.append("no document serves this: the built-in safe default")
    return Selection(entry, Level.BUILT_IN, "safe on every device", tuple(notes))


def _other_abi(theirs: Abi, ours: Abi) -> str | None:
    if theirs.version != ours.version:
        return f"speaks ABI {theirs.version}, not {ours.version}"
    if [(arg.name, arg.role) for arg in theirs.args] != [(arg.name, arg.role) for arg in ours.args]:
        return f"lists other arguments for ABI {ours.version}; tune again"
    return None


# ---------------------------------------------------------------- which document


def _ranked(configs: Sequence[TunedConfig], device: DeviceFacts, notes: list[str]) -> list[tuple[Level, TunedConfig]]:
    """Documents of this vendor, nearest first."""
    ranked = []
    for index, config in enumerate(configs):
        unlike = _unlike(config.device.sheet, device.sheet)
        level = _level(config, device, unlike)
        if level is None:
            notes.append(f"document of {config.device.model}: for another vendor ({config.device.vendor})")
        else:
            notes.append(f"document of {config.device.model}: {words(level, config.evidence)}")
            ranked.append((list(Level).index(level), config.edited, unlike, index, level, config))
    return [(item[4], item[5]) for item in sorted(ranked, key=lambda item: item[:4])]


def _level(config: TunedConfig, device: DeviceFacts, unlike: float) -> Level | None:
    theirs = config.device
    if theirs.vendor != device.vendor:
        return None
    if theirs.model == device.model and theirs.family == device.family:
        same = (theirs.driver, theirs.compiler) == (device.driver, device.compiler)
        return Level.EXACT if same and not config.edited else Level.STALE
    return Level.FAMILY if theirs.family == device.family and unlike <= MAX_UNLIKE else Level.VENDOR


def _unlike(one: DeviceSheet, other: DeviceSheet) -> float:
    """How different two devices' capabilities are, in powers of two: compute units, local memory, sizes of groups."""
    pairs = [
        (one.compute_units, other.compute_units),
        (one.local_bytes, other.local_bytes),
        (one.max_work_group, other.max_work_group),
        (max(one.subgroup_sizes, default=1), max(other.subgroup_sizes, default=1)),
    ]
    return sum(abs(math.log2(max(a, 1) / max(b, 1))) for a, b in pairs)


# ---------------------------------------------------------------- which entry


def _candidates(
    section: KernelSection, workload: Workload, family: Family, level: Level
) -> Iterator[tuple[Entry, str]]:
    """Entries for this workload, best first, each once."""
    by_id = {entry.id: entry for entry in section.entries}
    match = Match.of(workload, family)
    order: list[tuple[Entry, str]] = []
    mine = [(e, e.bucket) for e in section.entries if e.match == match and e.bucket is not None]
    if level is not Level.VENDOR:
        order += [(e, f"its bucket {_bucket_text(b)} holds the sizes") for e, b in mine if _distance(b, workload) == 0]
        near = [(_distance(b, workload), e, b) for e, b in mine if _same_regime(b, workload.dims)]
        for distance, entry, bucket in sorted(near, key=lambda item: (item[0], item[1].id))[:1]:
            if distance <= MAX_DISTANCE:
                order.append((entry, f"nearest bucket {_bucket_text(bucket)}, a factor {2**distance:.3g} off"))
    default = by_id[section.default]
    if default.match == match and (default.bucket is None or _same_regime(default.bucket, workload.dims)):
        order.append((default, "the document's default"))
    seen: set[str] = set()
    for entry, how in order:
        others = [(by_id[other], f'alternate of "{entry.id}"') for other in entry.alternates]
        for candidate, why in [(entry, how), *others]:
            if candidate.id not in seen:
                seen.add(candidate.id)
                yield candidate, why


def _distance(bucket: Bucket, workload: Workload) -> float:
    return sum(interval_distance(interval, workload.dims[dim]) for dim, interval in bucket.items())


def row_regime(rows: int) -> Interval:
    """The row counts among which a configuration may be borrowed: 1, 2 to 16, 17 and more."""
    return next(r for r in _REGIMES if r[1] is None or rows <= r[1])


def _same_regime(bucket: Bucket, dims: Dims) -> bool:
    if "M" not in bucket:
        return True
    low, high = bucket["M"]
    first, last = row_regime(dims["M"])
    return (last is None or low <= last) and (high is None or first <= high)


def _bucket_text(bucket: Bucket) -> str:
    return ", ".join(f"{dim} {low}…{'' if high is None else high}" for dim, (low, high) in bucket.items())


def _served(section: KernelSection) -> str:
    return "; ".join(sorted({str(entry.match) for entry in section.entries}))
