"""Each signal in each phase: the mean of every repeat, and over the repeats mean and spread (the study took five)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from harness.telemetry.nouns import Phase, Series, Signal, Spread


def summarise(
    signals: Sequence[Signal], series: Mapping[str, Series], phases: Sequence[Phase]
) -> dict[str, dict[str, Spread]]:
    """Phase → signal → spread. A signal that has no value in a phase is left out of it."""
    summary: dict[str, dict[str, Spread]] = {}
    for name in dict.fromkeys(phase.name for phase in phases):
        spreads = {}
        for signal in signals:
            if signal.name in series:
                means = [
                    mean
                    for parts in _repeats(phases, name)
                    if (mean := _mean_over(signal, series[signal.name], parts)) is not None
                ]
                if means:
                    spreads[signal.name] = Spread(fmean(means), stdev(means) if len(means) > 1 else None, len(means))
        summary[name] = spreads
    return summary


def _repeats(phases: Sequence[Phase], name: str) -> list[list[Phase]]:
    """The phases of a name by repeat: two encoders, one after the other, are one repeat's."""
    found: dict[int, list[Phase]] = {}
    for phase in phases:
        if phase.name == name:
            found.setdefault(phase.repeat, []).append(phase)
    return list(found.values())


def _mean_over(signal: Signal, series: Series, parts: Sequence[Phase]) -> float | None:
    """The mean over several phases, each weighing as long as it took; None where the signal told nothing in any."""
    told = [
        (mean, part.end_ns - part.start_ns) for part in parts if (mean := mean_in(signal, series, part)) is not None
    ]
    if len(told) < 2:
        return told[0][0] if told else None
    whole = sum(ns for _, ns in told)
    return sum(mean * ns for mean, ns in told) / whole if whole else fmean(mean for mean, _ in told)


def mean_in(signal: Signal, series: Series, phase: Phase) -> float | None:
    """A signal's mean during one phase, None where it told nothing then.

    Instants count alike; an interval counts by the part of it that lies in the phase.
    """
    weights, values = [], []
    previous = None
    for t, value in zip(series.t_ns, series.values, strict=True):
        if signal.over == "instant":
            weight = 1.0 if phase.start_ns <= t <= phase.end_ns else 0.0
        else:
            begin = max(previous if previous is not None else 0, t - round(2e6 * signal.period_ms))
            weight = float(max(0, min(t, phase.end_ns) - max(begin, phase.start_ns)))
        previous = t
        if weight > 0:
            weights.append(weight)
            values.append(value)
    if not values:
        return None
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
