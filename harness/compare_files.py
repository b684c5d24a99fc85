"""Two result files compared by what is stored in them: the medians, their intervals, a yardstick of the same rounds.

Two files hold no paired samples: a machine that was hotter, busier or otherwise clocked in one of them shifts every
time in it, and no interval inside a file knows of that. So between files a row counts as changed only if three things
agree: its intervals are disjoint; they still are with each time divided by its own file's yardstick (the device's limit
or an anchor, from the same rounds); and the change is beyond what the rows do whose kernel is the same in both files,
where there are such. What is left open, `compare --commits` settles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import UsageError
from harness.journal import IDENTITY, same_device
from harness.result_files import ResultFile, Row
from harness.verdicts import Change

LEAST_SAME = 5  # rows of one kernel in both files, from which their scatter tells the noise between the files


@dataclass(frozen=True)
class FileRow:
    """One workload of both files."""

    key: str
    label: str
    change: Change
    base: Row
    other: Row
    same: bool | None  # whether the kernel is the same in both; None where a file does not tell
    interval: tuple[float, float]  # of other/base, from the two files' intervals: the widest that they allow
    why: str  # for people: what kept a visible difference from counting; "" where nothing did


@dataclass(frozen=True)
class FileReport:
    """Two files compared."""

    base: ResultFile
    other: ResultFile
    rows: tuple[FileRow, ...]
    gone: tuple[str, ...]
    new: tuple[str, ...]
    scatter: tuple[float, float] | None  # of rows whose kernel is the same: the range of other/base. None: too few
    broken: tuple[str, ...] = ()  # had a time in the base and a failure in the other: "workload: verdict"

    @property
    def worse(self) -> tuple[FileRow, ...]:
        """What a regression test fails for."""
        return tuple(row for row in self.rows if row.change is Change.REGRESSED)


def compare_files(base: ResultFile, other: ResultFile) -> FileReport:
    """Compare what both files have. Raises UsageError where they cannot be compared: of two kinds or devices."""
    if base.kind != other.kind:
        raise UsageError(f"{base.path} is a {base.kind} and {other.path} a {other.kind}: two of one kind are compared")
    for name in base.devices:
        if name in other.devices:
            _of_one_device(base, other, base.devices[name], other.devices[name])
    shared = [key for key in base.rows if key in other.rows]
    broken = tuple(f"{key}: {other.failed[key]}" for key in base.rows if key in other.failed)
    if not shared and not broken:
        raise UsageError(f"{base.path} and {other.path} have no measured workload in common")
    scatter = _scatter([(base.rows[key], other.rows[key]) for key in shared])
    return FileReport(
        base,
        other,
        tuple(_row(base.rows[key], other.rows[key], scatter) for key in shared),
        tuple(key for key in base.rows if key not in other.rows and key not in other.failed),
        tuple(key for key in other.rows if key not in base.rows),
        scatter,
        broken,
    )


def _of_one_device(base: ResultFile, other: ResultFile, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    if not same_device(before, after):
        differing = [name for name in (*IDENTITY, "hints") if before.get(name) != after.get(name)]
        told = "; ".join(f"{name}: {before.get(name)!r} and {after.get(name)!r}" for name in differing)
        raise UsageError(f"{base.path} and {other.path} are of different devices or drivers ({told}); nothing follows")


def _same(base: Row, other: Row) -> bool | None:
    return None if base.program is None or other.program is None else base.program == other.program


def _scatter(pairs: Sequence[tuple[Row, Row]]) -> tuple[float, float] | None:
    """The range of other/base over rows of one kernel, which should be 1: what happens between two files anyway."""
    ratios = [other.median_ns / base.median_ns for base, other in pairs if _same(base, other)]
    return (min(ratios), max(ratios)) if len(ratios) >= LEAST_SAME else None


def _row(base: Row, other: Row, scatter: tuple[float, float] | None) -> FileRow:
    ratio = other.median_ns / base.median_ns
    interval = other.interval_ns[0] / base.interval_ns[1], other.interval_ns[1] / base.interval_ns[0]
    same = _same(base, other)
    change, why = Change.NOISE, ""
    if interval[0] > 1 or interval[1] < 1:
        pace = other.yardstick_ns / base.yardstick_ns if base.yardstick_ns and other.yardstick_ns else None
        if same:
            why = "the same kernel: the device or its surroundings changed"
        elif pace and not _beyond((interval[0] / pace, interval[1] / pace), ratio):
            why = f"the device's own limit moved alike ({100 * (pace - 1):+.1f} %)"
        elif scatter and scatter[0] <= ratio <= scatter[1]:
            why = "no more than kernels that are the same in both files"
        else:
            change = Change.REGRESSED if ratio > 1 else Change.IMPROVED
    return FileRow(base.key, base.label, change, base, other, same, interval, why)


def _beyond(interval: tuple[float, float], ratio: float) -> bool:
    """Whether an interval leaves out 1 on the side of the ratio."""
    return interval[0] > 1 if ratio > 1 else interval[1] < 1
