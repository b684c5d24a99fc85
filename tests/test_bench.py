"""Device time of each family's default through pytest-benchmark: `make bench`, saved and compared by its own options.

pytest-benchmark asks a timer before and after a round. The timer here is the device's: it advances by the event time
of what ran, so its statistics, its JSON and its comparisons are about the kernel and not about Python.
"""

from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import kernels
from harness.answers import Build
from harness.candidate import Candidate
from harness.devices import DeviceChoice
from harness.measure import Meter
from harness.probe import ProbeResult, limit, probe
from harness.supervisor import Supervisor
from harness.timing import durations, invalid
from kernels.plan import Planned, plan

ROUNDS, LEAST_ROUNDS = 50, 5
SECONDS = 2.0  # of device time that one workload gets, within these


class DeviceClock:
    """Seconds that a device has spent in launches."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


CLOCK = DeviceClock()


@pytest.fixture(scope="module")
def bench(device: DeviceChoice) -> Iterator[tuple[Meter, ProbeResult]]:
    with Supervisor(device.command) as supervisor:
        yield Meter(supervisor, device.sheet), probe(supervisor, device.sheet)


@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize("planned", list(plan("gemma-2b")), ids=lambda p: f"{p.workload.label} {p.workload.weights}")
def test_default(
    bench: tuple[Meter, ProbeResult], device: DeviceChoice, planned: Planned, benchmark: BenchmarkFixture
) -> None:
    meter, probed = bench
    workload = planned.workload
    family = kernels.families()[workload.family]
    candidate = Candidate(family, workload, family.default(workload, device.sheet))
    meter.bench.store.turn()
    built = meter.build(candidate)
    assert isinstance(built, Build), built
    lane = meter.place(candidate)

    def launch() -> None:
        run = meter.run(lane, warmup=0, samples=1)
        assert not invalid(run.samples_ns)
        CLOCK.seconds += durations(run.samples_ns)[0] / 1e9

    before = CLOCK.seconds
    launch()  # a long prefill takes a second, and needs fewer rounds to average over its noise
    rounds = max(LEAST_ROUNDS, min(ROUNDS, round(SECONDS / (CLOCK.seconds - before))))
    benchmark.pedantic(launch, rounds=rounds, warmup_rounds=min(3, rounds // 2))
    least = limit(family.cost(workload), probed.rates, workload.dtypes.compute, device.sheet.cache_bytes)
    benchmark.extra_info.update(
        workload=workload.key,
        config=dict(candidate.config),
        device=device.slug,
        driver=device.description["driver_version"],
        percent_of_limit=least.percent(1e9 * benchmark.stats.stats.median),
        limited_by=least.limited_by,
        conditions=meter.conditions(lane),
    )
    meter.release(candidate)
