"""Table 3: CLIP ViT-B/32's image and text encoder, the device time of every kernel times how often it runs.

A sum of kernels, each timed alone in interleaved rounds of default and tuned: gaps between launches and the host's work
are in no figure. The list follows transformers' modeling_clip.py; what Kiln has no kernel for is named beside the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.entrant import Contestant
from harness.papers.ground import Ground, failures, limit_text, measurement_json, stats_text, time_cell, wrapped
from harness.probe import Limit, broken
from harness.tables import MISSING, table
from harness.timing import LEAST_SAMPLES
from kernels.models import Tower, load_model
from kernels.plan import plan
from kernels.published import PROCESSORS, TABLE_3
from kernels.select import WORDS, Level
from kernels.spec import Stats, Workload

MODEL = "clip-vit-b-32"
INPUTS = {"image": "[1, 3, 224, 224]", "text": "[1, 77]"}
LEFT_OUT = {
    "image": "gathering pixels into patches, the class token, adding positions, parting the Q, K, V product's rows",
    "text": "looking tokens up, adding positions, parting the Q, K, V product's rows, finding the last token's row",
}
_PIXELS = 3 * 32 * 32  # of a patch
_BUDGET_S = 1.0  # of rounds per kernel


@dataclass(frozen=True)
class Kernel:
    """One kernel of an encoder, how often a pass runs it, and its times."""

    encoder: str
    part: str
    count: int
    workload: Workload
    default: Contestant
    tuned: Contestant | None
    level: Level
    least: Limit

    @property
    def best(self) -> Contestant:
        """What an engine would run."""
        return self.tuned or self.default

    @property
    def percent(self) -> float | None:
        """How near that comes to the limit."""
        stats = self.best.measurement.stats
        return self.least.percent(stats.median_ns) if stats else None


def jobs(name: str, compute: str) -> list[tuple[str, int, Workload]]:
    """Part, count and workload of everything that a pass of the tower `name` runs and Kiln has a kernel for.

    Residual additions are the matrix products' own, so that norms add nothing.
    """
    sheet = load_model(MODEL)
    tower = next(one for one in sheet.towers if one.name == name)
    planned = plan(replace(sheet, towers=(tower,)), compute=compute)
    found = []
    for item in planned:
        part = item.workload.label.removeprefix(f"{MODEL} {name} ")
        if item.workload.family != "rmsnorm":
            found.append((part, item.count, item.workload))
        elif "residual" not in item.workload.options:
            found += _norms(tower, item.workload)
        if name == "image" and part == "fc2":
            dims = {"M": tower.tokens - 1, "N": tower.hidden, "K": _PIXELS}
            work = item.workload
            found.append(("patches", 1, Workload(work.family, dims, work.dtypes, work.weights, label="patches")))
    return found


def _norms(tower: Tower, plain: Workload) -> Iterator[tuple[str, int, Workload]]:
    """Two a block, and one before the blocks (image) or behind them (text); the image's last one is of one row."""
    yield "norm", 2 * tower.layers + 1, plain
    if tower.name == "image":
        yield "last norm", 1, plain.with_dims(M=1)


def measure(
    ground: Ground,
    step: Callable[[], None],
    wanted: Mapping[str, Sequence[tuple[str, int, Workload]]],
    budget_s: float = _BUDGET_S,
) -> list[Kernel]:
    """Every kernel of the encoders in `wanted`, as `jobs` lists them."""
    found = []
    for encoder, parts in wanted.items():
        for part, count, workload in parts:
            pair = ground.pair(workload)
            candidates = [pair.default, *([pair.tuned] if pair.tuned else [])]
            contest = ground.race(candidates, 2 * LEAST_SAMPLES, budget_s)
            default, *tuned = contest.contestants
            least = ground.limit(default.candidate.family, workload, contest)
            best = tuned[0] if tuned else None
            found.append(Kernel(encoder, part, count, workload, default, best, pair.level, least))
            step()
    return found


def total(kernels: Sequence[Kernel], chosen: Callable[[Kernel], Contestant]) -> Stats | None:
    """The sum of medians, and of the intervals' ends, which is wider than 95 %; None where one of them failed."""
    median_ns, low_ns, high_ns, rounds = 0.0, 0.0, 0.0, 0
    for one in kernels:
        stats = chosen(one).measurement.stats
        if stats is None:
            return None
        median_ns += one.count * stats.median_ns
        low_ns += one.count * stats.interval_ns[0]
        high_ns += one.count * stats.interval_ns[1]
        rounds = min(rounds or stats.samples, stats.samples)
    return Stats(median_ns, (low_ns, high_ns), rounds) if kernels else None


def mismatch(kernels: Sequence[Kernel]) -> str | None:
    """Why the tuned kernels do not fit together: attention reads the layout that KV concat writes."""
    seen: dict[tuple[str, str], set[str]] = {}
    for one in kernels:
        for tensor, layout in one.best.candidate.layouts.items():
            if tensor in ("k", "v"):
                seen.setdefault((one.encoder, tensor), set()).add(layout)
    for (encoder, tensor), layouts in seen.items():
        if len(layouts) > 1:
            several = ", ".join(sorted(layouts))
            return f"the {encoder} encoder's tuned kernels disagree on the layout of {tensor}: {several}"
    return None


# ---------------------------------------------------------------- for people and programs


def text(found: Sequence[Kernel], device: str) -> str:
    """Every kernel, the sums, what they leave out, and what the paper published."""
    heads = ("encoder", "kernel", "family", "sizes", "calls", "default", "tuned", "% of limit")
    names = list(dict.fromkeys(one.encoder for one in found))
    any_tuned = any(one.tuned for one in found)
    sums = []
    for name in names:
        mine = [one for one in found if one.encoder == name]
        both = (total(mine, lambda one: one.default), total(mine, lambda one: one.best) if any_tuned else None)
        sums.append((f"{name} encoder", INPUTS[name], *(stats_text(one) if one else None for one in both)))
    notes = [f"not in the {name} encoder's sum: {LEFT_OUT[name]}; gaps between launches" for name in names]
    published = [(f"{one.phase} encoder", PROCESSORS[one.device], f"{one.ns / 1e6:g} ms") for one in TABLE_3]
    lines = [
        "Table 3: CLIP ViT-B/32, device time of every kernel times its calls; weights and activations stored as fp16, "
        f"arithmetic {found[0].workload.dtypes.compute}",
        f"measured on {device}, one call each:",
        table(heads, [_cells(one) for one in found]),
        f"sums on {device} (of medians; their intervals add the ends of the kernels' and are wider than 95 %):",
        table(("model", "input", "default", "tuned"), sums),
        *wrapped([*notes, *_remarks(found)]),
        "published (table 3: latency of the whole encoder, half precision):",
        table(("model", "processor", "latency"), published),
    ]
    return "\n".join(lines)


def _remarks(found: Sequence[Kernel]) -> Iterator[str]:
    """What the tuned column is, what is beyond its limit, what failed."""
    tuned = [one for one in found if one.tuned]
    if not tuned:
        yield f'"tuned" is {MISSING}: no document has these; python -m tuner --device … --model {MODEL} makes one'
    for level in dict.fromkeys(one.level for one in tuned):
        yield f"{sum(one.level is level for one in tuned)} of {len(found)} kernels {WORDS[level]}"
    if tuned and len(tuned) < len(found):
        yield "kernels without a tuned entry run their default in the tuned sum"
    if why := mismatch(found):
        yield why
    for one in found:
        if one.percent is not None and (beyond := broken(one.percent)):
            yield f"{one.encoder} {one.part}: {beyond}"
    yield from failures([contestant for one in found for contestant in (one.default, one.tuned)])


def _cells(one: Kernel) -> tuple[str | None, ...]:
    return (
        one.encoder,
        one.part,
        one.workload.family,
        " ".join(f"{dim}={size}" for dim, size in one.workload.dims.items()),
        str(one.count),
        time_cell(one.default.measurement),
        time_cell(one.tuned.measurement if one.tuned else None),
        limit_text(one.percent, one.least),
    )


def to_json(found: Sequence[Kernel]) -> dict[str, Any]:
    """For `--json`: times in ns."""

    def sums(name: str) -> dict[str, Any]:
        mine = [one for one in found if one.encoder == name]
        both = {"default": total(mine, lambda one: one.default), "tuned": total(mine, lambda one: one.best)}
        if not any(one.tuned for one in mine):
            both["tuned"] = None
        return {
            which: None if stats is None else {"sum_ns": stats.median_ns, "ends_ns": list(stats.interval_ns)}
            for which, stats in both.items()
        } | {"input": INPUTS[name], "not_included": LEFT_OUT[name]}

    return {
        "kernels": [
            {
                "encoder": one.encoder,
                "part": one.part,
                "count": one.count,
                "workload": one.workload.key,
                "level": str(one.level),
                "default": measurement_json(one.default),
                "tuned": measurement_json(one.tuned),
                "limit_ns": one.least.ns,
                "limited_by": one.least.limited_by,
                "percent_of_limit": one.percent,
            }
            for one in found
        ],
        "encoders": {name: sums(name) for name in dict.fromkeys(one.encoder for one in found)},
        "published": [
            {"encoder": one.phase, "processor": PROCESSORS[one.device], "latency_ns": one.ns} for one in TABLE_3
        ],
    }
