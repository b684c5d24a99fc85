"""Figure 3's claim: a new token's K and V written in place take a time that does not grow with the cache, and no second
copy; an engine that concatenates and copies back pays for every cached position. Both interleaved, over cached length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.candidate import Candidate
from harness.entrant import Contestant
from harness.papers.ground import Ground, failures, measurement_json, ratio, ratio_json, time_cell
from harness.tables import MISSING, bytes_text, table, time_text
from harness.timing import LEAST_SAMPLES, Ratio
from kernels.kv_concat.copying import COPYING, second_copy_bytes
from kernels.models import load_model
from kernels.plan import plan
from kernels.select import Level

MODELS = ("chatglm2-6b", "llama2-7b")  # the paper's examples of a cache that is sequence-first, and of one that is not
LENGTHS = (128, 1024, 2048, 4096)  # the paper's prompts, and one longer
_BUDGET_S = 2.0  # of rounds per length


@dataclass(frozen=True)
class Row:
    """One token's K and V of one layer, in place and copying, with so many positions cached afterwards."""

    model: str
    layers: int
    cached: int
    default: Contestant
    tuned: Contestant | None
    level: Level
    copying: Contestant
    copy_bytes: int  # of the second copy, of one layer
    copy_per_ns: float  # bytes read and written by the probe's copy beside it

    @property
    def best(self) -> Contestant:
        """What an engine would run in place."""
        return self.tuned or self.default

    @property
    def slowdown(self) -> Ratio | None:
        """Copying over in place."""
        return ratio(self.best, self.copying)

    @property
    def moved_per_ns(self) -> float | None:
        """What the copying one reads and writes a nanosecond: the cache twice each."""
        stats = self.copying.measurement.stats
        return 4 * self.copy_bytes / stats.median_ns if stats else None


def measure(
    ground: Ground,
    step: Callable[[], None],
    models: Sequence[str] = MODELS,
    lengths: Sequence[int] = LENGTHS,
) -> list[Row]:
    """Every length of every model."""
    found = []
    for model in models:
        sheet = load_model(model)
        assert sheet.decoder is not None
        for cached in lengths:
            (item,) = plan(sheet, m=(1,), context=cached, families=["kv_concat"])
            pair = ground.pair(item.workload)
            copying = Candidate(COPYING, item.workload, COPYING.default(item.workload, ground.choice.sheet))
            candidates = [pair.default, copying, *([pair.tuned] if pair.tuned else [])]
            contest = ground.race(candidates, 2 * LEAST_SAMPLES, _BUDGET_S)
            default, copied, *tuned = contest.contestants
            found.append(
                Row(
                    model,
                    sheet.decoder.layers,
                    cached,
                    default,
                    tuned[0] if tuned else None,
                    pair.level,
                    copied,
                    second_copy_bytes(item.workload),
                    contest.rates.copy_per_ns,
                )
            )
            step()
    return found


# ---------------------------------------------------------------- for people and programs

_HEADS = (
    "model",
    "cached",
    "in place, default",
    "in place, tuned",
    "copying: concat + back",
    "copying / in place",
    "second copy, a layer",
    "all layers",
)


def text(rows: Sequence[Row]) -> str:
    """The table, what it says of the claim, and what the copying baseline is."""
    lines = [
        "Figure 3: K and V of one new token into one layer's cache (fp16, RoPE of K and Q included)",
        table(_HEADS, [_cells(row) for row in rows]),
        *(growth([row for row in rows if row.model == model]) for model in dict.fromkeys(row.model for row in rows)),
        "copying: figure 3 (a), all positions and the new one into other tensors, then back to where the next token "
        "finds them; an engine that swaps the two instead saves the way back, not the second copy",
        "the copying one finds in the last-level cache what fits it, as among many layers it would not: in its favour",
        f"at {rows[-1].cached} positions of {rows[-1].model} it moves {_rate(rows[-1])}",
        "memory is computed from the tensors' sizes: in place has none of it",
        *failures([one for row in rows for one in (row.default, row.tuned, row.copying)]),
    ]
    if not any(row.tuned for row in rows):
        lines.append(f'"tuned" is {MISSING}: no document has an entry for these caches')
    lines.append("published: the figure is a diagram; the paper gives no time or size for it")
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str | None, ...]:
    ratio_cell = None
    if found := row.slowdown:
        ratio_cell = f"{found.ratio:.3g} ({found.interval[0]:.3g} to {found.interval[1]:.3g})"
    parts = row.copying.launches_ns
    copied = " + ".join(time_text(ns) for ns in parts) if parts else time_cell(row.copying.measurement)
    return (
        row.model,
        str(row.cached),
        time_cell(row.default.measurement),
        time_cell(row.tuned.measurement if row.tuned else None),
        copied,
        ratio_cell,
        bytes_text(row.copy_bytes),
        bytes_text(row.layers * row.copy_bytes),
    )


def growth(rows: Sequence[Row]) -> str:
    """How the two ways grow from the shortest to the longest cache of one model."""
    first, last = rows[0], rows[-1]

    def told(one: Contestant, other: Contestant) -> str:
        a, b = one.measurement.stats, other.measurement.stats
        if a is None or b is None:
            return "cannot be compared"
        return (
            f"takes {b.median_ns / a.median_ns:.3g} times as long ({time_text(a.median_ns)}, {time_text(b.median_ns)})"
        )

    return (
        f"{first.model}, from {first.cached} to {last.cached} positions ({last.cached / first.cached:.3g} times): "
        f"in place {told(first.best, last.best)}, copying {told(first.copying, last.copying)}"
    )


def _rate(row: Row) -> str:
    if row.moved_per_ns is None:
        return "nothing: it failed"
    return f"{row.moved_per_ns:.1f} GB/s, the probe's copy of cold memory {row.copy_per_ns:.1f} GB/s"


def to_json(rows: Sequence[Row]) -> dict[str, Any]:
    """For `--json`: times in ns, sizes in bytes."""
    return {
        "rows": [
            {
                "model": row.model,
                "cached": row.cached,
                "layers": row.layers,
                "level": str(row.level),
                "in_place_default": measurement_json(row.default),
                "in_place_tuned": measurement_json(row.tuned),
                "copying": measurement_json(row.copying),
                "copying_launches_ns": list(row.copying.launches_ns),
                "copying_over_in_place": ratio_json(row.slowdown),
                "second_copy_bytes_computed": row.copy_bytes,
                "second_copy_bytes_all_layers_computed": row.layers * row.copy_bytes,
            }
            for row in rows
        ],
        "published": None,
        "published_why": "figure 3 is a diagram without figures",
    }
