"""Figure 3's claim: a new token's K and V written in place take a time that does not grow with the cache, and no second
copy; an engine that concatenates and copies back pays for every cached position. Both interleaved, over cached length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.candidate import Candidate
from harness.entrant import Contestant
from harness.papers.ground import Ground, failures, measurement_json, ratio, ratio_json, ratio_text, time_cell, wrapped
from harness.tables import MISSING, bytes_text, table, time_text
from harness.timing import LEAST_SAMPLES, Ratio
from kernels.kv_concat.copying import COPYING, second_copy_bytes
from kernels.models import load_model
from kernels.plan import plan
from kernels.select import WORDS, Level

MODELS = ("chatglm2-6b", "llama2-7b")  # the paper's examples of a cache that is sequence-first, and of one that is not
LENGTHS = (128, 1024, 2048, 4096)  # the paper's prompts, and one longer
_BUDGET_S = 3.0  # of rounds per length


@dataclass(frozen=True)
class Row:
    """One token's K and V of one layer, in place and copying, with so many positions cached afterwards."""

    model: str
    layers: int
    cached: int
    room: int  # positions that the cache was made for
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
    budget_s: float = _BUDGET_S,
) -> list[Row]:
    """Every length of every model."""
    found = []
    for model in models:
        sheet = load_model(model)
        assert sheet.decoder is not None
        for cached in lengths:
            (item,) = plan(sheet, m=(1,), context=cached, families=["kv_concat"])
            workload = item.workload.with_dims(S=max(lengths))  # an engine reserves the longest once
            pair = ground.pair(workload)
            copying = Candidate(COPYING, workload, COPYING.default(workload, ground.choice.sheet))
            candidates = [pair.default, copying, *([pair.tuned] if pair.tuned else [])]
            contest = ground.race(candidates, 2 * LEAST_SAMPLES, budget_s)
            default, copied, *tuned = contest.contestants
            found.append(
                Row(
                    model,
                    sheet.decoder.layers,
                    cached,
                    max(lengths),
                    default,
                    tuned[0] if tuned else None,
                    pair.level,
                    copied,
                    second_copy_bytes(workload),
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


def text(rows: Sequence[Row], device: str) -> str:
    """The table, what it says of the claim, and what the copying baseline is."""
    models = [[row for row in rows if row.model == model] for model in dict.fromkeys(row.model for row in rows)]
    notes = [growth(mine) for mine in models]
    notes += [
        "copying is figure 3 (a): all positions and the new one go into other tensors, then back to where the next "
        "token finds them. An engine that swaps the two tensors instead saves the way back, not the second copy.",
        "A cache that fits the last-level cache is found there, which among a model's many layers it would not: in "
        f"favour of copying. At {rows[-1].cached} positions of {rows[-1].model} copying moves {_rate(rows[-1])}.",
        "Memory is computed from the tensors' sizes; in place there is no second copy.",
    ]
    levels = dict.fromkeys(row.level for row in rows if row.tuned)
    notes += [f"tuned: {WORDS[level]}" for level in levels]
    if not levels:
        notes.append(f'"tuned" is {MISSING}: no document has an entry for these caches')
    notes += failures([one for row in rows for one in (row.default, row.tuned, row.copying)])
    lines = [
        "Figure 3: K and V of one new token into one layer's fp16 cache, RoPE of K and Q included",
        f"measured on {device}, one call of one layer, a cache with room for {rows[0].room} positions:",
        table(_HEADS, [_cells(row) for row in rows]),
        *wrapped(notes),
        "published: the figure is a diagram; the paper gives no time or size for it",
    ]
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str | None, ...]:
    parts = row.copying.launches_ns
    return (
        row.model,
        str(row.cached),
        time_cell(row.default.measurement),
        time_cell(row.tuned.measurement if row.tuned else None),
        " + ".join(time_text(ns) for ns in parts) if parts else time_cell(row.copying.measurement),
        ratio_text(row.slowdown),
        bytes_text(row.copy_bytes),
        bytes_text(row.layers * row.copy_bytes),
    )


def growth(rows: Sequence[Row]) -> str:
    """How the two ways grow from the shortest to the longest cache of one model, and what a token's layers cost."""
    first, last = rows[0], rows[-1]

    def told(one: Contestant, other: Contestant) -> str:
        a, b = one.measurement.stats, other.measurement.stats
        if a is None or b is None:
            return "cannot be compared"
        times, layers = b.median_ns / a.median_ns, time_text(last.layers * b.median_ns)
        return f"takes {times:.3g} times as long, {layers} in {last.layers} layers"

    more = f"{last.cached} positions against {first.cached} ({last.cached / first.cached:.3g} times as many)"
    return (
        f"{first.model}, {more}: in place {told(first.best, last.best)}; copying {told(first.copying, last.copying)}."
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
                "room": row.room,
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
