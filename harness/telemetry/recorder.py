"""Starts, marks and ends a recording."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from harness.answers import Refused, RunnerLost
from harness.devices import DeviceChoice
from harness.errors import KilnError
from harness.runner.watching import Sampler, read_text
from harness.supervisor import Supervisor
from harness.telemetry.decoding import Decoder
from harness.telemetry.energy import energy, with_power
from harness.telemetry.feeds import Feed, LocalFeed, RunnerFeed
from harness.telemetry.nouns import Phase, Recording
from harness.telemetry.probing import Shell, probe
from harness.telemetry.summary import summarise


class Recorder:
    """A recording that is being made. Its owner's thread marks phases; `stop` gives the recording."""

    def __init__(self, feed: Feed, shell: Shell | None, period_ms: float, platform: str | None) -> None:
        self._feed = feed
        self._phases: list[Phase] = []
        self._recording: Recording | None = None
        self._platform, probed = probe(feed.read, shell, platform)
        self._decoder = Decoder(probed, period_ms)
        self._start_ns = self._decoder.start_ns = time.monotonic_ns()
        feed.begin(self._decoder)
        first = len(self._decoder.files)
        self._commands: Sampler | None = None
        if shell is not None and self._decoder.commands:
            self._commands = Sampler(
                self._decoder.commands,
                lambda t_ns, index, text, why: self._decoder.feed(t_ns, first + index, text, why),
                read=shell,
                pin=False,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    @contextmanager
    def phase(self, name: str, repeat: int = 0) -> Iterator[None]:
        """What runs inside is this phase of the `repeat`-th query; one that raises is marked too."""
        start_ns = time.monotonic_ns()
        try:
            yield
        finally:
            self.mark(name, repeat, start_ns, time.monotonic_ns())

    def mark(self, name: str, repeat: int, start_ns: int, end_ns: int) -> None:
        """A phase whose times (of CLOCK_MONOTONIC) are known already. Raises ValueError for one that ends first."""
        if end_ns < start_ns:
            raise ValueError(f"the phase {name} ends before it starts")
        self._phases.append(Phase(name, repeat, start_ns, end_ns))
        self.poll()

    def poll(self) -> None:
        """Fetch what a device has gathered. Call it every few minutes where no phase ends so often."""
        if self._recording is None:
            self._feed.poll()

    def stop(self) -> Recording:
        """End the sampling and give the recording."""
        if self._recording is None:
            if self._commands is not None:
                self._commands.stop()
            self._feed.end()
            end_ns = time.monotonic_ns()
            signals, series = with_power(*self._decoder.signals())
            phases = tuple(sorted(self._phases, key=lambda phase: (phase.start_ns, phase.end_ns)))
            used, why = energy(signals, series, phases)
            percent, sampler_why = self._feed.cost()
            self._recording = Recording(
                platform=self._platform.name,
                start_ns=self._start_ns,
                end_ns=end_ns,
                signals=signals,
                series=series,
                phases=phases,
                summary=summarise(signals, series, phases),
                sampler_percent=percent,
                sampler_why=sampler_why,
                energy=used,
                energy_why=why,
                clock_uncertainty_ns=self._feed.uncertainty_ns,
                notes=tuple(self._feed.notes),
            )
        return self._recording


def start(
    device: DeviceChoice | None = None,
    supervisor: Supervisor | None = None,
    *,
    period_ms: float = 100,
    shell: Shell | None = None,
    read: Callable[[str], str] = read_text,
    platform: str | None = None,
) -> Recorder:
    """Begin to record a device's signals; this machine's where `device` is None or behind the Python runner.

    A device behind another runner is sampled by that runner (`supervisor`, which the caller goes on using in the same
    thread). `shell` runs a command on the device, for what only dumpsys tells; a phone on a cable brings its own.
    `period_ms` is the shortest period of any signal. `read` reads one of this machine's files. Raises KilnError where
    the device's runner fails; one that cannot sample leaves every signal unavailable.
    """
    if shell is None and device is not None and device.link:
        shell = device.link.shell
    if device is None or device.python_runner:
        return Recorder(LocalFeed(read), shell, period_ms, platform)
    if supervisor is None:
        raise KilnError(f"{device.slug} is sampled by its runner, which is not running")
    try:
        return Recorder(RunnerFeed(supervisor), shell, period_ms, platform)
    except (Refused, RunnerLost) as failure:
        raise KilnError(f"the sensors of {device.slug} cannot be looked at: {failure}") from failure
