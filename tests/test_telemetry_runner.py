"""Telemetry of a device that a runner is at: the protocol's optional requests, and what resets of a GPU mean."""

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import SHEET
from sensor_tree import COMMON, EACCES, KGSL, PHONE, Tree

from harness import telemetry
from harness.devices import DeviceChoice
from harness.errors import KilnError
from harness.measure import Meter
from harness.runner.kept import Kept
from harness.runner.protocol import buffer_arg, launch
from harness.runner.sensors import counting_resets
from harness.runner.server import RequestError
from harness.supervisor import RunnerLost, Supervisor
from harness.telemetry.feeds import RunnerFeed
from kernels.spec import Verdict

TESTS = Path(__file__).parent
FAKE = (sys.executable, str(TESTS / "fake_runner.py"))


def choice(supervisor: Supervisor) -> DeviceChoice:
    return DeviceChoice("phone", FAKE, supervisor.hello().device, SHEET)


@pytest.fixture
def phone(tmp_path: Path) -> Iterator[tuple[Tree, Supervisor]]:
    tree = Tree(tmp_path, PHONE)
    with Supervisor((sys.executable, str(TESTS / "sensing_runner.py"), "usual", str(tmp_path))) as supervisor:
        yield tree, supervisor


# ---------------------------------------------------------------- the host's side


def test_a_phone_is_sampled_by_its_runner_on_the_host_s_clock(phone: tuple[Tree, Supervisor]) -> None:
    tree, supervisor = phone
    recorder = telemetry.start(choice(supervisor), supervisor)
    with recorder.phase("token-eval"):
        tree.write(f"{KGSL}/gpuclk", "231000000\n")
    recording = recorder.stop()
    assert recording.platform == "android-adreno"
    clock = recording.series["gpu_clock_mhz"]
    assert set(clock.values) == {231.0}
    assert recording.clock_uncertainty_ns is not None
    slack = recording.clock_uncertainty_ns + 25_000_000
    assert all(recording.start_ns - slack <= t <= recording.end_ns + slack for t in clock.t_ns)
    assert recording.sampler_percent is not None
    assert recording.energy is None or recording.energy["of"]
    assert telemetry.from_json(recording.to_json()) == recording


def test_a_file_that_vanishes_on_the_phone_ends_its_signal(phone: tuple[Tree, Supervisor]) -> None:
    tree, supervisor = phone
    recorder = telemetry.start(choice(supervisor), supervisor)
    recorder.poll()
    tree.remove(f"{KGSL}/temp")
    recording = recorder.stop()
    signal = recording.signal("gpu_temperature_c")
    assert signal is not None
    assert not signal.available
    assert (signal.why or "").startswith("ENOENT: No such file or directory, from ")
    assert 47.1 in recording.series["gpu_temperature_c"].values


def test_what_the_phone_dropped_is_told(phone: tuple[Tree, Supervisor]) -> None:
    tree, supervisor = phone
    recorder = telemetry.start(choice(supervisor), supervisor)
    tree.write("/dropped", "7")
    assert "7 samples were dropped on the device" in recorder.stop().notes[0]


def test_a_runner_that_was_replaced_goes_on_sampling_and_the_gap_is_noted(phone: tuple[Tree, Supervisor]) -> None:
    _, supervisor = phone
    recorder = telemetry.start(choice(supervisor), supervisor)
    supervisor.restart()
    supervisor.hello()
    recording = recorder.stop()
    assert recording.series["gpu_clock_mhz"].values
    assert any("the runner was replaced" in note for note in recording.notes)
    signal = recording.signal("gpu_clock_mhz")
    assert signal is not None
    assert signal.available


@pytest.mark.parametrize("samples", ["[[1.5, 0, null]]", '[["a", 0, "x"]]', "[[1, 0, 5]]", "[[1, 0]]", "7"])
def test_a_runner_that_answers_nonsense_loses_its_life_and_not_the_recording(
    phone: tuple[Tree, Supervisor], samples: str
) -> None:
    tree, supervisor = phone
    recorder = telemetry.start(choice(supervisor), supervisor)
    tree.write("/samples", samples)
    recording = recorder.stop()
    assert "gave an incomplete answer" in recording.notes[0]
    signal = recording.signal("gpu_clock_mhz")
    assert signal is not None
    assert "the runner was lost" in (signal.why or "")


def test_a_runner_without_the_requests_leaves_every_signal_unavailable_and_says_so() -> None:
    with Supervisor(FAKE) as supervisor:
        recording = telemetry.start(choice(supervisor), supervisor).stop()
    assert not recording.series
    assert {s.why for s in recording.signals if s.name == "cpu_percent"} == {"the device's runner has no `read`"}
    assert recording.sampler_percent is None
    assert recording.sampler_why


def test_a_runner_that_dies_of_being_asked_is_one_sentence(tmp_path: Path) -> None:
    Tree(tmp_path, {"/short": "x"})
    said = "the sensors of phone cannot be looked at: the runner gave an incomplete"
    command = (sys.executable, str(TESTS / "sensing_runner.py"), "usual", str(tmp_path))
    with Supervisor(command) as supervisor, pytest.raises(KilnError, match=said):
        telemetry.start(choice(supervisor), supervisor)


def test_a_device_behind_a_runner_needs_that_runner() -> None:
    with Supervisor(FAKE) as supervisor, pytest.raises(KilnError, match="sampled by its runner"):
        telemetry.start(choice(supervisor))


# ---------------------------------------------------------------- the Python runner's side


def test_kept_samples_are_drained_and_the_oldest_give_way(tmp_path: Path) -> None:
    tree = Tree(tmp_path, COMMON)
    tree.refused = {"/proc/meminfo": EACCES}
    kept = Kept(tree.read, room=64 + len(COMMON["/proc/stat"]) + 64 + 1)
    read, _ = kept.read({"paths": ["/proc/meminfo", "/sys/class/thermal/", "/nowhere"]}, [])
    assert read["texts"] == [None, "thermal_zone0\nthermal_zone1\nthermal_zone7\n", None]
    assert read["why"] == ["EACCES: Permission denied", None, "ENOENT: No such file or directory"]
    files = [{"path": "/proc/stat", "period_ms": 3_600_000}, {"path": "/proc/meminfo", "period_ms": 3_600_000}]
    kept.watch({"files": files}, [])
    answer = drained(kept, 2)
    assert [(index, text) for _, index, text in answer["samples"]] == [(0, COMMON["/proc/stat"]), (1, None)]
    assert answer["why"] == {"1": "EACCES: Permission denied"}
    assert (answer["dropped"], kept.watched({}, [])[0]["samples"]) == (0, [])
    kept.watch({"files": [{"path": "/proc/stat", "period_ms": 1}]}, [])
    while not (answer := kept.watched({}, [])[0])["dropped"]:
        time.sleep(0.05)
    assert len(answer["samples"]) <= 2
    kept.watch({"files": []}, [])
    assert kept.watched({}, [])[0]["samples"] == []
    for wrong in ({"files": [{"path": "x", "period_ms": 0}]}, {"files": [{"path": "x", "period_ms": float("nan")}]}):
        with pytest.raises(RequestError, match="1 ms at least"):
            kept.watch(wrong, [])
    with pytest.raises(RequestError, match="a list of texts"):
        kept.read({"paths": "/proc/stat"}, [])


def drained(kept: Kept, count: int) -> dict:
    """The answer of `watched` when `count` samples are there, put together from as many as it takes."""
    samples: list = []
    while True:
        answer, _ = kept.watched({}, [])
        samples += answer["samples"]
        if len(samples) >= count:
            return {**answer, "samples": samples}
        time.sleep(0.01)


def test_the_python_runner_samples_this_machine(supervisor: Supervisor) -> None:
    assert supervisor.hello().ops == ("read", "watch")
    feed = RunnerFeed(supervisor)
    (stat, why), (nothing, reason) = feed.read(["/proc/stat", "/nowhere/at/all"])
    assert stat is not None
    assert stat.startswith("cpu")
    assert (why, nothing, reason) == (None, None, "ENOENT: No such file or directory")
    recorder = telemetry.start(replace(choice(supervisor), python_runner=False), supervisor)
    recorder.poll()
    recording = recorder.stop()
    assert recording.signal("memory_used_mb") is not None
    assert recording.sampler_why is None or not recording.series


# ---------------------------------------------------------------- resets


def test_a_run_tells_the_resets_in_between_where_they_can_be_counted(tmp_path: Path) -> None:
    count = tmp_path / "reset_count"

    def run(frame, blobs):
        if count.exists():
            count.write_text(f"{int(count.read_text()) + frame['more']}\n")
        return {"wall_ns": [1]}, []

    handler = counting_resets(run, count)
    assert handler({"more": 1}, []) == ({"wall_ns": [1]}, [])
    count.write_text("5\n")
    assert handler({"more": 0}, []) == ({"wall_ns": [1], "resets": 0}, [])
    assert handler({"more": 2}, []) == ({"wall_ns": [1], "resets": 2}, [])


@pytest.mark.parametrize(("resets", "said"), [("1", "saw the GPU reset once"), ("3", "saw the GPU reset 3 times")])
def test_a_run_in_which_the_gpu_was_reset_is_a_crash(resets: str, said: str) -> None:
    with Supervisor(FAKE) as supervisor:
        supervisor.build("p", "kernel")
        run = [launch(f"resets {resets}", [64], None, [buffer_arg("a")])]
        with pytest.raises(RunnerLost) as lost:
            supervisor.run("p", run)
        assert (lost.value.verdict, lost.value.op) == (Verdict.CRASHED, "run")
        assert said in lost.value.log
        failed = Meter(supervisor, SHEET).failed(lost.value)
        assert (failed.verdict, failed.stats) == (Verdict.CRASHED, None)
        fine = [launch("resets 0", [64], None, [buffer_arg("a")])]
        assert supervisor.run("p", fine).wall_ns
        assert supervisor.generation == 2
        strange = [launch('resets "x"', [64], None, [buffer_arg("a")])]
        with pytest.raises(RunnerLost) as lost:
            supervisor.run("p", strange)
        assert lost.value.verdict is Verdict.WORKER_LOST
