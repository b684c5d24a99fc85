"""The final table: what was tuned, by how much, and how far from the device's own limit it remains."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import kernels
from harness.probe import broken
from harness.racing import common
from harness.tables import gigabytes_per_second, percent_text, table, time_text
from harness.timing import paired_ratio
from kernels.spec import Workload
from tuner.decisions import Decision

HEADERS = ("workload", "stored", "default", "tuned", "speed-up", "rate", "% of limit", "winner")
NAME_WIDTH, WINNER_WIDTH = 30, 17  # columns; the table then fits a terminal of 120, and what is longer goes on below


def rows(decided: Sequence[Decision]) -> list[dict[str, Any]]:
    """One record a workload, in numbers: times in ns, rates per ns (GB/s, GFLOPS) of the least that must be done."""
    return [_row(decision) for decision in decided]


def _row(decision: Decision) -> dict[str, Any]:
    workload, winner = decision.workload, decision.winner
    least = kernels.families()[workload.family].cost(workload)
    tuned_ns = decision.final.median_ns(winner.finalist)
    limit = decision.final.facts["limit"]
    return {
        "family": workload.family,
        "workload": workload.key,
        "label": workload.label,
        "dims": dict(workload.dims),
        "weights": workload.weights,
        "default_ns": decision.final.default.median_ns,
        "tuned_ns": tuned_ns,
        "speedup": winner.speedup.ratio,
        "speedup_interval": list(winner.speedup.interval),
        "gb_per_s": least.bytes / tuned_ns,
        "gflops": least.flops / tuned_ns,
        "percent_of_limit": 100 * limit["ns"] / tuned_ns,
        "percent_interval": _percent_interval(decision),
        "limited_by": limit["limited_by"],
        "winner": str(winner.finalist.candidate).partition("/")[2],
        "tied_with": winner.tied,
        "program": winner.finalist.candidate.program,
        "regret": decision.regret,
    }


def _percent_interval(decision: Decision) -> list[float] | None:
    """95 % interval of the percentage from rounds in which the limit's anchor ran beside the winner; None without."""
    rounds = decision.final.facts["limit"].get("rounds_ns", [])
    samples = decision.winner.finalist.samples_ns
    if len(rounds) != len(decision.final.default.samples_ns):
        return None
    return [100 * end for end in paired_ratio(*common(samples, rounds)).interval]


def _beyond(record: dict[str, Any]) -> bool:
    """Whether a percentage is surely above 100: a kernel at the limit measures above it every other time."""
    return bool((record["percent_interval"] or [record["percent_of_limit"]])[0] > 100)


def summary(decided: Sequence[Decision]) -> str:
    """A table per family for people, and a sentence for each thing in it that should not be believed as it stands."""
    parts: list[str] = []
    for name in dict.fromkeys(decision.workload.family for decision in decided):
        mine = [decision for decision in decided if decision.workload.family == name]
        about = kernels.families()[name].about
        parts.append(
            f"{name}: {about}\n" + table(HEADERS, [_line(d, r) for d, r in zip(mine, rows(mine), strict=True)])
        )
        if mine[0].regret is not None:
            parts[-1] += f"\n{_programs(mine)}"
    remarks = [
        f"{_name(decision.workload)} {decision.workload.weights or ''}".strip() + f": {sentence}"
        for decision, record in zip(decided, rows(decided), strict=True)
        if _beyond(record) and (sentence := broken(record["percent_of_limit"]))
    ]
    return "\n\n".join(parts) + "".join(f"\n{remark}" for remark in remarks)


def _programs(mine: Sequence[Decision]) -> str:
    """How few programs serve a family's workloads, and which of these pays most for it."""
    count = len({decision.winner.finalist.candidate.program for decision in mine})
    regrets = [decision.regret or 0.0 for decision in mine]
    worst = mine[regrets.index(max(regrets))]
    where = f" ({_name(worst.workload)} {worst.workload.weights or ''}".rstrip() + ")" if max(regrets) else ""
    return (
        f"{count} program{'s' * (count > 1)} for {len(mine)} workloads: behind the fastest by at worst "
        f"{100 * max(regrets):.1f} %{where}, on average {100 * sum(regrets) / len(regrets):.1f} %"
    )


def _line(decision: Decision, record: dict[str, Any]) -> tuple[str, ...]:
    workload = decision.workload
    computes = record["limited_by"] == "arithmetic"
    return (
        _folded(_name(workload), NAME_WIDTH),
        workload.weights or workload.dtypes.cache or workload.dtypes.act,
        time_text(record["default_ns"]),
        time_text(record["tuned_ns"]),
        _speedup(decision),
        f"{record['gflops']:.0f} GFLOPS" if computes else gigabytes_per_second(record["gb_per_s"]),
        f"{percent_text(record['percent_of_limit']).removesuffix(' %')} {record['limited_by']}",
        _folded(_winner(decision), WINNER_WIDTH),
    )


def _name(workload: Workload) -> str:
    sizes = "×".join(str(size) for size in workload.dims.values())
    return f"{workload.label} {sizes}".strip()


def _folded(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def _speedup(decision: Decision) -> str:
    ratio = decision.winner.speedup
    if decision.winner.finalist is decision.final.default:
        return f"{ratio.ratio:.2f}×"  # of itself: there is no interval
    low, high = ratio.interval
    return f"{ratio.ratio:.2f}× [{low:.2f}, {high:.2f}]"


def _winner(decision: Decision) -> str:
    """The winner by what sets it apart: from the family's default, or from its own variant's where that is another."""
    winner, default = decision.winner.finalist.candidate, decision.final.default.candidate
    if winner == default:
        return "the default"
    same = winner.variant is default.variant
    usual = default.config if same else winner.variant.config()
    words = [f"{name}={value}" for name, value in winner.config.items() if usual[name] != value]
    words += ["local=driver"] if winner.driver_local else []
    return " ".join(words if same else [winner.variant.name, *words])
