"""Configurations as points: similar ones lie near each other, in a cube that a surrogate can measure distances in.

Only values count, never a parameter's name. A number has its logarithm for an axis: 32 is to 64 what 128 is to 256.
Numbers that are no plain powers of two have a second axis, how often two divides them, since hardware treats 96 and 128
alike in that way and 97 not. A word has an axis per value. What a configuration's variant lacks lies in the middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.table import Codes

Points = npt.NDArray[np.float64]


def axes(values: Sequence[Any]) -> Points:
    """Values × axes, each axis from 0 to 1; no axis where there is nothing to tell apart."""
    if len(values) < 2:
        return np.zeros((len(values), 0))
    if any(not isinstance(value, (bool, int, float, np.number)) for value in values):
        return np.eye(len(values)) if len(values) > 2 else np.array([[0.0], [1.0]])
    numbers = np.array(values, dtype=np.float64)
    positive = bool(numbers.min() > 0)
    found = [_unit(np.log2(numbers) if positive else _ranks(numbers))]
    if positive and len(values) > 2 and np.array_equal(numbers, np.round(numbers)):
        whole = numbers.astype(np.int64)
        twos = np.log2((whole & -whole).astype(np.float64))
        if twos.min() < twos.max() and not np.allclose(twos, np.log2(numbers)):
            found.append(_unit(twos))
    return np.stack(found, axis=1)


def _unit(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    scaled: npt.NDArray[np.float64] = (numbers - numbers.min()) / np.ptp(numbers)
    return scaled


def _ranks(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.searchsorted(np.unique(numbers), numbers).astype(np.float64)


class Features:
    """Turns rows of a table's codes into points."""

    def __init__(self, values: Sequence[Sequence[Any]]) -> None:
        columns = [axes(value) for value in values]
        # Row 0 of each is code 0: the parameter that the variant lacks.
        self._tables = [np.vstack([np.full((1, column.shape[1]), 0.5), column]) for column in columns]

    def __call__(self, codes: Codes) -> Points:
        """Rows × axes."""
        return np.concatenate([table[codes[:, i]] for i, table in enumerate(self._tables)], axis=1)
