"""How the harness and the tuner print: one table style, one way to write a time, a rate, a size, a gap."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from tabulate import tabulate

from harness.errors import KilnError

MISSING = "–"  # a value that could not be had; its reason stands in a note, never a zero in its place


def say(text: str) -> None:
    """Print a command's result to the end. Raises KilnError when it cannot be written; a reader that left is fine."""
    try:
        print(text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter's end flushes the rest again
        if not isinstance(error, BrokenPipeError):  # that is `| head`, which has seen enough
            raise KilnError(f"the output cannot be written: {error.strerror}") from error


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A plain-text table; text to the left, numbers (given as text with their unit) to the right."""
    body = [[MISSING if cell is None else str(cell) for cell in row] for row in rows]
    align = ["right" if all(_numeric(row[i]) for row in body) else "left" for i in range(len(headers))]
    # tabulate 0.9 cannot align the columns of an empty table.
    return tabulate(
        body, headers=list(headers), tablefmt="simple", colalign=align if body else None, disable_numparse=True
    )


def _numeric(cell: str) -> bool:
    return cell == MISSING or cell[:1].isdigit() or (cell[:1] in "<>≥-+±" and cell[1:2].isdigit())


def time_text(ns: float | None) -> str:
    """A time in the unit that leaves one to three digits before the point."""
    if ns is None:
        return MISSING
    for unit, size in (("ns", 1.0), ("µs", 1e3), ("ms", 1e6)):
        if ns < 999.5 * size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns / 1e9:.3g} s" if ns < 999.5e9 else f"{ns / 1e9:.0f} s"


def bytes_text(count: float | None) -> str:
    """A size in binary units."""
    if count is None:
        return MISSING
    for unit, size in (("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20)):
        if count < 1024 * size:
            return f"{count / size:.4g} {unit}"
    return f"{count / (1 << 30):.4g} GiB"


def gigabytes_per_second(bytes_per_ns: float | None) -> str:
    """A bandwidth; bytes per nanosecond are GB/s already."""
    return MISSING if bytes_per_ns is None else f"{bytes_per_ns:.1f} GB/s"


def percent_text(part: float | None) -> str:
    """A percentage given as 0…100."""
    return MISSING if part is None else f"{part:.0f} %"


def json_text(value: Any) -> str:
    """JSON for `--json`: sorted keys, two spaces, no NaN (which is not JSON)."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
