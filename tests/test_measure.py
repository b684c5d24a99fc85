"""harness/measure.py and harness/contest.py: every way a candidate can end is a verdict, and the meter lives on."""

import json
from dataclasses import replace
from statistics import median

import pytest
import toy_family as toy

from harness.answers import Build, KernelLimits
from harness.candidate import Candidate
from harness.contest import compete
from harness.devices import DeviceChoice
from harness.measure import (
    CACHES,
    MAX_COPIES,
    Meter,
    WallCheck,
    beyond_limits,
    cache_bytes,
    rotation_copies,
    sensor,
)
from harness.probe import ProbeResult, Rate
from harness.probe_kernels import ProbeKernel
from harness.racing import Rival
from harness.records import from_json, to_json
from harness.supervisor import Supervisor
from kernels.spec import Measurement, Verdict

MIB = 1 << 20


def candidate(n: int = 4096, *, driver_local: bool = False, **params: int) -> Candidate:
    return Candidate(toy.FAMILY, toy.workload(n), toy.PLAIN.config(**params), driver_local)


# ---------------------------------------------------------------- without a device


def test_rotation_exceeds_four_caches_and_never_a_gibibyte() -> None:
    sheet = toy.SHEET  # 1 MiB of cache, 4 GiB of memory
    assert rotation_copies(0, sheet) == 1
    assert rotation_copies(8 * MIB, sheet) == 1
    assert rotation_copies(3 * MIB, sheet) == 2
    for size in (100_000, 300_000, MIB):
        assert rotation_copies(size, sheet) * size > CACHES * sheet.cache_bytes
        assert (rotation_copies(size, sheet) - 1) * size <= CACHES * sheet.cache_bytes
    assert rotation_copies(4, sheet) == MAX_COPIES


def test_a_device_that_tells_no_cache_is_not_taken_to_have_none() -> None:
    silent = replace(toy.SHEET, cache_bytes=0)
    assert cache_bytes(silent) == cache_bytes(replace(silent, kind="gpu")) == 64 * MIB
    assert rotation_copies(100 * MIB, silent) == 3


def test_limits_are_checked_after_the_build() -> None:
    def build(work_group: int, local_bytes: int = 0) -> Build:
        limits = KernelLimits(work_group, local_bytes, 0, 1)
        return Build("", 1.0, {"multiply": limits, "add": limits})

    assert beyond_limits(candidate(WG=64), build(64), toy.SHEET) is None
    assert "work-groups up to 32, 64 are asked" in (beyond_limits(candidate(WG=64), build(32), toy.SHEET) or "")
    assert beyond_limits(candidate(WG=64, driver_local=True), build(32), toy.SHEET) is None
    assert "bytes of local memory" in (beyond_limits(candidate(), build(64, 1 << 20), toy.SHEET) or "")


def test_the_gpus_own_sensor_is_preferred_and_a_missing_one_is_none() -> None:
    assert sensor({"cpu_clock_mhz": 1.0, "gpu_clock_mhz": 2.0}, "clock_mhz") == 2.0
    assert sensor({"cpu_clock_mhz": 1.0, "gpu_clock_mhz": None}, "clock_mhz") == 1.0
    assert sensor({"cpu_clock_mhz": None}, "clock_mhz") is None


# ---------------------------------------------------------------- on devices


@pytest.fixture(scope="module")
def meter(device: DeviceChoice, supervisor: Supervisor) -> Meter:
    return Meter(supervisor, device.sheet)


def test_a_good_candidate_has_stats_errors_and_conditions(meter: Meter) -> None:
    found = meter.measure(candidate(1 << 16), budget_s=0.2)
    assert found.verdict is Verdict.OK, found.log
    assert found.stats is not None
    low, high = found.stats.interval_ns
    assert 0 < low <= found.stats.median_ns <= high
    assert found.stats.samples == len(found.samples_ns) >= 7
    assert found.errors is not None
    assert found.build_ms is not None
    assert set(found.kernel) == {"multiply", "add"}
    conditions = found.conditions
    assert conditions["queue"] == "profiling"
    assert conditions["rotation_bytes"] == conditions["rotation_copies"] * (4 << 16)
    for name in ("clock_mhz", "temperature_c"):
        assert conditions[name] is None or conditions[name] > 0
    if conditions["temperature_c"] is None:
        assert conditions["why"]


@pytest.mark.parametrize(
    ("params", "verdict", "words"),
    [
        ({"BUG": toy.WRONG_VALUE}, Verdict.WRONG_RESULT, "worst at [3]"),
        ({"BUG": toy.NO_BUILD}, Verdict.BUILD_FAILED, "unknown type name"),
        ({"WG": 100_000}, Verdict.OUT_OF_RESOURCES, "100000 are asked"),
    ],
)
def test_failures_of_a_candidate_are_verdicts(
    meter: Meter, params: dict[str, int], verdict: Verdict, words: str
) -> None:
    found = meter.measure(candidate(driver_local=False, **params), budget_s=0.1)
    assert found.verdict is verdict
    assert words in found.log
    assert found.stats is None


def test_a_slower_candidate_is_abandoned_with_a_lower_bound(meter: Meter) -> None:
    quick = meter.measure(candidate(64), budget_s=0.05)
    assert quick.stats is not None
    rival = Rival(candidate(64), quick.stats.median_ns, quick.stats.median_ns)
    found = meter.measure(candidate(1 << 22), budget_s=0.1, rival=rival)
    assert found.verdict is Verdict.ABANDONED
    assert found.at_least_ns is not None
    assert found.at_least_ns > 1
    assert found.stats is None


def test_a_candidate_is_judged_at_the_pace_of_the_reference(meter: Meter) -> None:
    """A device twenty times as slow as before: the candidate, the reference itself, is not to blame."""
    rival = candidate(1 << 16, WG=16)
    known = meter.measure(rival, budget_s=0.2)
    assert known.stats is not None
    assert known.pace == 1.0
    claimed_ns = known.stats.median_ns / 20
    found = meter.measure(rival, budget_s=0.05, rival=Rival(rival, claimed_ns, claimed_ns))
    assert found.verdict is Verdict.OK, found.log
    assert 5 < found.pace == found.conditions["pace"] < 80
    broken = candidate(1 << 16, BUG=toy.NO_BUILD)  # a reference that does not run any more says nothing
    assert meter.measure(rival, budget_s=0.05, rival=Rival(broken, 1e9, 1e9)).pace == 1.0


@pytest.mark.parametrize(("fault", "verdict"), [("exit", Verdict.CRASHED), ("segfault", Verdict.CRASHED)])
@pytest.mark.parametrize("op", ["build", "run"])
def test_a_dying_runner_is_a_verdict_and_the_next_candidate_runs(
    meter: Meter, fault: str, verdict: Verdict, op: str
) -> None:
    meter.bench.supervisor.inject(fault, op)
    found = meter.measure(candidate(), budget_s=0.05)
    assert found.verdict is verdict, found.log
    assert meter.measure(candidate(), budget_s=0.05).verdict is Verdict.OK


def test_a_hanging_kernel_is_a_timeout(meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.check._RUN_TIMEOUT_S", 1.0)
    meter.bench.supervisor.inject("hang", "run")
    found = meter.measure(candidate(), budget_s=0.05)
    assert found.verdict is Verdict.TIMEOUT
    assert "at N=1: the runner did not answer within 1 s" in found.log


def test_a_measurement_goes_into_a_journal_and_back(meter: Meter) -> None:
    found = meter.measure(candidate(), budget_s=0.05)
    assert from_json(json.loads(json.dumps(to_json(found)))) == found


def test_wall_time_of_a_batch_is_compared_with_events(meter: Meter) -> None:
    found = meter.wall_check(candidate(), event_ns=1e5)
    assert isinstance(found, WallCheck)
    assert found.wall_ns > 0
    assert found.gap == pytest.approx(found.wall_ns / 1e5 - 1)
    failed = meter.wall_check(candidate(BUG=toy.NO_BUILD), event_ns=1e5)
    assert isinstance(failed, Measurement)
    assert failed.verdict is Verdict.BUILD_FAILED


def test_the_drivers_own_local_size_is_a_candidate(meter: Meter) -> None:
    assert meter.measure(candidate(driver_local=True), budget_s=0.05).verdict is Verdict.OK


# ---------------------------------------------------------------- contests


def probed() -> ProbeResult:
    """Figures nobody measured, with small anchor kernels that every device runs."""
    read = Rate(10.0, (9.0, 11.0), ProbeKernel("read_own", width=4, items=64, amount=1024))
    madd = Rate(20.0, (19.0, 21.0), ProbeKernel("madd", width=4, unroll=8, items=64, amount=256))
    return ProbeResult(read, read, {"fp32": madd}, 1000.0, 2000.0, 1, 1, True, ())


def test_contestants_get_paired_rounds_and_anchors_run_beside_them(meter: Meter) -> None:
    entrants = [candidate(WG=16), candidate(WG=64), candidate(driver_local=True)]
    contest = compete(meter, entrants, probed(), rounds=8)
    assert contest.rounds == 8
    assert [c.candidate for c in contest.contestants] == entrants
    for contestant in contest.contestants:
        assert contestant.measurement.verdict is Verdict.OK, contestant.measurement.log
        assert len(contestant.measurement.samples_ns) == 8
        assert contestant.measurement.errors is not None
    assert {name: len(times) for name, times in contest.anchors_ns.items()} == {"read": 8, "madd": 8, "launch": 8}
    assert contest.rates.read_per_ns > 0
    assert contest.rates.read_per_ns != 10.0
    assert contest.rates.launch_ns == median(contest.anchors_ns["launch"]) > 0


def test_failing_contestants_leave_and_the_others_finish(meter: Meter) -> None:
    entrants = [candidate(BUG=toy.WRONG_VALUE), candidate(), candidate(BUG=toy.NO_BUILD)]
    contest = compete(meter, entrants, probed(), rounds=7)
    verdicts = [c.measurement.verdict for c in contest.contestants]
    assert verdicts == [Verdict.WRONG_RESULT, Verdict.OK, Verdict.BUILD_FAILED]
    assert len(contest.contestants[1].measurement.samples_ns) == 7


def test_one_that_fails_after_the_others_were_right_takes_nothing_of_theirs_along(meter: Meter) -> None:
    family = replace(toy.FAMILY, awkward=lambda workload: ())  # so that it fails on the shape that all run
    entrants = [candidate(), candidate(WG=64), candidate(BUG=toy.WRONG_VALUE)]
    contest = compete(meter, [replace(entrant, family=family) for entrant in entrants], probed(), rounds=7)
    verdicts = [c.measurement.verdict for c in contest.contestants]
    assert verdicts == [Verdict.OK, Verdict.OK, Verdict.WRONG_RESULT]


def test_a_contest_survives_its_runner(meter: Meter) -> None:
    meter.bench.supervisor.inject("segfault", "run", after=12)  # in the middle of the rounds
    contest = compete(meter, [candidate(WG=16), candidate(WG=64)], probed(), rounds=7)
    verdicts = sorted(str(c.measurement.verdict) for c in contest.contestants)
    assert verdicts in (["crashed", "ok"], ["ok", "ok"])  # an anchor may be the one that is hit
    assert contest.rounds == 7


def test_a_contest_without_a_right_candidate_ends(meter: Meter) -> None:
    contest = compete(meter, [candidate(BUG=toy.WRONG_VALUE)], probed())
    assert contest.rounds == 0
    assert contest.rates == probed().rates
