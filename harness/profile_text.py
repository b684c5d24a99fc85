"""`python -m harness profile`: its tables, its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness import trace
from harness.probe import broken
from harness.profile_nouns import Profile, StepProfile
from harness.shares import Row, Spread, Totals, rows, totals
from harness.tables import MISSING, bytes_text, percent_text, table, time_text
from harness.telemetry import Recording
from harness.telemetry import Spread as Summary
from kernels.select import WORDS, Level

LEFT_OUT = "looking up embeddings, activation and product behind separate gate and up GEMVs, choosing a token"
HEADERS = ("family", "launches", "time", "±", "share", "gaps before", "% of limit", "limited by")


# ---------------------------------------------------------------- for people


def text(found: Profile, trace_path: Path | None = None) -> str:
    """A table per step, then what a reader must know of them."""
    heading = f"{found.model} on {found.device}: {found.description['name']} ({found.description['platform_name']})"
    parts = [heading, *(step_text(step) for step in found.steps)]
    if found.recording is not None:
        parts.append(telemetry_text(found.recording))
    parts.append("\n".join(_notes(found)))
    if trace_path is not None:
        parts.append(f"{trace_path}: open it at ui.perfetto.dev or chrome://tracing")
    return "\n\n".join(parts)


def step_text(step: StepProfile) -> str:
    """One step: its families, its sum, its speed."""
    whole = totals(step)
    body = [_row(row) for row in rows(step)]
    every = time_text(whole.sum_ns.mean), _spread(whole.sum_ns), "100 %", time_text(whole.gap_ns.mean)
    body.append(["all", str(whole.launches), *every, percent_text(whole.percent), ""])
    about = (
        f"{step.step.about} ({step.step.phase}): {_count(whole.samples, 'step')} in {_count(whole.repeats, 'repeat')}"
    )
    return "\n".join([about, table(HEADERS, body), *_speeds(step, whole), *_warnings(step, whole)])


def _row(row: Row) -> list[str]:
    return [
        row.family,
        str(row.launches),
        time_text(row.time_ns.mean),
        _spread(row.time_ns),
        f"{100 * row.share:.1f} %",
        time_text(row.gap_ns.mean),
        percent_text(row.percent),
        row.limited_by,
    ]


def _spread(spread: Spread) -> str:
    return MISSING if spread.percent is None else f"{spread.percent:.1f} %"


def _speeds(step: StepProfile, whole: Totals) -> list[str]:
    """The same step measured from the inside to the outside."""
    named = {
        "launches' sum": whole.sum_ns,
        "first START to last END": whole.span_ns,
        f"wall, without profiling ({_count(whole.steps_measured, 'step')})": whole.wall_ns,
    }
    lines = []
    for name, spread in named.items():
        per_s = f" = {_rate(step.step.tokens / spread.mean * 1e9)} tokens/s" if step.step.tokens else ""
        deviation = "" if spread.percent is None else f" ± {spread.percent:.1f} %"
        lines.append(f"{name}: {time_text(spread.mean)}{deviation}{per_s}")
    return lines


def _rate(per_s: float) -> str:
    return f"{per_s:.3g}" if per_s < 1000 else f"{per_s:.0f}"


def _warnings(step: StepProfile, whole: Totals) -> list[str]:
    lines = [f"note: {row.family}: {sentence}" for row in rows(step) if (sentence := broken(row.percent))]
    if whole.overlaps:
        lines.append(f"note: {_count(whole.overlaps, 'launch', 'launches')} began before the one before had ended")
    return lines


def _notes(found: Profile) -> list[str]:
    lines = [f"note: {note}" for note in found.notes]
    lines.append(f"no part of a step: {LEFT_OUT}")
    for part, layers in found.layers.items():
        rotation = "" if layers.resident == layers.of else "; the layers take turns with them"
        lines.append(
            f"{part}: {layers.resident} of {layers.of} layers have weights and caches of their own on the device "
            f"({bytes_text(layers.bytes_each)} each{rotation})"
        )
    levels = {level: sum(one.level is level for one in found.chosen) for level in Level}
    told = "; ".join(f"{count} {WORDS[level]}" for level, count in levels.items() if count)
    lines.append(f"kernels of {_count(len(found.chosen), 'job')}, each checked against its reference: {told}")
    clock = trace.metadata(found)["clock"]
    known = "" if clock["bounds_agree"] else ", and the bounds contradict each other: do not trust it"
    lines.append(f"device stamps lie on the host's clock within ± {time_text(clock['uncertainty_ns'])}{known}")
    if found.recording is None:
        lines.append(f"telemetry: none, {found.recording_why}")
    return lines


def telemetry_text(recording: Recording) -> str:
    """A row per signal, a column per phase: the mean of its repeats and their standard deviation."""
    shown = [signal for signal in recording.signals if any(signal.name in s for s in recording.summary.values())]
    body = [
        [signal.name, *(_told(spreads.get(signal.name)) for spreads in recording.summary.values())] for signal in shown
    ]
    lines = [table(["telemetry", *recording.summary], body)]
    missing: dict[str, list[str]] = {}
    for signal in recording.signals:
        if not signal.available:
            missing.setdefault((signal.why or "no reason told").partition(";")[0], []).append(signal.name)
    lines += [f"unavailable ({why}): {', '.join(names)}" for why, names in missing.items()]
    lines.append(f"energy: {recording.energy_why}")
    return "\n".join(lines)


def _told(spread: Summary | None) -> str | None:
    if spread is None:
        return None
    return f"{spread.mean:.4g}" + ("" if spread.sd is None else f" ± {spread.sd:.2g}")


def _count(number: int, noun: str, plural: str = "") -> str:
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


# ---------------------------------------------------------------- for programs


def to_json(found: Profile) -> dict[str, Any]:
    """For `--json`: times in ns, stamps as the device gave them."""
    return {
        "device": found.device,
        "description": dict(found.description),
        "runner": found.runner,
        "model": found.model,
        "steps": [_step_json(step) for step in found.steps],
        "layers": {part: asdict(layers) for part, layers in found.layers.items()},
        "resident_bytes": found.resident_bytes,
        "jobs": [
            {
                "workload": one.workload.key,
                "label": one.workload.label,
                "kernel": str(one.candidate),
                "level": str(one.level),
                "entry": one.entry,
            }
            for one in found.chosen
        ],
        "compiles": [asdict(one) for one in found.compiles],
        "phases": [asdict(span) for span in found.spans],
        "rates": asdict(found.rates),
        "clock": trace.metadata(found)["clock"],
        "notes": list(found.notes),
        "telemetry": found.recording.to_json() if found.recording else None,
        "telemetry_why": found.recording_why,
    }


def _step_json(step: StepProfile) -> dict[str, Any]:
    launches: Sequence[dict[str, Any]] = [
        {
            "call": one.call.name,
            "layer": one.call.layer,
            "family": one.family,
            "variant": one.variant,
            "entry": one.entry,
            "workload": one.call.workload.key,
        }
        for one in step.launched
    ]
    return {
        "step": step.step.name,
        "phase": step.step.phase,
        "tokens": step.step.tokens,
        "families": [{**asdict(row), "percent_of_limit": row.percent} for row in rows(step)],
        "totals": asdict(totals(step)),
        "wall_ns": list(step.wall_ns),
        "launches": launches,
        "samples": [
            {
                "repeat": sample.repeat,
                "device_minus_host_ns": sample.clock.offset_ns,
                "stamps_ns": [list(stamps) for stamps in sample.stamps_ns],
            }
            for sample in step.samples
        ],
    }
