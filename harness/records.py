"""The records of a journal: how a measurement becomes JSON, how a file of them is read, torn lines and all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.errors import KilnError
from kernels.spec import Errors, Measurement, Stats, Tolerance, Verdict

VERSION = 1  # of the records; a reader refuses newer ones

Record = Mapping[str, Any]


def to_json(measurement: Measurement) -> dict[str, Any]:
    """A measurement as JSON; parts that are empty are left out."""
    record = {name: value for name, value in asdict(measurement).items() if value not in (None, "", (), {})}
    record["verdict"] = str(measurement.verdict)
    if not measurement.build_cached:
        del record["build_cached"]
    if measurement.samples_ns:
        record["samples_ns"] = [round(sample) for sample in measurement.samples_ns]  # stamps are whole ns
    return record


def from_json(record: Mapping[str, Any]) -> Measurement:
    """The measurement that `to_json` wrote.

    Raises KeyError, TypeError, ValueError or AttributeError for anything else.
    """
    stats, errors = record.get("stats"), record.get("errors")
    return Measurement(
        verdict=Verdict(record["verdict"]),
        log=record.get("log", ""),
        stats=Stats(stats["median_ns"], tuple(stats["interval_ns"]), stats["samples"]) if stats else None,
        samples_ns=tuple(float(sample) for sample in record.get("samples_ns", ())),
        errors=errors_of(errors) if errors else None,
        conditions=record.get("conditions", {}),
        build_ms=record.get("build_ms"),
        build_cached=record.get("build_cached", False),
        at_least_ns=record.get("at_least_ns"),
        kernel=record.get("kernel", {}),
    )


def errors_of(record: Mapping[str, Any]) -> Errors:
    """The errors that `asdict` wrote. Raises KeyError and TypeError for anything else."""
    limits = Tolerance(record["limits"]["nmse"], record["limits"]["max_scaled"])
    return Errors(record["nmse"], record["max_scaled"], limits, tuple(record["shapes"]))


@dataclass(frozen=True)
class Contents:
    """What a journal file holds: its records in order, and the lines that could not be read."""

    records: tuple[Record, ...]
    damaged: tuple[int, ...]  # line numbers from 1: torn by a power loss or a full disk
    ends_clean: bool  # False: the last line has no newline yet


def read(path: Path) -> Contents:
    """Read a journal, tolerating torn lines. A missing file is an empty journal.

    Raises KilnError for a journal of a newer version or a file that cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Contents((), (), True)
    except OSError as error:
        raise KilnError(f"the journal {path} cannot be read: {error.strerror}") from error
    records, damaged = [], []
    for number, line in enumerate(data.splitlines(), start=1):
        record = _parse(line)
        if record is not None:
            records.append(record)
        elif line.strip():
            damaged.append(number)
    for record in records:
        if record["kind"] == "study" and record.get("version", VERSION) > VERSION:
            raise KilnError(f"the journal {path} was written by a newer version; move it away or upgrade")
    return Contents(tuple(records), tuple(damaged), not data or data.endswith(b"\n"))


def _parse(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
        if not isinstance(record, dict) or not isinstance(record["kind"], str):
            return None
        if record["kind"] == "trial":
            from_json(record["measurement"])
        if record["kind"] in ("begin", "trial", "interrupted") and not isinstance(record["key"], str):
            return None
        if record["kind"] == "study" and type(record.get("version", VERSION)) is not int:
            return None
    except (ValueError, KeyError, TypeError, AttributeError):  # a torn line, or one of some other program
        return None
    return record
