"""Replays beside another tuner's on the same recorded spaces: how much nearer the optimum, and how sure that is.

The other's file is JSON: `tuner` (its name and version), `marks` (trials after which it was looked at), `spaces` (the
areas of each, one a repeat), as in {"tuner": "Kernel Tuner 1.5.0, …", "marks": [25, …], "spaces": {"convolution_A100":
[0.91, …]}}. tests/kernel_tuner_areas.py writes one for Kernel Tuner's strategies.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import UsageError
from harness.tables import table

if TYPE_CHECKING:
    from tuner.replay import Replayed


@dataclass(frozen=True)
class Other:
    """Another tuner's areas by space, one a repeat."""

    tuner: str
    areas: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Difference:
    """Kiln's area less the other's, with its standard error over repeats; repeat i is paired with repeat i."""

    space: str  # or "mean" of several
    ours: float
    theirs: float
    difference: float
    se: float
    repeats: int

    @staticmethod
    def of(space: str, ours: np.ndarray, theirs: np.ndarray) -> Difference:
        """From the areas of as many repeats each, two at least."""
        paired = ours - theirs
        error = float(paired.std(ddof=1)) / math.sqrt(len(paired))
        return Difference(space, float(ours.mean()), float(theirs.mean()), float(paired.mean()), error, len(paired))


def load(path: Path, spaces: Sequence[str], marks: Sequence[int], repeats: int) -> Other:
    """Read the other's file and see that it can be paired with this replay. Raises UsageError, one sentence."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path} is not there; tests/kernel_tuner_areas.py writes such a file") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no file of areas: {str(error).splitlines()[0]}") from error
    if not isinstance(data, dict) or not isinstance(data.get("tuner"), str) or not isinstance(data.get("spaces"), dict):
        raise UsageError(f"{path} is no file of areas: it has no tuner, or no spaces")
    if data.get("marks") != list(marks):
        raise UsageError(f"{path} was looked at after {data.get('marks')} trials, this replay is after {list(marks)}")
    if repeats < 2:
        raise UsageError("a difference has no error with one repeat: --repeats is at least 2 beside --against")
    return Other(data["tuner"], {space: _areas(path, data["spaces"], space, repeats) for space in spaces})


def _areas(path: Path, spaces: Mapping[str, Any], space: str, repeats: int) -> np.ndarray:
    if space not in spaces:
        raise UsageError(f"{path} has no space {space}; it has {', '.join(map(str, spaces)) or 'none'}")
    found = spaces[space]
    if not isinstance(found, list) or not all(type(area) in (int, float) and 0 <= area <= 1 for area in found):
        raise UsageError(f"{path}: the areas of {space} are no list of numbers from 0 to 1")
    if len(found) != repeats:
        raise UsageError(f"{path} has {len(found)} repeats of {space}, not {repeats}; give --repeats {len(found)}")
    return np.array(found, float)


def differences(results: Sequence[Replayed], other: Other) -> list[Difference]:
    """One per space, and their mean where there are several: over these very spaces, so the repeats' error."""
    ours = [result.areas for result in results]
    theirs = [other.areas[result.space] for result in results]
    found = [Difference.of(r.space, a, b) for r, a, b in zip(results, ours, theirs, strict=True)]
    if len(found) > 1:
        found.append(Difference.of("mean", np.mean(ours, axis=0), np.mean(theirs, axis=0)))
    return found


def text(found: Sequence[Difference], other: Other) -> str:
    """The table; above 0 Kiln is nearer the optimum."""
    rows = [
        [d.space, str(d.repeats), f"{d.ours:.3f}", f"{d.theirs:.3f}", f"{d.difference:+.3f} ± {d.se:.3f}"]
        for d in found
    ]
    heads = ["space", "repeats", "area", "the other's", "difference ± standard error"]
    return f"against {other.tuner}, repeat by repeat:\n" + table(heads, rows)


def to_json(found: Sequence[Difference], other: Other) -> dict[str, Any]:
    """For `--json`."""
    return {
        "tuner": other.tuner,
        "differences": [
            {
                "space": d.space,
                "repeats": d.repeats,
                "area": d.ours,
                "other_area": d.theirs,
                "difference": d.difference,
                "difference_se": d.se,
            }
            for d in found
        ],
    }
