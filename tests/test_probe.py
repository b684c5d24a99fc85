"""harness/probe.py: limits by hand, a broken probe named, and a small probe of every device."""

import json

import pytest
import small_probe
import toy_family as toy

from harness import probe as probing
from harness.devices import DeviceChoice
from harness.errors import KilnError
from harness.probe import ProbeResult, Rate, Rates, broken, limit, probe
from harness.probe_kernels import ProbeBed, ProbeError, ProbeKernel
from harness.supervisor import Supervisor
from kernels.spec import Cost

RATES = Rates(read_per_ns=50.0, copy_per_ns=40.0, flops_per_ns={"fp32": 500.0}, launch_ns=2000.0)


def test_the_limit_is_the_largest_of_three() -> None:
    assert limit(Cost(flops=1e6, bytes=1e6), RATES) == probing.Limit(20_000.0, "bandwidth")
    assert limit(Cost(flops=1e8, bytes=1e6), RATES) == probing.Limit(200_000.0, "arithmetic")
    assert limit(Cost(flops=10, bytes=10), RATES) == probing.Limit(2000.0, "launch")


def test_what_is_written_moves_as_a_copy_does() -> None:
    copying = limit(Cost(flops=0, bytes=1e6, written=5e5), RATES)
    assert copying == probing.Limit(1e6 / 40, "bandwidth")
    # 200 kB pair up as a copy, 800 kB are read alone
    assert limit(Cost(flops=0, bytes=1e6, written=1e5), RATES).ns == pytest.approx(2e5 / 40 + 8e5 / 50)
    assert limit(Cost(flops=0, bytes=1e6, written=1e6), RATES).ns == pytest.approx(2e6 / 40)  # at half a copy's rate


def test_activations_in_the_cache_need_no_memory() -> None:
    job = Cost(flops=0, bytes=1e6, written=1e5, cold=8e5)
    assert limit(job, RATES, cache_bytes=200_000) == probing.Limit(8e5 / 50, "bandwidth")
    assert limit(job, RATES, cache_bytes=199_999).ns > 1e6 / 50
    assert limit(Cost(flops=10, bytes=1e6, written=5e5), RATES, cache_bytes=1 << 20).limited_by == "launch"


def test_an_unprobed_compute_type_leaves_arithmetic_out() -> None:
    assert limit(Cost(flops=1e9, bytes=1e6), RATES, compute="int8").limited_by == "bandwidth"


def test_beyond_the_limit_the_probe_is_broken() -> None:
    found = limit(Cost(flops=0, bytes=1e6), RATES)
    assert found.percent(40_000) == pytest.approx(50.0)
    assert broken(found.percent(40_000)) is None
    assert "125 % of the probed limit is impossible" in (broken(found.percent(16_000)) or "")


def test_work_of_the_kernels() -> None:
    assert ProbeKernel("read_own", width=4, items=8, amount=16).work == 8 * 16 * 16
    assert ProbeKernel("copy_own", width=4, items=8, amount=16).work == 2 * 8 * 16 * 16
    assert ProbeKernel("madd", width=4, unroll=8, items=2, amount=10).work == 2 * 4 * 8 * 2 * 10
    assert ProbeKernel("nothing").work == 0


def test_a_result_survives_json() -> None:
    rate = Rate(1.5, (1.0, 2.0), ProbeKernel("read_own", width=8))
    result = ProbeResult(rate, rate, {"fp32": rate, "fp16": rate}, 10.0, 20.0, 1, None, True, ("one failed",))
    assert ProbeResult.from_json(json.loads(json.dumps(result.to_json()))) == result
    assert result.rates.flops_per_ns == {"fp32": 1.5, "fp16": 1.5}


def test_ways_fit_the_device() -> None:
    sheet = toy.SHEET
    for kernel in probing._moving("read", sheet):
        assert kernel.local <= sheet.max_work_group
        assert kernel.buffer_bytes == probing.READ_BYTES["cpu"]
        assert kernel.buffer_bytes * kernel.copies > probing.COLD_BYTES
        assert kernel.amount % 4 == 0


# ---------------------------------------------------------------- on devices


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_probe.shrink(monkeypatch)


@pytest.mark.usefixtures("small")
def test_a_device_is_probed(device: DeviceChoice, supervisor: Supervisor) -> None:
    found = probe(supervisor, device.sheet)
    for rate in (found.read, found.copy, *found.madd.values()):
        low, high = rate.interval
        assert 0 < low <= rate.per_ns <= high
    assert ("fp16" in found.madd) == device.sheet.has("cl_khr_fp16") or found.failures
    assert found.launch_ns > 0
    assert found.launch_wall_ns > 0
    assert found.cold
    assert found.read.kernel.copies == 3


def test_probe_kernels_do_their_work_and_are_caught_when_they_do_not(supervisor: Supervisor) -> None:
    bed = ProbeBed(supervisor)
    for entry in ("read_own", "read_across", "copy_own", "copy_across", "madd"):
        for width in (1, 4):
            bed.verify(ProbeKernel(entry, width=width, items=64, local=16, amount=64))
    bed.verify(ProbeKernel("madd", width=4, unroll=16, items=64, local=16, amount=64))
    with pytest.raises(ProbeError, match="every lane should be 4"):
        bed.verify(ProbeKernel("madd", items=64, local=16, amount=2))  # two rounds do not converge yet
    bed.drop()


@pytest.mark.usefixtures("small")
def test_ways_that_crash_are_passed_over(device: DeviceChoice, supervisor: Supervisor) -> None:
    supervisor.hello()
    supervisor.inject("segfault", "run", after=2)
    found = probe(supervisor, device.sheet)
    assert any("crashed" in failure for failure in found.failures)
    assert found.read.per_ns > 0


@pytest.mark.usefixtures("small")
def test_no_way_at_all_is_a_sentence(
    device: DeviceChoice, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.probe_kernels.source", lambda: "not OpenCL C")
    monkeypatch.setattr(ProbeKernel, "program", "probe:broken")
    with pytest.raises(KilnError, match=f"no way to read memory works on {device.sheet.name}"):
        probe(supervisor, device.sheet)
