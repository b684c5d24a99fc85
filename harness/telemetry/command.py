"""`python -m harness telemetry`: samples for a while, or for as long as another program tells phases on stdin."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from math import isfinite
from pathlib import Path
from statistics import fmean

from harness.devices import resolve
from harness.errors import KilnError, UsageError
from harness.supervisor import Supervisor
from harness.tables import MISSING, json_text, table
from harness.telemetry.nouns import Recording, Signal
from harness.telemetry.recorder import Recorder, start

SHORTEST_MS = 100.0
_POLL_S = 1.0
_COSTLY_PERCENT = 1.0
_Marks = queue.SimpleQueue[tuple[int, str | None]]  # when a line came, and the line; None where they have ended


def record(
    device: str | None, seconds: float, period_ms: float, lines: Iterable[str] | None = None
) -> tuple[Recording, bool]:
    """Sample a device (None: this machine, no OpenCL needed) for a time, or until `lines` end if that comes first.

    A line begins the phase that it names and ends the one before; an empty line only ends it. A phase that
    begins again is the next repeat. Gives the recording, and whether Ctrl-C ended it. Raises UsageError, DeviceMissing
    and KilnError.
    """
    if not (isfinite(seconds) and seconds > 0):
        raise UsageError("--seconds is a time above 0")
    if not (isfinite(period_ms) and period_ms >= SHORTEST_MS):
        raise UsageError(f"--period-ms is {SHORTEST_MS:g} at least: no source is read more often")
    marks = _heard(lines)  # from now on: a line that comes while the device is looked for is stamped then
    if device is None:
        return _sampled(start(period_ms=period_ms), seconds, marks)
    choice = resolve(device)
    if choice.python_runner:
        return _sampled(start(choice, period_ms=period_ms), seconds, marks)
    with Supervisor(choice.command, link=choice.link) as supervisor:
        return _sampled(start(choice, supervisor, period_ms=period_ms), seconds, marks)


def _sampled(recorder: Recorder, seconds: float, marks: _Marks) -> tuple[Recording, bool]:
    end = time.monotonic() + seconds
    phases = _Marked(recorder)
    interrupted = True
    with contextlib.suppress(KeyboardInterrupt):
        while (left := end - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                t_ns, name = marks.get(timeout=min(_POLL_S, left))
                if name is None:
                    break
                phases.begin(name, t_ns)
                continue
            recorder.poll()
        interrupted = False
    phases.begin("", time.monotonic_ns())
    return recorder.stop(), interrupted


def stdin_lines() -> Iterator[str]:
    """Lines as they come; unbuffered, because a thread that waits in a buffer of Python's stops its exit. Raises
    UsageError."""
    try:
        raw = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115  (stdin stays open)
    except OSError as error:
        raise UsageError("--mark reads phases from stdin, which is closed") from error
    return (line.decode(errors="replace") for line in raw)


def _heard(lines: Iterable[str] | None) -> _Marks:
    """Lines with the time at which each comes; a thread waits for them."""
    marks: _Marks = queue.SimpleQueue()

    def listen(lines: Iterable[str]) -> None:
        for line in lines:
            marks.put((time.monotonic_ns(), line.strip()))
        marks.put((time.monotonic_ns(), None))

    if lines is not None:
        threading.Thread(target=listen, args=(lines,), daemon=True).start()
    return marks


class _Marked:
    """Phases as they are told, one after the other."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._now: tuple[str, int] | None = None  # name, since when
        self._repeats: dict[str, int] = {}

    def begin(self, name: str, now: int) -> None:
        if self._now is not None:
            before, since = self._now
            repeat = self._repeats.get(before, 0)
            self._recorder.mark(before, repeat, since, now)
            self._repeats[before] = repeat + 1
        self._now = (name, now) if name else None


def save(recording: Recording, path: Path) -> None:
    """Write a recording. Raises KilnError with a sentence."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        part.write_text(json_text(recording.to_json()) + "\n", "utf-8")
        part.replace(path)
    except OSError as error:
        raise KilnError(f"{path} cannot be written: {error.strerror}") from error


def text(recording: Recording) -> str:
    """A recording as tables."""
    seconds = (recording.end_ns - recording.start_ns) / 1e9
    lines = [f"{recording.platform}, {seconds:.1f} s"]
    here = [signal for signal in recording.signals if signal.name in recording.series]
    rows = [_row(recording, signal) for signal in here]
    lines.append(table(["signal", "unit", "every", "values", "mean", "least", "most", "read from"], rows))
    if lacking := [signal for signal in recording.signals if not signal.available]:
        lines += ["", "unavailable:"]
        lines += [f"  {signal.name} ({signal.path}): {signal.why}" for signal in lacking]
    for name, spreads in recording.summary.items():
        means = [
            [signal, f"{one.mean:.4g}", MISSING if one.sd is None else f"±{one.sd:.3g}", str(one.repeats)]
            for signal, one in spreads.items()
        ]
        lines += ["", table([name, "mean", "sd", "repeats"], means) if means else f"{name}: no reading fell into it"]
    lines += ["", *_notes(recording)]
    return "\n".join(lines)


def _row(recording: Recording, signal: Signal) -> list[str]:
    values = recording.series[signal.name].values
    figures = [f"{figure:.5g}" for figure in (fmean(values), min(values), max(values))]
    return [signal.name, signal.unit, f"{signal.period_ms:g} ms", str(len(values)), *figures, signal.path]


def _notes(recording: Recording) -> list[str]:
    percent = recording.sampler_percent
    notes = [f"sampling: {recording.sampler_why}" if percent is None else f"sampling took {percent:.2g} % of one core"]
    if percent is not None and percent > _COSTLY_PERCENT:
        notes[0] += ": more than it should; try a longer --period-ms"
    notes += [f"note: {signal.name}: {signal.note}" for signal in recording.signals if signal.note]
    notes += [f"note: {note}" for note in recording.notes]
    if recording.clock_uncertainty_ns is not None:
        notes.append(f"the device's clock is known to ±{recording.clock_uncertainty_ns / 1e6:.2g} ms")
    used = recording.energy
    if used is None:
        return [*notes, f"energy: {recording.energy_why}"]
    query = used["per_query_j"]
    spread = "" if query["sd"] is None else f" ± {query['sd']:.3g}"
    notes.append(f"energy of a query: {query['mean']:.4g}{spread} J in {query['repeats']} repeats ({used['of']})")
    if used["queries_left_out"]:
        notes.append(f"{used['queries_left_out']} more have a phase without a reading: no energy of theirs is known")
    if used["battery"] is not None:
        hours = used["battery"]["hours_at_one_query_a_minute"]
        notes.append(f"a full battery lasts {hours:.3g} h at one query a minute")
    else:
        notes.append(f"battery life: {used['battery_why']}")
    return notes
