"""Device time of defaults, every family and model, through pytest-benchmark: `make bench`, saved under .benchmarks/.

pytest-benchmark asks a timer before and after a round. The timer here is the device's: it advances by the event time
of what ran, so its statistics, its JSON and its trend over saved runs are about the kernel and not about Python. What
runs is, of each model and family, the heaviest workload of decoding, of a prompt of 128, and of the towers. Saved runs
are of other hours: the two anchors in `extra_info` say how much of a trend is the machine's, and what is to be decided,
`make bench-compare` decides.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import kernels
from harness.answers import Build
from harness.candidate import Candidate
from harness.devices import DeviceChoice
from harness.journal import IDENTITY
from harness.measure import Meter
from harness.probe import ProbeResult, limit, probe
from harness.probe_kernels import ProbeBed, ProbeKernel
from harness.supervisor import Supervisor
from harness.timing import durations, invalid, stats
from kernels.plan import OVERLAP, Planned, model_names, plan

ROUNDS, LEAST_ROUNDS = 50, 5
SECONDS = 1.0  # of device time that one workload gets, within these
DECODE, PROMPT = 1, 128  # rows; a prompt of 1024 takes a second a call in the large models, and longer to prepare
ANCHOR_ROUNDS = 5  # in which the anchors run beside the workload


class DeviceClock:
    """Seconds that a device has spent in launches."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


CLOCK = DeviceClock()


def chosen() -> list[Planned]:
    """Of each model, family and phase the heaviest workload; one that two models share runs once."""
    found: dict[str, Planned] = {}
    for model in model_names():
        heaviest: dict[tuple[str, int | None], Planned] = {}
        for planned in plan(model, formats=["int4/g128"], m=(DECODE, PROMPT)):  # heaviest first
            rows = planned.workload.dims["M"]
            if rows not in OVERLAP:
                phase = rows if rows in (DECODE, PROMPT) else None  # a tower has rows of its own
                heaviest.setdefault((planned.workload.family, phase), planned)
        found |= {one.workload.key: one for one in heaviest.values() if one.workload.key not in found}
    return list(found.values())


@dataclass
class Anchors:
    """The two anchor kernels of a device, run beside a workload."""

    bed: ProbeBed
    kernels: dict[str, ProbeKernel]
    times_ns: dict[str, list[float]] = field(default_factory=dict)

    def run(self) -> None:
        for name, kernel in self.kernels.items():
            run = self.bed.run(kernel, samples=3)
            assert not invalid(run.samples_ns)
            self.times_ns.setdefault(name, []).append(float(np.median(durations(run.samples_ns))))

    def take(self) -> dict[str, float]:
        """Medians since the last time."""
        times_ns, self.times_ns = self.times_ns, {}
        return {name: float(np.median(times)) for name, times in times_ns.items()}


@pytest.fixture(scope="module")
def bench(device: DeviceChoice) -> Iterator[tuple[Meter, ProbeResult, Anchors]]:
    with Supervisor(device.command) as supervisor:
        probed = probe(supervisor, device.sheet)
        anchors = {"read": probed.read.kernel, "madd": probed.madd["fp32"].kernel}
        yield Meter(supervisor, device.sheet), probed, Anchors(ProbeBed(supervisor), anchors)


@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize("planned", chosen(), ids=lambda p: f"{p.workload.label} M={p.workload.dims['M']}")
def test_default(
    bench: tuple[Meter, ProbeResult, Anchors], device: DeviceChoice, planned: Planned, benchmark: BenchmarkFixture
) -> None:
    meter, probed, anchors = bench
    workload = planned.workload
    family = kernels.families()[workload.family]
    candidate = Candidate(family, workload, family.default(workload, device.sheet))
    meter.bench.store.turn()
    built = meter.build(candidate)
    assert isinstance(built, Build), built
    lane = meter.place(candidate)
    times_ns: list[float] = []

    def launch() -> None:
        run = meter.run(lane, warmup=0, samples=1)
        assert not invalid(run.samples_ns)
        times_ns.append(durations(run.samples_ns)[0])
        CLOCK.seconds += times_ns[-1] / 1e9

    launch()  # a long prefill takes a second, and needs fewer rounds to average over its noise
    rounds = max(LEAST_ROUNDS, min(ROUNDS, round(SECONDS / (times_ns[0] / 1e9))))
    every = max(1, rounds // ANCHOR_ROUNDS)

    def beside() -> None:
        if len(times_ns) % every == 0:
            anchors.run()

    before = meter.conditions(lane)
    benchmark.pedantic(launch, setup=beside, rounds=rounds, warmup_rounds=min(3, rounds // 2))
    found = stats(times_ns[-rounds:])
    least = limit(family.cost(workload), probed.rates, workload.dtypes.compute, device.sheet.cache_bytes)
    benchmark.extra_info.update(
        workload=workload.key,
        label=f"{workload.family} {workload.label} M={workload.dims['M']}",
        candidate=candidate.key,
        config=dict(candidate.config),
        device=device.slug,
        driver=device.description["driver_version"],
        description={name: device.description.get(name) for name in (*IDENTITY, "hints") if name in device.description},
        median_ns=found.median_ns,
        interval_ns=list(found.interval_ns),
        anchors_ns=anchors.take(),
        percent_of_limit=least.percent(found.median_ns),
        limited_by=least.limited_by,
        clock_mhz=[before["clock_mhz"], meter.conditions(lane)["clock_mhz"]],
        temperature_c=before["temperature_c"],
        conditions=before,
    )
    meter.drop(lane)
    meter.release(candidate)
