"""A device that exists only here: true times are known, and what a real one does to them is drawn from a seed.

Its clock wanders by a quarter, its memory has fast spells of some hundredths of a second, every launch has noise, and
one in fifty is hit by something else on the machine. It stands in for a meter in `harness.contest.compete`.
"""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.answers import Build, KernelLimits, Run, Sensors
from harness.candidate import Candidate
from harness.measure import Lane
from harness.probe import ProbeResult, Rate
from harness.probe_kernels import ProbeKernel
from kernels.spec import Config, DeviceSheet, Errors, Tolerance

ANCHOR_NS = 1e6
RIGHT = Errors(1e-9, 1e-4, Tolerance(1e-6, 1e-2), ("N=1",))


class Clock:
    """Device time, and what the device makes of a launch that should take `true_ns`."""

    def __init__(self, seed: int, noise: float = 0.02, drift: float = 0.25) -> None:
        self._rng = np.random.default_rng(seed)
        self.now_ns = float(self._rng.uniform(0, 60e9))
        self._noise, self._drift = noise, drift
        self._spell = (0.0, 0.0)  # begin and end of the next fast spell

    def launch(self, true_ns: float) -> tuple[int, int]:
        """Start and end stamps."""
        if self.now_ns > self._spell[1]:
            begin = self.now_ns + self._rng.exponential(400e6)
            self._spell = (begin, begin + self._rng.exponential(60e6))
        pace = 1 + self._drift * np.sin(2 * np.pi * self.now_ns / 20e9)
        pace *= 0.65 if self._spell[0] <= self.now_ns else 1.0
        pace *= float(np.exp(self._noise * self._rng.standard_normal()))
        pace *= self._rng.uniform(1.5, 4) if self._rng.random() < 0.02 else 1.0
        start, length = self.now_ns, true_ns * pace
        self.now_ns = start + length + 20_000
        return int(start), int(start + length)

    def run(self, true_ns: float, samples: int) -> Run:
        """So many launches, one after the other."""
        spans = [self.launch(true_ns) for _ in range(samples)]
        stamps = tuple(((start, start, start, end),) for start, end in spans)
        return Run(stamps, tuple(end - start for start, end in spans), False)


class SimulatedMeter:
    """What a contest asks of a meter. `true_ns` tells the time of a configuration at its workload."""

    def __init__(self, sheet: DeviceSheet, clock: Clock, true_ns: Callable[[Candidate], float]) -> None:
        self._clock, self._true_ns = clock, true_ns
        self.launched: dict[Candidate, int] = {}
        self.watts: float | None = None  # that it always draws; None: it has no energy counter
        supervisor = SimpleNamespace(
            generation=1,
            hello=lambda: None,
            recycle_if_due=lambda: None,
            settle=lambda: None,
            sensors=lambda: Sensors(self._sensors(), {}),
        )
        self.bench = SimpleNamespace(supervisor=supervisor, sheet=sheet, store=SimpleNamespace(turn=lambda: None))

    def _sensors(self) -> dict[str, float | None]:
        return {"gpu_energy_j": None if self.watts is None else self.watts * self._clock.now_ns / 1e9}

    def build(self, candidate: Candidate) -> Build:
        entries = {launch.entry: KernelLimits(256, 0, 0, 1) for launch in candidate.schedule.launches}
        return Build("", 1.0, entries)

    def place(self, candidate: Candidate) -> Lane:
        return Lane(candidate, 1, 0)  # type: ignore[arg-type]  # what is bound is the candidate itself

    def run(self, lane: Any, *, warmup: int, samples: int, **_: object) -> Run:
        self.launched[lane.bound] = self.launched.get(lane.bound, 0) + warmup + samples
        for _ in range(warmup):
            self._clock.launch(self._true_ns(lane.bound))
        return self._clock.run(self._true_ns(lane.bound), samples)

    def conditions(self, lane: Any) -> Mapping[str, Any]:
        return {"cold": True}

    def drop(self, lane: Any) -> None:
        pass

    def release(self, candidate: Candidate) -> None:
        pass


def simulate(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """Let contests take every candidate to be right and run their anchors on this clock."""
    bed = SimpleNamespace(
        run=lambda kernel, samples, warmup=0: clock.run(ANCHOR_NS, samples + warmup), drop=lambda: None
    )
    monkeypatch.setattr("harness.contest.check", lambda bench, candidate: RIGHT)
    monkeypatch.setattr("harness.anchors.ProbeBed", lambda supervisor: bed)


def probed() -> ProbeResult:
    """Figures nobody measured."""
    read = Rate(10.0, (9.0, 11.0), ProbeKernel("read_own", width=4, items=64, amount=1024))
    madd = Rate(20.0, (19.0, 21.0), ProbeKernel("madd", width=4, unroll=8, items=64, amount=256))
    return ProbeResult(read, read, {"fp32": madd}, 1000.0, 2000.0, 1, 1, True, ())


def by_config(times_us: Mapping[tuple[str, int, int], float]) -> Callable[[Candidate], float]:
    """True times in µs by (variant, WG, VEC)."""

    def true_ns(candidate: Candidate) -> float:
        config: Config = candidate.config
        return 1000 * times_us[config["variant"], config["WG"], config["VEC"]]

    return true_ns
