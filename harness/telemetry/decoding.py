"""From texts as they come to series: parses, differences, combines a signal's files, and remembers what failed when."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite

from harness.telemetry.nouns import Over, Series, Signal
from harness.telemetry.parsers import GAUGES, METERS, Reading
from harness.telemetry.probing import Probed
from harness.telemetry.sources import COMBINE


@dataclass
class _Part:
    """One file of a signal."""

    constant: Reading
    earlier: tuple[int, Reading] | None = None  # of a meter: its last reading and when
    why: str | None = None  # its last reading failed


@dataclass
class _Track:
    """One signal as it grows."""

    probed: Probed
    period_ms: float
    parts: dict[int, _Part]  # by the index of the file
    first: int  # the indices that begin and end a round of its files
    last: int
    t_ns: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    round: list[float] = field(default_factory=list)
    failed_ns: int | None = None  # since when no file of it could be read
    failures: int = 0


class Decoder:
    """Takes texts by their file's index. Threads may feed it at once."""

    def __init__(self, probed: Sequence[Probed], period_ms: float) -> None:
        self.start_ns = 0  # reasons name the time since then
        self._lock = threading.Lock()
        self._unread = [signal for signal in probed if not signal.members]
        periods: dict[str, float] = {}
        commands: set[str] = set()
        for signal in probed:
            for member in signal.members:
                wanted = max(period_ms, signal.source.period_ms)
                periods[member.path] = min(wanted, periods.get(member.path, wanted))
                if signal.source.command:
                    commands.add(member.path)
        # (path or command, period in ms): a file that tells several signals is read once for all of them
        self.files = [item for item in periods.items() if item[0] not in commands]
        self.commands = [item for item in periods.items() if item[0] in commands]
        index = {path: at for at, (path, _) in enumerate((*self.files, *self.commands))}
        self._tracks = []
        for signal in probed:
            if signal.members:
                parts = {index[member.path]: _Part(member.constant) for member in signal.members}
                period = max(periods[member.path] for member in signal.members)
                self._tracks.append(_Track(signal, period, parts, min(parts), max(parts)))
        self._by_file: dict[int, list[_Track]] = {}
        for track in self._tracks:
            for at in track.parts:
                self._by_file.setdefault(at, []).append(track)

    def feed(self, t_ns: int, index: int, text: str | None, why: str | None) -> None:
        """One reading: its time on the host's clock, and its text or why there is none."""
        with self._lock:
            for track in self._by_file.get(index, ()):
                part = track.parts[index]
                if index == track.first:
                    track.round = []  # of a round whose end was dropped
                part.why = why or ("no text" if text is None else None)
                if text is not None:
                    try:
                        value = self._value(track, part, t_ns, text)
                    except (ValueError, ArithmeticError, LookupError, TypeError) as error:
                        part.why = f"not understood: {error}"
                    else:
                        if value is not None:
                            track.round.append(value)
                if index == track.last:
                    self._close_round(track, t_ns)

    def lose(self, t_ns: int, why: str) -> None:
        """What samples for this has gone: every signal of its files ends here."""
        with self._lock:
            for index in range(len(self.files)):
                for track in self._by_file.get(index, ()):
                    track.parts[index].why = why
                    track.parts[index].earlier = None
                    track.failed_ns = track.failed_ns or t_ns

    def signals(self) -> tuple[tuple[Signal, ...], dict[str, Series]]:
        """What has come so far; the signals that can be read first."""
        with self._lock:
            signals = [_signal(track, self.start_ns) for track in self._tracks]
            series = {t.probed.source.signal: Series(tuple(t.t_ns), tuple(t.values)) for t in self._tracks if t.values}
        for probed in self._unread:
            s = probed.source
            signals.append(Signal(s.signal, s.unit, s.where, s.period_ms, False, probed.why))
        return tuple(signals), series

    @staticmethod
    def _value(track: _Track, part: _Part, t_ns: int, text: str) -> float | None:
        source = track.probed.source
        if source.parser in GAUGES:
            value = GAUGES[source.parser](text)
        else:
            meter = METERS[source.parser]
            reading = meter.read(text)
            earlier, part.earlier = part.earlier, (t_ns, reading)
            if earlier is None:
                return None
            value = meter.between(earlier[1], reading, (t_ns - earlier[0]) / 1e9, part.constant)
        if value is not None and not isfinite(value):
            raise ValueError(f"{value} is no reading")
        return None if value is None else value * source.scale

    @staticmethod
    def _close_round(track: _Track, t_ns: int) -> None:
        if track.round:
            track.t_ns.append(t_ns)
            track.values.append(COMBINE[track.probed.source.combine](track.round))
            track.round = []
        if all(part.why for part in track.parts.values()):
            track.failures += 1
            track.failed_ns = track.failed_ns or t_ns
        else:
            track.failed_ns = None


def _signal(track: _Track, start_ns: int) -> Signal:
    source, probed = track.probed.source, track.probed
    why = None
    notes = [source.note] if source.note else []
    if track.failed_ns is not None:
        last = next((part.why for part in track.parts.values() if part.why), "")
        why = f"{last}, from {(track.failed_ns - start_ns) / 1e9:.1f} s on; what was read before is kept"
    elif not track.values:
        why = "read, but it told nothing in this time"
    if track.failures and track.failed_ns is None:
        notes.append(f"{track.failures} readings failed in between")
    gone = [part.why for part in track.parts.values() if part.why]
    if gone and track.failed_ns is None:
        notes.append(f"{len(gone)} of its {len(track.parts)} files cannot be read any more: {gone[0]}")
    over: Over = "interval" if source.parser in METERS or source.parser == "busy_total" else "instant"
    return Signal(
        source.signal, source.unit, probed.path, track.period_ms, why is None, why, over, "; ".join(notes) or None
    )
