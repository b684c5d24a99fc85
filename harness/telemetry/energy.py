"""Power and energy, only from what was really read: a battery that discharges, or the processor's own counters.

As the OnePlus 13R study has it: power is the battery's current times its voltage, a query's energy its mean power times
its length, and battery life is at one query a minute (a query that takes longer follows the last one at once). Nothing
is added for the time between queries, for which the study gives no power. Its own battery lives do not all follow from
its other figures: 11 W over 82 s a query empty 5,000 mAh (19 Wh) in less than two hours, not in "roughly eight".
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from statistics import fmean, stdev
from typing import Any

from harness.telemetry.nouns import Phase, Series, Signal, Spread
from harness.telemetry.summary import mean_in

BATTERY, PROCESSOR = "battery_power_w", "cpu_power_w"
_CURRENT, _VOLTAGE, _DISCHARGING = "battery_current_ma", "battery_voltage_v", "battery_discharging"
_CABLE = "cable_online"
_CAPACITY = "battery_capacity_mah"
_PLAUSIBLE_MAH = (200.0, 200_000.0)  # from a watch's to a laptop's; some drivers that tell mA may tell mAh too
_OF = {BATTERY: "the whole device, from its battery", PROCESSOR: "the processor's packages, from their own counters"}
_APART = ("load", "idle")  # phases that are no part of a query: a model is loaded once for many
_MINUTE_S = 60.0
# A phone that is measured draws more than 20 mA and less than 20 A, so that a recording's largest reading tells its
# unit: the kernel's rule is µA, OPPO's, OnePlus's and Samsung's drivers tell mA.
_UNIT_BORDER = 20_000

Signals = tuple[tuple[Signal, ...], Mapping[str, Series]]


def with_power(signals: Sequence[Signal], series: Mapping[str, Series]) -> Signals:
    """The same signals, the battery's current in mA, and its power in W as one more where that can be told."""
    signals, series = _settled(signals, series)
    path = f"{_CURRENT} × {_VOLTAGE}"
    power, why = _power(signals, series)
    period = max((s.period_ms for s in signals if s.name in (_CURRENT, _VOLTAGE)), default=0.0)
    note = None if why or _CABLE in series else "that no cable was on is the battery's own word: nothing else tells it"
    signals = (*signals, Signal(BATTERY, "W", path, period, why is None, why, note=note))
    return signals, series if power is None else {**series, BATTERY: power}


def _settled(signals: Sequence[Signal], series: Mapping[str, Series]) -> Signals:
    """The current's unit, told by all of its readings together: one at a time would jump at the border."""
    raw = series.get(_CURRENT)
    if raw is None:
        return tuple(signals), series
    largest = max(map(abs, raw.values))
    if largest == 0:
        why = "it tells 0 all the time, which no device draws: its driver does not measure"
        changed = {name: one for name, one in series.items() if name != _CURRENT}
        return tuple(replace(s, available=False, why=why) if s.name == _CURRENT else s for s in signals), changed
    unit, scale = ("µA", 1e-3) if largest >= _UNIT_BORDER else ("mA", 1.0)
    note = f"read as {unit}: its largest reading is {largest:.0f}; the sign is the driver's own"
    told = tuple(replace(s, note=note) if s.name == _CURRENT else s for s in signals)
    return told, {**series, _CURRENT: Series(raw.t_ns, tuple(scale * value for value in raw.values))}


def _power(signals: Sequence[Signal], series: Mapping[str, Series]) -> tuple[Series | None, str | None]:
    """Current times voltage in W, or why there is none."""
    for name in (_CURRENT, _VOLTAGE, _DISCHARGING):
        if name not in series:
            reason = next((s.why for s in signals if s.name == name), None)
            return None, f"no {name}" + (f" ({reason})" if reason else "")
    if min(series[_DISCHARGING].values) < 1 or (_CABLE in series and max(series[_CABLE].values) > 0):
        return None, "the device was on a cable: its battery's current is then not what it uses"
    current, voltage = series[_CURRENT], series[_VOLTAGE]
    if min(current.values) < 0 < max(current.values):
        return None, "the battery's current changes its sign while it is said to discharge"
    watts = [
        abs(value) / 1000 * voltage.values[max(0, bisect_right(voltage.t_ns, t) - 1)]
        for t, value in zip(current.t_ns, current.values, strict=True)
    ]
    return Series(current.t_ns, tuple(watts)), None


def energy(
    signals: Sequence[Signal], series: Mapping[str, Series], phases: Sequence[Phase]
) -> tuple[dict[str, Any] | None, str | None]:
    """Energy per query and phase in J, and battery life; or None and why not."""
    of = {signal.name: signal for signal in signals if signal.name in _OF}
    power = next((of[name] for name in _OF if name in of and of[name].available and name in series), None)
    if power is None:
        told = "; ".join(f"{name}: {of[name].why if name in of else 'no such signal here'}" for name in _OF)
        return None, f"no power was read ({told})"
    per_phase: dict[str, list[float]] = {}
    queries: dict[int, list[tuple[Phase, float | None]]] = {}
    for phase in phases:
        watts = mean_in(power, series[power.name], phase)
        joules = None if watts is None else watts * (phase.end_ns - phase.start_ns) / 1e9
        if joules is not None:
            per_phase.setdefault(phase.name, []).append(joules)
        if phase.name not in _APART:
            queries.setdefault(phase.repeat, []).append((phase, joules))
    if not queries:
        return None, "no phase of a query was marked, so that no query has an energy"
    whole = [parts for parts in queries.values() if all(joules is not None for _, joules in parts)]
    if not whole:
        return None, f"no query is long enough: {power.name} is read every {power.period_ms:.0f} ms"
    query_j = [sum(joules or 0.0 for _, joules in parts) for parts in whole]
    query_s = [sum(phase.end_ns - phase.start_ns for phase, _ in parts) / 1e9 for parts in whole]
    battery, battery_why = _battery(power.name, series, fmean(query_j), fmean(query_s))
    return {
        "of": _OF[power.name],
        "signal": power.name,
        "per_query_j": asdict(_spread(query_j)),
        "per_query_s": asdict(_spread(query_s)),
        "per_phase_j": {name: asdict(_spread(values)) for name, values in per_phase.items()},
        "queries_left_out": len(queries) - len(whole),
        "battery": battery,
        "battery_why": battery_why,
    }, None


def battery_hours(capacity_mah: float, voltage_v: float, query_j: float, query_s: float) -> float:
    """How long a full battery lasts at one query a minute, or one after the other where a query takes longer."""
    watts = query_j / max(_MINUTE_S, query_s)
    return capacity_mah / 1000 * voltage_v / watts


def _battery(
    power: str, series: Mapping[str, Series], query_j: float, query_s: float
) -> tuple[dict[str, float] | None, str | None]:
    if power != BATTERY:
        return None, "the power is the processor's alone"
    if not (_CAPACITY in series and _VOLTAGE in series):
        return None, f"no {_CAPACITY if _CAPACITY not in series else _VOLTAGE}"
    capacity, voltage = series[_CAPACITY].values[-1], fmean(series[_VOLTAGE].values)
    if not _PLAUSIBLE_MAH[0] <= capacity <= _PLAUSIBLE_MAH[1]:
        return None, f"a battery of {capacity:g} mAh is none: its driver tells the charge in another unit than µAh"
    return {
        "capacity_mah": capacity,
        "voltage_v": voltage,
        "queries_a_charge": capacity * 3.6 * voltage / query_j,
        "hours_at_one_query_a_minute": battery_hours(capacity, voltage, query_j, query_s),
    }, None


def _spread(values: Sequence[float]) -> Spread:
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None, len(values))
