"""A profile as a Chrome trace, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

Format: "Trace Event Format" of Chromium, JSON object form. Only X (a slice), C (a counter) and M (a name) are used.
`ts` and `dur` are microseconds since the profile began, on the host's CLOCK_MONOTONIC: the device's stamps are moved
there by what `harness.clocks` found, whose uncertainty stands in "metadata".
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import KilnError
from harness.profile_nouns import Profile, Sample, StepProfile
from harness.shares import gaps_ns
from harness.telemetry import Recording

DEVICE, HOST, TELEMETRY = 1, 2, 3  # processes, as a trace calls its groups of tracks
KERNELS, GAPS, BESIDE = 1, 2, 3  # tracks of the device
PHASES, ENQUEUES, COMPILES = 1, 2, 3  # tracks of the host

_TRACKS = {
    DEVICE: {KERNELS: "kernels", GAPS: "gaps between launches", BESIDE: "kernels that overlap the one before"},
    HOST: {PHASES: "phases", ENQUEUES: "enqueue", COMPILES: "compile"},
    TELEMETRY: {},
}
Event = dict[str, Any]


def to_json(profile: Profile) -> dict[str, Any]:
    """The whole trace."""
    return {
        "traceEvents": [*_names(profile), *_events(profile)],
        "displayTimeUnit": "ns",
        "metadata": metadata(profile),
    }


def metadata(profile: Profile) -> dict[str, Any]:
    """What a reader must know to believe the trace."""
    clocks = [sample.clock for one in profile.steps for sample in one.samples]
    return {
        "program": "kiln: python -m harness profile",
        "device": profile.device,
        "device_name": profile.description["name"],
        "driver": profile.description["driver_version"],
        "runner": profile.runner,
        "model": profile.model,
        "origin_monotonic_ns": profile.start_ns,
        "clock": {
            **profile.clock,
            "uncertainty_ns": max(clock.uncertainty_ns for clock in clocks),
            "bounds_agree": all(clock.agrees for clock in clocks),
            "device_minus_host_ns": [min(c.offset_ns for c in clocks), max(c.offset_ns for c in clocks)],
        },
        "enqueuing": "the first launch of a step waits until all are enqueued, so that gaps are the device's own",
        "layers": {part: f"{layers.resident} of {layers.of} resident" for part, layers in profile.layers.items()},
        "telemetry": profile.recording_why or "recorded",
        "notes": list(profile.notes),
    }


def _names(profile: Profile) -> Iterator[Event]:
    titles = {
        DEVICE: f"device: {profile.description['name']}",
        HOST: f"host: {profile.runner}",
        TELEMETRY: "telemetry",
    }
    for pid, tracks in _TRACKS.items():
        if pid == TELEMETRY and profile.recording is None:
            continue
        yield {"ph": "M", "pid": pid, "tid": 0, "name": "process_name", "args": {"name": titles[pid]}}
        yield {"ph": "M", "pid": pid, "tid": 0, "name": "process_sort_index", "args": {"sort_index": pid}}
        for tid, name in tracks.items():
            yield {"ph": "M", "pid": pid, "tid": tid, "name": "thread_name", "args": {"name": name}}
            yield {"ph": "M", "pid": pid, "tid": tid, "name": "thread_sort_index", "args": {"sort_index": tid}}


def _events(profile: Profile) -> Iterator[Event]:
    time = _Axis(profile.start_ns)
    for span in profile.spans:
        yield time.slice(HOST, PHASES, span.name, "phase", span.start_ns, span.end_ns, {"repeat": span.repeat})
    for one in profile.compiles:
        end_ns = one.start_ns + round(one.build_ms * 1e6)
        args = {"program": one.what, "build_ms": one.build_ms, "from_binary": one.cached}
        yield time.slice(HOST, COMPILES, one.what, one.family, one.start_ns, end_ns, args)
    for step in profile.steps:
        for sample in step.samples:
            yield from _sample(time, step, sample)
    if profile.recording is not None:
        yield from _counters(time, profile.recording)


def _counters(time: _Axis, recording: Recording) -> Iterator[Event]:
    """A counter per signal. It shows a value from its `ts` on, so what tells of the time before begins there."""
    for signal in recording.signals:
        series = recording.series.get(signal.name)
        if series is None or not series.t_ns:
            continue
        starts = series.t_ns
        if signal.over == "interval":
            starts = (max(recording.start_ns, starts[0] - round(signal.period_ms * 1e6)), *starts[:-1])
        for t_ns, value in zip(starts, series.values, strict=True):
            yield time.counter(TELEMETRY, signal.name, t_ns, {signal.unit: value})


def _sample(time: _Axis, step: StepProfile, sample: Sample) -> Iterator[Event]:
    """One step: a slice for each launch, the gaps before them, how long each waited, how many waited."""
    waiting: list[tuple[int, int, int]] = []  # (time, what comes first at one time, change)
    latest = 0
    for launched, stamps, gap in zip(step.launched, sample.stamps_ns, gaps_ns(sample), strict=True):
        queued, submit, start, end = map(sample.clock.host_ns, stamps)
        workload = launched.call.workload
        limit = step.limits[workload.key]
        args = {
            "step": step.step.name,
            "repeat": sample.repeat,
            "call": launched.call.name,
            "layer": launched.call.layer,
            "variant": launched.variant,
            "entry": launched.entry,
            "workload": workload.key,
            "queued_to_submit_us": _us(submit - queued),
            "submit_to_start_us": _us(start - submit),
            "stamps_ns": list(stamps),
            "call_limit_us": _us(limit.ns),
            "limited_by": limit.limited_by,
        }
        track = BESIDE if start < latest else KERNELS
        yield time.slice(DEVICE, track, launched.call.label, launched.family, start, end, args)
        latest = max(latest, end)
        if gap > 0:
            before = {"before": launched.call.label, "family": launched.family}
            yield time.slice(DEVICE, GAPS, "gap", "gap", start - gap, start, before)
        yield time.counter(DEVICE, "queue delay (QUEUED to START)", start, {"us": _us(start - queued)})
        waiting += [(queued, 0, 1), (start, 1, -1)]
    for launched, (before_ns, after_ns) in zip(step.launched, sample.enqueued_ns, strict=False):
        yield time.slice(HOST, ENQUEUES, launched.call.label, "enqueue", before_ns, after_ns, {})
    depth = 0
    for t_ns, _, change in sorted(waiting):
        depth += change
        yield time.counter(DEVICE, "launches in the queue", t_ns, {"launches": depth})


class _Axis:
    """Host times as microseconds since the origin. Whole nanoseconds stay apart: a thousandth of a µs each."""

    def __init__(self, origin_ns: int) -> None:
        self._origin_ns = origin_ns

    def slice(
        self, pid: int, tid: int, name: str, category: str, start_ns: int, end_ns: int, args: Mapping[str, Any]
    ) -> Event:
        """Something that lasts; an end before the start lasts 0."""
        ts, dur = _us(start_ns - self._origin_ns), _us(max(0, end_ns - start_ns))
        return {"ph": "X", "pid": pid, "tid": tid, "name": name, "cat": category, "ts": ts, "dur": dur, "args": args}

    def counter(self, pid: int, name: str, t_ns: int, values: Mapping[str, float]) -> Event:
        """A value from now on."""
        return {"ph": "C", "pid": pid, "tid": 0, "name": name, "ts": _us(t_ns - self._origin_ns), "args": dict(values)}


def _us(ns: float) -> float:
    return round(ns / 1000, 3)


# ---------------------------------------------------------------- its file


def claim(path: Path) -> None:
    """Have a place for a trace or recording before minutes are spent on it. Raises KilnError where there is none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KilnError(f"{path} cannot be written: {error.strerror}; name another file") from error
    if path.is_dir():
        raise KilnError(f"{path} is a folder; name a file, as in {path / 'trace.json'}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise KilnError(f"{path} cannot be written: permission denied; name another file")


def write(path: Path, profile: Profile) -> None:
    """Write the trace whole or not at all. Raises KilnError."""
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(
            json.dumps(to_json(profile), ensure_ascii=False, allow_nan=False, separators=(",", ":")), "utf-8"
        )
        os.replace(part, path)
    except OSError as error:
        raise KilnError(f"the trace cannot be written to {path}: {error.strerror}") from error
