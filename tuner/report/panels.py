"""Small figures, many of a kind: how each search converged, slices around its winner, telemetry with phases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.tables import time_text
from harness.telemetry import Recording, Signal
from kernels.spec import Verdict
from tuner.report.drawing import BAD, GOOD, INK, MUTED, RULE, figure, svg
from tuner.report.nouns import Attempt, Search
from tuner.report.rooflines import colour
from tuner.report.searches import Slice
from tuner.sampler import config_key

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDE, _HIGH = 2.9, 1.75  # inches of a panel


def best_so_far(search: Search) -> list[tuple[int, float]]:
    """(trial's number, fastest time up to it in ns), from the first success on: what convergence means."""
    found: list[tuple[int, float]] = []
    best = float("inf")
    for attempt in search.attempts:
        if attempt.ns is not None:
            best = min(best, attempt.ns)
        if best < float("inf"):
            found.append((attempt.number, best))
    return found


def convergence(search: Search, name: str, title: str) -> str:
    """Every trial's time by its number, the fastest so far as a line; what was given up or failed has its own mark."""
    made, (axes,) = figure(_WIDE, _HIGH)
    tint = colour(search.workload.family)
    ok = [a for a in search.attempts if a.ns is not None]
    given_up = [a for a in search.attempts if a.ns is None and a.at_least_ns]
    failed = [a for a in search.attempts if a.ns is None and not a.at_least_ns]
    line = best_so_far(search)
    if line:
        axes.step([n for n, _ in line], [ns for _, ns in line], where="post", color=tint, linewidth=1.4)
    axes.plot([a.number for a in ok], [a.ns or 0.0 for a in ok], "o", color=tint, markersize=2.6, alpha=0.6)
    bounds = [a.at_least_ns or 0.0 for a in given_up]
    axes.plot([a.number for a in given_up], bounds, "^", color=MUTED, markersize=3, mfc="none")
    default = next((a for a in ok if search.default and config_key(a.config) == config_key(search.default)), None)
    if default:
        axes.axhline(default.ns or 0, color=MUTED, linewidth=0.7, linestyle=":")
    for attempt in failed:
        axes.axvline(attempt.number, ymax=0.07, color=BAD, linewidth=1.2)
    _times(axes, [ns for a in search.attempts if (ns := a.ns or a.at_least_ns)])
    axes.set_xlim(0.5, max(len(search.attempts), 2) + 0.5)
    axes.set_xlabel("trial")
    axes.locator_params(axis="x", integer=True)
    counts = f"{len(ok)} timed, {len(given_up)} given up as slower, {len(failed)} failed"
    best = search.best
    about = f"{counts}; the fastest, trial {best.number}, took {time_text(best.ns)}" if best else counts
    return svg(made, name, title, about)


def _times(axes: Axes, values: Sequence[float]) -> None:
    """A time axis with units: linear where all lies within a factor of three, else logarithmic."""
    low, high = (min(values), max(values)) if values else (1.0, 2.0)
    if high > 3 * low:
        axes.set_yscale("log", subs=())
        if high < 200 * low:  # else powers of ten are enough
            axes.locator_params(axis="y", subs=(1, 2, 5))
        axes.yaxis.set_minor_formatter(lambda value, _: "")
    axes.set_ylim(low / 1.12, high * 1.12)
    axes.yaxis.set_major_formatter(lambda value, _: time_text(value) if value > 0 else "0")
    axes.grid(axis="y", color=RULE, linewidth=0.5)


def slice_panel(found: Slice, family: str, name: str, title: str) -> str:
    """Time by one parameter's value with the interval of each trial; the centre is filled."""
    made, (axes,) = figure(_WIDE, _HIGH)
    tint = colour(family)
    for place, (value, attempt) in enumerate(found.points):
        _slice_point(axes, place, attempt, value == found.centre, tint)
    axes.set_xticks(range(len(found.points)), [str(value) for value, _ in found.points])
    axes.set_xlim(-0.6, len(found.points) - 0.4)
    axes.set_xlabel(found.param)
    _times(axes, [ns for _, a in found.points for ns in (a.ns or a.at_least_ns, *(a.interval_ns or ())) if ns])
    return svg(made, name, title, slice_text(found))


def slice_text(found: Slice) -> str:
    """The slice in words."""

    def said(attempt: Attempt) -> str:
        if attempt.ns is not None:
            return time_text(attempt.ns)
        return f"≥ {time_text(attempt.at_least_ns)}" if attempt.at_least_ns else str(attempt.verdict)

    return f"{found.param}: " + ", ".join(f"{value} → {said(attempt)}" for value, attempt in found.points)


def _slice_point(axes: Axes, place: int, attempt: Attempt, centre: bool, tint: str) -> None:
    if attempt.ns is not None and attempt.interval_ns:
        axes.plot([place, place], attempt.interval_ns, color=tint, linewidth=1.4)
        axes.plot([place], [attempt.ns], "o", color=tint, markersize=5 if centre else 4, mfc=tint if centre else "none")
    elif attempt.verdict is Verdict.ABANDONED and attempt.at_least_ns:
        axes.plot([place], [attempt.at_least_ns], "^", color=MUTED, markersize=4, mfc="none")
    else:
        axes.axvline(place, ymax=0.07, color=BAD, linewidth=1.6)


def shown_signals(recording: Recording) -> list[Signal]:
    """Signals with values: those that were there to the end, and those that failed midway up to then."""
    return [signal for signal in recording.signals if signal.name in recording.series and _values(recording, signal)]


def _values(recording: Recording, signal: Signal) -> tuple[float, ...]:
    return recording.series[signal.name].values


def telemetry(recording: Recording, name: str, title: str) -> str:
    """Every signal that has values over time, one under the other, with the phases as bands across all of them."""
    shown = shown_signals(recording)
    made, rows = figure(8.6, 0.5 + 0.95 * len(shown), len(shown), sharex=True)

    def seconds(t_ns: int) -> float:
        return (t_ns - recording.start_ns) / 1e9

    for place, (axes, signal) in enumerate(zip(rows, shown, strict=True)):
        axes.plot([seconds(t) for t in recording.series[signal.name].t_ns], _values(recording, signal), color=INK, lw=1)
        axes.set_title(f"{signal.name} ({signal.unit})" if signal.unit else signal.name, loc="left", fontsize=8)
        axes.grid(axis="y", color=RULE, linewidth=0.5)
        axes.set_xlim(0, seconds(recording.end_ns))
        names: dict[str, int] = {}
        for phase in recording.phases:
            odd = names.setdefault(phase.name, len(names)) % 2
            start, end = seconds(phase.start_ns), seconds(phase.end_ns)
            axes.axvspan(start, end, color=GOOD if odd else MUTED, alpha=0.14, linewidth=0)
            if place == 0 and phase.repeat == 0:
                at = (start + end) / 2, 0.78 if odd else 1  # neighbours at two heights: short phases have long names
                axes.annotate(phase.name, at, xycoords=("data", "axes fraction"), va="top", ha="center", fontsize=7)
    rows[-1].set_xlabel("seconds")
    about = f"{seconds(recording.end_ns):.1f} s on {recording.platform}: " + "; ".join(
        f"{s.name} {min(_values(recording, s)):.4g} to {max(_values(recording, s)):.4g} {s.unit}" for s in shown
    )
    return svg(made, name, title, about)
