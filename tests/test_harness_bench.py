"""harness/bench.py: what its lines say, and that NumPy's time is one of the same job."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from small_probe import probe_once

import kernels
from harness import bench, cli, verbs
from harness.devices import DeviceChoice
from harness.measure import Meter
from harness.probe import Limit, ProbeResult
from harness.supervisor import Supervisor
from kernels.jobs import dtype_policy
from kernels.plan import Planned
from kernels.select import Level
from kernels.spec import Measurement, Stats, Verdict, Workload

WORKLOAD = Workload(
    "gemv_decode", {"M": 1, "N": 64, "K": 256}, dtype_policy("fp16", "fp32", "int4/g128"), "int4/g128", label="m ffn"
)


def took(ns: float) -> Measurement:
    return Measurement(Verdict.OK, stats=Stats(ns, (ns, ns), 7), samples_ns=(ns,))


def line(default: Measurement, tuned: Measurement | None = None) -> bench.Line:
    return bench.Line(WORKLOAD, default, tuned, Level.EXACT, "one", Limit(500.0, "bandwidth"), 9e3)


def test_percent_is_of_what_an_engine_would_run() -> None:
    assert line(took(1000)).percent == 50
    assert line(took(1000), took(625)).percent == 80
    assert line(took(1000), Measurement.failed(Verdict.CRASHED, "")).percent is None


def test_a_row_names_failures_and_never_invents_a_time() -> None:
    family, job, stored, default, tuned, percent, limited, numpy, level = bench.row(line(took(1000)))
    assert (family, stored, default, tuned) == ("gemv_decode", "int4/g128", "1 µs", None)
    assert (job, percent, limited, numpy, level) == ("ffn  M=1 N=64 K=256", "50 %", "bandwidth", "9 µs", "exact")
    failed = line(Measurement.failed(Verdict.WRONG_RESULT, "at M=1"), took(1000))
    assert bench.row(failed)[3] == "wrong_result"


def test_numpy_is_timed_without_its_first_call() -> None:
    calls: list[float] = []

    def call() -> None:
        calls.append(0.2 if not calls else 0.002)
        time.sleep(calls[-1])

    assert 1e6 < bench.numpy_ns(call) < 1e8
    assert len(calls) > 2


@pytest.fixture(scope="module")
def ready(device: DeviceChoice) -> Iterator[tuple[Meter, ProbeResult]]:
    with Supervisor(device.command) as supervisor:
        yield Meter(supervisor, device.sheet), probe_once(supervisor, device.sheet)


def test_every_family_has_a_line_on_a_device(device: DeviceChoice, ready: tuple[Meter, ProbeResult]) -> None:
    covered = [family.cover()[0] for family in kernels.families().values()]
    planned = [Planned(workload, 1, 1.0, 1.0) for workload in covered]
    found = list(bench.lines(*_first(ready, device), planned, []))
    assert {one.workload.family for one in found} == set(kernels.families())
    for one in found:
        assert one.default.stats, (one.workload.key, one.default.log)
        assert one.tuned is None
        assert one.level is Level.BUILT_IN
        assert one.numpy_ns
    assert "no document for this device" in bench.text(device, found)
    assert len(bench.to_json(device, found)["lines"]) == len(found)


def _first(ready: tuple[Meter, ProbeResult], device: DeviceChoice) -> tuple[Meter, DeviceChoice, ProbeResult]:
    meter, probed = ready
    return meter, device, probed


@pytest.mark.parametrize(
    ("after", "left", "code", "said"),
    [
        (KeyboardInterrupt(), took(1000), 130, "interrupted"),
        (
            None,
            Measurement.failed(Verdict.WRONG_RESULT, "at M=1"),
            1,
            "1 of 1 workloads have a configuration that failed",
        ),
    ],
)
def test_what_is_measured_is_shown_whatever_comes_after(
    after: BaseException | None,
    left: Measurement,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    choice = SimpleNamespace(
        slug="paper", command=(), link=None, sheet=None, description={"name": "Paper", "platform_name": "None"}
    )

    def lines(*_: object) -> Iterator[bench.Line]:
        yield line(left)
        if after:
            raise after

    monkeypatch.setattr(verbs.bench, "plan", lambda *_, **__: [Planned(WORKLOAD, 1, 1, 1.0)])
    monkeypatch.setattr(verbs.bench, "resolve", lambda name: choice)
    monkeypatch.setattr(verbs.bench, "fit", lambda *_: nullcontext(choice))
    monkeypatch.setattr(verbs.bench, "Supervisor", lambda *_, **__: nullcontext())
    monkeypatch.setattr(verbs.bench, "Meter", lambda *_: None)
    monkeypatch.setattr(verbs.bench, "probe", lambda *_: None)
    monkeypatch.setattr(verbs.bench.common, "documents", lambda *_: [])
    monkeypatch.setattr(bench, "lines", lines)
    assert cli.main(["bench"]) == code
    told = capsys.readouterr()
    assert "ffn  M=1 N=64 K=256" in told.out
    assert said in told.err
