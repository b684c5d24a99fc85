"""The whole way on a real device and a small model: request → trials → finals → document; interruption and resuming."""

import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from once import shared
from small_probe import probe_once
from test_doctor import DESCRIPTION

import harness.measure
import tuner.opening
import tuner.run
import tuner.study
from harness.candidate import Candidate
from harness.devices import DeviceChoice, sheet_from
from harness.errors import KilnError
from harness.records import read
from kernels import tuned
from kernels.jobs import dtype_policy
from kernels.plan import Plan, Planned
from kernels.spec import Measurement, Verdict, Workload
from tuner.request import Request
from tuner.run import journal_path, tune
from tuner.search import Stop

SIZES = ((512, 512), (96, 1024))


def small_plan(*_: object, **__: object) -> Plan:
    """Two GEMVs that take microseconds."""
    items = []
    for n, k in SIZES:
        job = Workload("gemv_decode", {"M": 1, "N": n, "K": k}, dtype_policy("fp16", "fp32", "int4/g128"), "int4/g128")
        items.append(Planned(job, 18, n * k // 2, 0.5))
    return Plan(tuple(items), ())


@pytest.fixture
def request_on(
    device: DeviceChoice, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Request:
    # Each test's first candidates are those of the others too: they are compiled once in a run of the tests.
    binaries = shared(tmp_path_factory) / "binaries"
    keeping = replace(device, command=(*device.command, "--binaries", str(binaries)))
    monkeypatch.setattr(tuner.run, "plan", small_plan)
    monkeypatch.setattr(tuner.run, "resolve", lambda name: keeping)
    monkeypatch.setattr(tuner.opening, "probe", probe_once)
    monkeypatch.setattr(tuner.study, "Stop", lambda seconds: Stop(math.inf))  # on any machine alike: trials end it
    return Request(
        device.slug,
        ("small",),
        ("gemv_decode",),
        ("int4/g128",),
        "fp16",
        "fp32",
        "fp16",
        3.0,
        tmp_path / "a.json",
        0,
        "kiln",
        False,
        trials=3,
    )


def test_the_greeting_tells_what_a_sheet_has_wrong_and_what_it_denies() -> None:
    old = {"version": "OpenCL 2.0 Adreno(TM) 640", "driver_version": "OpenCL 2.0 QUALCOMM Compiler E031.37.12"}
    described = DESCRIPTION | old | {"max_work_group_size": 512}
    said: list[str] = []
    choice = DeviceChoice("adreno640", (), described, sheet_from(described))
    journal = SimpleNamespace(damaged=(), lost=())
    tuner.run._greet(journal, choice, said.append)  # type: ignore[arg-type]
    assert said[0] == "tuning for adreno640: QUALCOMM Adreno(TM) (QUALCOMM Snapdragon(TM))"
    assert "note: the sheet says limits.max_work_group 1,024, the device 512: the device's holds" in said
    left_out = "note: some configurations are left out for what this compiler gets wrong"
    assert f"{left_out}: subgroup reductions crash the compiler" in said


@pytest.fixture
def one_device(device: DeviceChoice) -> None:
    if device.slug != "cpu-pocl":
        pytest.skip("one device is enough: what is tested is the host")


def trials(out: Path) -> list[tuple[str, str]]:
    records = read(journal_path(out)).records
    return [(r["workload"], str(sorted(r["config"].items()))) for r in records if r["kind"] == "trial"]


def test_from_request_to_document_and_again(request_on: Request) -> None:
    said: list[str] = []
    decided = tune(request_on, said.append)
    assert request_on.out is not None
    config = tuned.load(request_on.out)
    entries = {entry.id: entry for entry in config.kernels["gemv_decode"].entries}
    assert len(decided) == len(SIZES)
    for decision in decided:
        n, k = decision.workload.dims["N"], decision.workload.dims["K"]
        entry = entries[f"int4-g128-fp32-m1-n{n}-k{k}"]
        assert entry.config == dict(decision.winner.finalist.candidate.config)
        assert entry.stats is not None
        assert entry.stats.default_ns is not None
        assert entry.stats.median_ns <= entry.stats.default_ns  # the winner beats the default or is it
        assert entry.verification is not None
        assert entry.verification.value <= entry.verification.limit
    layouts = {tuple(entry.layout.items()) for entry in entries.values()}
    assert len(layouts) == 1  # one packed copy for the model

    first = trials(request_on.out)
    assert len(first) == len(set(first)) == 3 * len(SIZES)
    tune(request_on, said.append)
    again = trials(request_on.out)
    assert again[: len(first)] == first
    assert len(again) == len(set(again))  # nothing is repeated
    assert any("finished trials there are not repeated" in line for line in said)


def test_a_run_builds_ahead_where_the_device_allows_it(
    request_on: Request, device: DeviceChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1})
    monkeypatch.setattr(tuner.run, "resolve", lambda name: replace(device, python_runner=True))
    tune(request_on, lambda text: None)
    assert request_on.out is not None
    records = read(journal_path(request_on.out)).records
    (came_to,) = [record for record in records if record.get("text") == "ahead"]
    # Whoever is quicker, its seeds are known: the second and the third are built or at least begun before they are due.
    assert came_to["built"] > 0
    assert came_to["ready"] + came_to["waited"] > 0
    assert all(record["ahead"] for record in records if record["kind"] == "begin")
    found = [record["measurement"] for record in records if record["kind"] == "trial"]
    assert any(one.get("build_cached") for one in found)


@pytest.mark.usefixtures("one_device")
def test_one_program_can_be_made_to_serve_all_sizes(request_on: Request) -> None:
    """The default is among the candidates, so there is always one that does; what it costs is measured."""
    said: list[str] = []
    decided = tune(replace(request_on, max_programs=1), said.append)
    assert request_on.out is not None
    section = tuned.load(request_on.out).kernels["gemv_decode"]
    served = [entry for entry in section.entries if entry.bucket]
    assert len({(entry.source_sha256, entry.build_options) for entry in served}) == 1
    assert section.programs is not None
    assert (section.programs.most, section.programs.count) == (1, 1)
    assert section.programs.worst_regret == max(decision.regret or 0 for decision in decided)
    assert all(decision.regret is not None for decision in decided)
    assert len({tuple(entry.layout.items()) for entry in section.entries}) == 1


def test_an_entry_is_held_to_the_limits_of_all_shapes_it_was_checked_on(
    request_on: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A right int8 result on one output of 64 products errs by more than 6912 × 256 may: the document is legal yet."""
    policy = dtype_policy("fp16", "int8", "int4/g64")
    job = Workload("gemv_decode", {"M": 1, "N": 256, "K": 6912}, policy, "int4/g64")
    monkeypatch.setattr(tuner.run, "plan", lambda *_, **__: Plan((Planned(job, 1, 1, 1.0),), ()))
    tune(request_on, lambda text: None)
    assert request_on.out is not None
    for entry in tuned.load(request_on.out).kernels["gemv_decode"].entries:
        assert entry.verification is not None
        assert entry.verification.value <= entry.verification.limit


@pytest.mark.usefixtures("one_device")
def test_ctrl_c_keeps_what_is_finished_and_blames_nobody(request_on: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    assert request_on.out is not None
    real, calls = harness.measure.Meter.measure, 0

    def interrupted(self: harness.measure.Meter, *args: object, **named: object) -> Measurement:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return real(self, *args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(harness.measure.Meter, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tune(request_on, lambda text: None)
    assert len(trials(request_on.out)) == 2
    assert not request_on.out.exists()
    monkeypatch.setattr(harness.measure.Meter, "measure", real)
    said: list[str] = []
    tune(request_on, said.append)
    assert any("2 finished trials" in line for line in said)
    said.clear()
    monkeypatch.setattr(tuner.run, "plan", lambda *_, **__: Plan(small_plan().items[1:], ()))
    tune(request_on, said.append)  # a part of the study: the rest is not claimed
    assert any("others are of no use to this run" in line for line in said)
    verdicts = [r["measurement"]["verdict"] for r in read(journal_path(request_on.out)).records if r["kind"] == "trial"]
    assert "crashed" not in verdicts


@pytest.mark.usefixtures("one_device")
def test_candidates_that_kill_the_runner_are_verdicts(request_on: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    """The study goes on and the log is kept."""
    real, faults = harness.measure.Meter.measure, iter(("segfault", "exit"))

    def hostile(self: harness.measure.Meter, candidate: Candidate, **named: object) -> Measurement:
        default = candidate.family.default(candidate.workload, self.bench.sheet)
        if dict(candidate.config) != dict(default) and (fault := next(faults, None)):
            self.bench.supervisor.inject(fault, on="build")
        return real(self, candidate, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(harness.measure.Meter, "measure", hostile)
    tune(request_on, lambda text: None)
    assert request_on.out is not None
    records = [r for r in read(journal_path(request_on.out)).records if r["kind"] == "trial"]
    crashed = [r for r in records if r["measurement"]["verdict"] == Verdict.CRASHED]
    assert len(crashed) == 2
    assert all(r["measurement"]["log"] for r in crashed)
    assert records[-1]["measurement"]["verdict"] != Verdict.CRASHED


@pytest.mark.usefixtures("one_device")
def test_when_everything_fails_the_device_or_reference_is_suspected(
    request_on: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = Measurement.failed(Verdict.WRONG_RESULT, "M=1: nmse 3 above 1e-6")
    monkeypatch.setattr(harness.measure.Meter, "measure", lambda *args, **named: wrong)
    with pytest.raises(KilnError, match="suspect the device or the reference"):
        tune(request_on, lambda text: None)


KILLED = """
import sys
from pathlib import Path
import test_run, tuner.opening, tuner.run
from small_probe import probe_once
from tuner.request import Request
tuner.run.plan = test_run.small_plan
tuner.opening.probe = probe_once
out = Path(sys.argv[1])
policy = ("fp16", "fp32", "fp16")
asked = Request("cpu", ("small",), ("gemv_decode",), ("int4/g128",), *policy, 600.0, out, 0, "kiln", False)
tuner.run.tune(asked, print)
"""


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_kill_9_loses_nothing_finished(device: DeviceChoice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if device.slug != "cpu-pocl":
        pytest.skip("one device is enough: what is tested is the host")
    out, root = tmp_path / "a.json", Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(out)]
    process = subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: journal_path(out).exists() and len(trials(out)) >= 4)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = trials(out)
    monkeypatch.setattr(tuner.run, "plan", small_plan)
    said: list[str] = []
    asked = Request(
        "cpu", ("small",), ("gemv_decode",), ("int4/g128",), "fp16", "fp32", "fp16", 1.0, out, 0, "kiln", False
    )
    tune(asked, said.append)
    after = trials(out)
    assert after[: len(before)] == before
    assert len(after) == len(set(after))
    assert any(f"{len(before)} finished trials" in line for line in said)
    assert tuned.load(out).evidence == "measured"
