"""Table 1: is a GEMV with E0M4 weights faster than one with INT4 weights? Both interleaved, in paired rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.entrant import Contestant
from harness.papers.ground import Ground, failures, limit_text, measurement_json, ratio, ratio_json, time_cell, wrapped
from harness.probe import Limit, broken
from harness.tables import table
from harness.timing import TIE, Ratio
from kernels.jobs import dtype_policy
from kernels.published import PROCESSORS, TABLE_1
from kernels.select import WORDS, Level
from kernels.spec import Workload

SHAPES = tuple(dict.fromkeys((row.K, row.N) for row in TABLE_1))  # (K, N) of the weights
FORMATS = ("e0m4/g128", "int4/g128")
_ROUNDS, _BUDGET_S = 100, 10.0  # of each shape: the question is one of a few percent


@dataclass(frozen=True)
class Row:
    """Both formats of one shape, in the default or in the tuned configuration."""

    which: str  # default, tuned
    level: Level  # how near the tuned entries' document is, of the one that is further off
    K: int
    N: int
    e0m4: Contestant
    int4: Contestant
    limits: tuple[Limit, Limit]

    @property
    def acceleration(self) -> Ratio | None:
        """INT4 over E0M4, as the paper has it: above 1 means that E0M4 is faster."""
        return ratio(self.e0m4, self.int4)

    @property
    def percents(self) -> tuple[float | None, float | None]:
        """How near each comes to its own limit."""
        pairs = zip((self.e0m4, self.int4), self.limits, strict=True)
        first, second = (m.percent(c.measurement.stats.median_ns) if c.measurement.stats else None for c, m in pairs)
        return first, second


def workload(K: int, N: int, form: str, compute: str) -> Workload:
    """One row of activations by weights [K, N]."""
    dims = {"M": 1, "N": N, "K": K}
    return Workload("gemv_decode", dims, dtype_policy("fp16", compute, form), form, label=f"table 1 {K}×{N}")


def measure(
    ground: Ground, step: Callable[[], None], shapes: Sequence[tuple[int, int]] = SHAPES, budget_s: float = _BUDGET_S
) -> list[Row]:
    """The defaults of every shape, then the tuned ones where both formats have an entry."""
    found = []
    for K, N in shapes:
        pairs = [ground.pair(workload(K, N, form, ground.compute)) for form in FORMATS]
        tuned = [pair.tuned for pair in pairs if pair.tuned]
        both = len(tuned) == len(FORMATS)
        candidates = [*(pair.default for pair in pairs), *(tuned if both else ())]
        contest = ground.race(candidates, _ROUNDS, budget_s)
        first, second = (ground.limit(one.family, one.workload, contest) for one in candidates[:2])
        level = max((pair.level for pair in pairs), key=list(Level).index)
        ran = contest.contestants
        found.append(Row("default", Level.BUILT_IN, K, N, ran[0], ran[1], (first, second)))
        if both:
            found.append(Row("tuned", level, K, N, ran[2], ran[3], (first, second)))
        step()
    return found


# ---------------------------------------------------------------- for people and programs

_HEADS = ("configuration", "K", "N", "E0M4", "% of limit", "INT4", "% of limit", "INT4 / E0M4")


def text(rows: Sequence[Row], device: str) -> str:
    """What was measured, what it says of the paper's claim, and what the paper published."""
    kinds = list(dict.fromkeys(row.which for row in rows))
    notes = [judgement(which, [row for row in rows if row.which == which]) for which in kinds]
    if "tuned" in kinds:
        notes += [f"tuned ({row.level}): {WORDS[row.level]}" for row in rows if row.which == "tuned"][:1]
    else:
        notes.append("tuned: no document has an entry for both formats")
    notes += [
        f"{row.which} at [{row.K}, {row.N}]: {beyond}"
        for row in rows
        for percent in row.percents
        if percent is not None and (beyond := broken(percent))
    ]
    published = [
        (PROCESSORS[row.device], row.K, row.N, _paper_ms(row.fp4_ns), _paper_ms(row.int4_ns), f"{row.acceleration:.2f}")
        for row in TABLE_1
    ]
    lines = [
        "Table 1: GEMV of one row of activations, weights [K, N] in E0M4 against INT4, both in groups of 128; "
        f"activations fp16, arithmetic {rows[0].e0m4.candidate.workload.dtypes.compute}",
        f"measured on {device}:",
        table(_HEADS, [_cells(row) for row in rows]),
        *wrapped([*notes, *failures([one for row in rows for one in (row.e0m4, row.int4)])]),
        "published (table 1; a Mali's profiling times are longer than its real ones, the paper warns):",
        table(("processor", "K", "N", "E0M4", "INT4", "INT4 / E0M4"), published),
    ]
    return "\n".join(lines)


def _paper_ms(ns: float) -> str:
    return f"{ns / 1e6:.2g} ms"


def _cells(row: Row) -> tuple[str | None, ...]:
    found, (first, second) = row.acceleration, row.percents
    return (
        row.which if row.which == "default" else f"{row.which} ({row.level})",
        str(row.K),
        str(row.N),
        time_cell(row.e0m4.measurement),
        limit_text(first, row.limits[0]),
        time_cell(row.int4.measurement),
        limit_text(second, row.limits[1]),
        f"{found.ratio:.3f} ({found.interval[0]:.3f} to {found.interval[1]:.3f})" if found else None,
    )


def judgement(which: str, rows: Sequence[Row]) -> str:
    """What these rows say of the claim that E0M4 is cheaper to decode; a difference below TIE is none."""
    verdicts: dict[str, list[str]] = {}
    for row in rows:
        found, by = row.acceleration, ""
        if found is None:
            word = "cannot be compared"
        elif found.decided and max(found.ratio, 1 / found.ratio) > TIE:
            word = "E0M4 is faster" if found.ratio > 1 else "INT4 is faster"
            by = f" (by {100 * (max(found.ratio, 1 / found.ratio) - 1):.2g} %)"
        else:
            word = "not told apart"
        verdicts.setdefault(word, []).append(f"[{row.K}, {row.N}]{by}")
    return f"{which}: " + "; ".join(f"{word} at {', '.join(shapes)}" for word, shapes in verdicts.items())


def to_json(rows: Sequence[Row]) -> dict[str, Any]:
    """For `--json`: times in ns; published beside measured, never among it."""
    return {
        "measured": [
            {
                "configuration": row.which,
                "level": str(row.level),
                "K": row.K,
                "N": row.N,
                "e0m4": measurement_json(row.e0m4),
                "int4": measurement_json(row.int4),
                "acceleration": ratio_json(row.acceleration),
                "limit_ns": [one.ns for one in row.limits],
                "limited_by": [one.limited_by for one in row.limits],
            }
            for row in rows
        ],
        "published": [
            {
                "processor": PROCESSORS[row.device],
                "K": row.K,
                "N": row.N,
                "e0m4_ns": row.fp4_ns,
                "int4_ns": row.int4_ns,
                "acceleration": row.acceleration,
            }
            for row in TABLE_1
        ],
    }
