"""Reads the result files that `compare` takes into the same rows: what was run, how long it took, how sure that is.

Three kinds: a tuned config, what `python -m harness bench --json` prints, and what `make bench` saves (JSON of
pytest-benchmark). A row's `program` names the kernel that ran, as far as the file tells; its `yardstick_ns` is a time
of the device's own from the same rounds, the limit or an anchor: what the whole device does between two files can so
be told from what a kernel does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import KilnError
from kernels import tuned
from kernels.tuned import FORMAT, Entry, TunedConfig

TUNED, BENCH, PYTEST = "tuned config", "harness bench --json", "pytest-benchmark JSON"


@dataclass(frozen=True)
class Row:
    """One measured workload of a file."""

    key: str  # the same in both files for the same job
    device: str  # which of the file's, where it has several
    label: str
    median_ns: float
    interval_ns: tuple[float, float]
    program: str | None  # equal texts are equal kernels; None: the file does not tell
    yardstick_ns: float | None


@dataclass(frozen=True)
class ResultFile:
    """What a result file says."""

    path: Path
    kind: str
    devices: Mapping[str, Mapping[str, Any]]  # by the rows' `device`: as a runner describes it, as far as is told
    rows: Mapping[str, Row]
    notes: tuple[str, ...]
    failed: Mapping[str, str] = field(default_factory=dict)  # by row key: the verdict of what has no time


def load(path: Path) -> ResultFile:
    """Read any of the three. Raises KilnError saying what is wrong with the file."""
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise KilnError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise KilnError(f"{path} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise KilnError(f"{path} is no result file: it holds no JSON object")
    try:
        if data.get("format") == FORMAT:
            return _tuned(path, tuned.load(path))
        if "benchmarks" in data:
            return _pytest(path, data)
        if "lines" in data and "description" in data:
            return _bench(path, data)
    except tuned.ConfigError as error:
        raise KilnError(str(error)) from error
    except (KeyError, TypeError, ValueError) as error:
        raise KilnError(f"{path} is damaged or not of this version: {error!r}") from error
    raise KilnError(f"{path} is no result file; compare takes a {TUNED}, what {BENCH} prints, or what make bench saves")


def _tuned(path: Path, document: TunedConfig) -> ResultFile:
    facts = document.device
    hints = document.protocol.get("hints") or {}
    device = {
        **facts.raw,
        "vector_floats": facts.sheet.vector_floats,
        "hints": hints if isinstance(hints, dict) else {},
    }
    rows: dict[str, Row] = {}
    unmeasured = 0
    for family, section in document.kernels.items():
        for entry in section.entries:
            if entry.bucket is None:
                continue  # an alternate
            if entry.stats is None:
                unmeasured += 1
            else:
                rows[f"{family} {entry.id}"] = _entry(family, entry)
    notes = (f"{path}: {unmeasured} entries are predictions, which nobody measured; left out",) if unmeasured else ()
    return ResultFile(path, TUNED, {"": device}, rows, notes)


def _entry(family: str, entry: Entry) -> Row:
    stats = entry.stats
    assert stats is not None
    # The limit was probed in the same rounds; its time follows from the share of it that was reached.
    limit_ns = stats.percent_of_limit / 100 * stats.median_ns if stats.percent_of_limit else None
    launches = json.dumps([[one.entry, repr(one.grid), one.local, repr(one.args)] for one in entry.launches])
    program = "\n".join((entry.source_sha256, *entry.build_options, launches))
    return Row(
        f"{family} {entry.id}", "", f"{family} {entry.id}", stats.median_ns, stats.interval_ns, program, limit_ns
    )


def _bench(path: Path, data: Mapping[str, Any]) -> ResultFile:
    rows, failed = {}, {}
    for line in data["lines"]:
        for which in ("default", "tuned"):
            found = line[which]
            key, label = f"{line['workload']} ({which})", f"{line['label']} ({which})"
            if found and "median_ns" not in found:
                failed[key] = str(found["verdict"])
            elif found:
                low, high = found["interval_ns"]
                rows[key] = Row(key, "", label, found["median_ns"], (low, high), None, line["limit_ns"])
    return ResultFile(path, BENCH, {"": dict(data["description"])}, rows, (), failed)


def _pytest(path: Path, data: Mapping[str, Any]) -> ResultFile:
    told = [one["extra_info"] for one in data["benchmarks"] if "description" in one.get("extra_info", {})]
    if not told:
        raise KilnError(f"{path} does not say which device it is of: it was saved by something else than make bench")
    devices = {info["device"]: dict(info["description"]) for info in told}
    return ResultFile(path, PYTEST, devices, {row.key: row for row in map(_benchmark, told)}, ())


def _benchmark(info: Mapping[str, Any]) -> Row:
    low, high = info["interval_ns"]
    yardstick = info["anchors_ns"].get("madd" if info["limited_by"] == "arithmetic" else "read")
    device = info["device"]
    key, label = f"{device} {info['workload']}", f"{device} {info['label']}"
    return Row(key, device, label, info["median_ns"], (low, high), info["candidate"], yardstick)
