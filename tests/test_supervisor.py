import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from harness.errors import KilnError
from harness.runner.protocol import buffer_arg, launch
from harness.supervisor import Refused, Rotation, RunnerLost, Supervisor, Timeouts
from kernels.spec import Verdict

NATIVE = "slow"
FAKE = (sys.executable, str(Path(__file__).parent / "fake_runner.py"))
SLOW = ("hang", "endless")  # what only a deadline ends


@pytest.fixture
def fake():
    with Supervisor(FAKE, recycle_after=3) as supervisor:
        yield supervisor


def k(entry: str = "k"):
    return [launch(entry, [64], None, [buffer_arg("a")])]


def test_a_whole_conversation(fake):
    data = np.arange(1000, dtype=np.float32)
    assert fake.hello().device["name"] == "Paper tiger"
    fake.put("a", data.data)
    assert fake.have("a", 4000)
    assert not fake.have("a", 8)
    assert not fake.have("b", 8)
    assert np.array_equal(np.frombuffer(fake.get("a"), np.float32), data)
    assert fake.get("a", offset=4, size=4) == data[1:2].tobytes()
    fake.fill("b", 7, b"\xff\x01")
    assert fake.get("b") == b"\xff\x01\xff\x01\xff\x01\xff"
    build = fake.build("p", "kernel")
    assert (build.log, build.build_ms, build.kernels["k"].work_group) == ("fine", 1.5, 256)
    run = fake.run("p", k() + k(), samples=2)
    assert run.samples_ns == (((0, 1, 10, 110),) * 2, ((0, 1, 11, 111),) * 2)
    assert fake.run("p", k(), samples=4, profile=False, rotate=Rotation(("a",), 2)).wall_ns == (4000,)
    assert fake.sensors().why == {"rss_bytes": "EACCES"}
    fake.drop(["a"], ["p"])
    assert not fake.have("a", 4000)
    assert fake.generation == 1


def test_a_blob_larger_than_any_pipe(fake):
    data = np.random.default_rng(1).integers(0, 255, 5_000_000, dtype=np.uint8)
    fake.put("a", data.data)
    assert fake.get("a") == data.tobytes()


@pytest.mark.parametrize(
    ("words", "verdict", "said"),
    [
        ("exit 7", Verdict.CRASHED, "exit status 7"),
        ("exit 0", Verdict.CRASHED, "exit status 0"),
        ("kill SEGV", Verdict.CRASHED, "SIGSEGV"),
        ("kill ABRT", Verdict.CRASHED, "SIGABRT"),
        ("kill KILL", Verdict.CRASHED, "out of memory?"),
        ("truncate", Verdict.CRASHED, "exit status 0"),
        ("hang", Verdict.TIMEOUT, "0.3 s"),
        ("endless", Verdict.TIMEOUT, "0.3 s"),
        ("garbage", Verdict.WORKER_LOST, "printf says hello"),
        ("wrong id", Verdict.WORKER_LOST, "instead of"),
        ("no ok", Verdict.WORKER_LOST, "without ok"),
    ],
)
@pytest.mark.parametrize("op", ["build", "run"])
def test_every_death_has_its_verdict_and_the_next_call_works(fake, op, words, verdict, said):
    fake.put("a", b"1234")
    limit = 0.3 if words in SLOW else 60
    with pytest.raises(RunnerLost) as lost:
        fake.build("p", words, timeout_s=limit) if op == "build" else fake.run("p", k(words), timeout_s=limit)
    assert (lost.value.verdict, lost.value.op) == (verdict, op)
    assert said in lost.value.log
    assert op in lost.value.log
    assert not fake.have("a", 4)  # a fresh runner knows nothing,
    assert fake.generation == 2  # and this is how one can tell


def test_the_default_deadlines_hold():
    timeouts = Timeouts(build_s=0.3)
    with Supervisor(FAKE, timeouts=timeouts) as supervisor, pytest.raises(RunnerLost) as lost:
        supervisor.build("p", "hang")
    assert lost.value.verdict is Verdict.TIMEOUT


def test_a_closed_pipe_is_a_death(fake):
    with pytest.raises(RunnerLost, match="closed its output"):
        fake.build("p", "close")
    assert fake.hello().runner == "fake"


def test_the_last_words_are_kept_and_bounded(fake):
    for i in range(100):
        fake.build("p", f"say word {i}")
    with pytest.raises(RunnerLost) as lost:
        fake.build("p", "kill ABRT")
    assert lost.value.log.endswith("word 98\nword 99")
    assert "word 3\n" not in lost.value.log


def test_a_refusal_leaves_the_runner_alone_unless_it_is_fatal(fake):
    with pytest.raises(Refused) as refused:
        fake.run("p", k("strange kind"))
    assert refused.value.verdict is Verdict.WORKER_LOST
    assert fake.hello()
    assert fake.generation == 1
    with pytest.raises(Refused) as refused:
        fake.run("p", k("fatal"))
    assert (refused.value.verdict, refused.value.message) == (Verdict.LAUNCH_FAILED, "it did")
    assert fake.hello()
    assert fake.generation == 2


def test_death_between_requests_is_a_lost_worker(fake):
    fake.hello()
    os.kill(fake._child._process.pid, signal.SIGKILL)
    with pytest.raises(RunnerLost) as lost:
        fake.put("a", b"x" * 4_000_000)
    assert lost.value.verdict is Verdict.WORKER_LOST
    fake.put("a", b"x")


@pytest.mark.parametrize("words", ["leave", "leave slowly"])
def test_a_build_is_not_blamed_for_a_death_before_it_was_read(fake, words):
    fake.build("p", words)
    with pytest.raises(RunnerLost) as lost:
        fake.build("q", "x")
    assert lost.value.verdict is Verdict.WORKER_LOST
    assert fake.build("q", "x")


def test_recycling_waits_to_be_asked(fake):
    for i in range(5):
        fake.build(f"p{i}", "x")
    assert fake.generation == 1
    assert fake.recycle_if_due()
    assert not fake.recycle_if_due()
    fake.hello()
    assert fake.generation == 2


def test_a_program_that_is_resident_is_not_built_again(fake):
    for _ in range(9):
        fake.build("p", "x")
    assert not fake.recycle_if_due()
    for _ in range(2):
        fake.drop(programs=["p"])
        fake.build("p", "x")
    assert fake.recycle_if_due()


def test_half_an_answer_is_a_lost_worker(fake):
    fake.build("p", "x")
    fake.put("a", b"abcd")
    for ask in (lambda: fake.run("p", k("half")), lambda: fake.build("q", "half"), lambda: fake.get("a", 2, 4)):
        fake.put("a", b"abcd")
        with pytest.raises(RunnerLost, match="incomplete answer") as lost:
            ask()
        assert lost.value.verdict is Verdict.WORKER_LOST


def test_a_runner_that_never_says_hello():
    with Supervisor((*FAKE, "exit 1")) as supervisor, pytest.raises(RunnerLost) as lost:
        supervisor.hello()
    assert (lost.value.verdict, lost.value.op) == (Verdict.WORKER_LOST, "start")


def test_a_command_that_is_not_there():
    with Supervisor(("/nowhere/runner",)) as supervisor, pytest.raises(KilnError, match="does not start"):
        supervisor.hello()


def test_interrupting_a_request_ends_its_runner(fake):
    def stop(number, frame):
        raise KeyboardInterrupt

    fake.hello()
    process = fake._child._process
    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            fake.build("p", "hang")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert process.returncode is not None
    assert fake.build("p", "x")


def test_temporary_files_go_with_the_runner(fake):
    fake.hello()
    folder = fake._child._scratch.path
    assert folder.is_dir()
    fake.close()
    assert not folder.exists()


SOURCE = "__kernel void one(__global int *a) { a[get_global_id(0)] = 1; }"
ONES = [launch("one", [64], None, [buffer_arg("a")])]


@pytest.mark.parametrize(
    ("fault", "on", "verdict"),
    [
        ("exit", "build", Verdict.CRASHED),
        ("segfault", "build", Verdict.CRASHED),
        ("segfault", "run", Verdict.CRASHED),
        ("abort", "build", Verdict.CRASHED),
        ("truncate", "run", Verdict.CRASHED),
        ("garbage", "run", Verdict.WORKER_LOST),
        ("hang", "build", Verdict.TIMEOUT),
        ("hang", "run", Verdict.TIMEOUT),
    ],
)
def test_a_real_runner_dies_and_is_replaced(supervisor, fault, on, verdict):
    supervisor.fill("a", 256)
    supervisor.build("p", SOURCE)
    supervisor.inject(fault, on)
    before = supervisor.generation
    limit = 0.5 if fault == "hang" else 60
    with pytest.raises((RunnerLost, Refused)) as lost:  # Refused: a native one tells of its worker's garbage
        supervisor.build("q", SOURCE, timeout_s=limit) if on == "build" else supervisor.run("p", ONES, timeout_s=limit)
    assert lost.value.verdict is verdict
    supervisor.fill("a", 256)
    supervisor.build("p", SOURCE)
    supervisor.run("p", ONES)
    assert supervisor.get("a") == b"\1\0\0\0" * 64
    assert supervisor.generation == before + 1


@pytest.mark.parametrize(
    ("fault", "verdict", "fresh"),
    [("out_of_resources", Verdict.OUT_OF_RESOURCES, 0), ("poisoned", Verdict.LAUNCH_FAILED, 1)],
)
def test_a_real_runner_refuses(supervisor, fault, verdict, fresh):
    supervisor.build("p", SOURCE)
    before = supervisor.generation
    supervisor.inject(fault, "run")
    with pytest.raises(Refused) as refused:
        supervisor.run("p", [])
    assert refused.value.verdict is verdict
    supervisor.hello()
    assert supervisor.generation == before + fresh


def test_injected_lies_reach_the_host_unjudged(supervisor):
    supervisor.fill("a", 256, b"\xf0")
    supervisor.build("p", SOURCE)
    supervisor.inject("wrong_result", "get", after=2)
    assert supervisor.get("a", size=2) == b"\xf0\xf0"
    assert supervisor.get("a", size=2) == b"\x0f\x0f"
    supervisor.inject("backwards", "run")
    ((stamps,),) = supervisor.run("p", ONES).samples_ns
    assert stamps[3] < stamps[0]


HOST = """
import sys
from harness.supervisor import Supervisor
supervisor = Supervisor({command!r})
supervisor.hello()
print(supervisor._child._process.pid, flush=True)
supervisor.inject("hang", "build")
supervisor.build("p", "x")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PR_SET_PDEATHSIG is Linux's")
def test_a_busy_runner_dies_with_a_host_that_is_killed(device):
    host = subprocess.Popen([sys.executable, "-c", HOST.format(command=device.command)], stdout=subprocess.PIPE)
    with host:
        runner = int(host.stdout.readline())
        time.sleep(0.2)
        host.kill()
    give_up = time.monotonic() + 20
    while alive(runner) and time.monotonic() < give_up:
        time.sleep(0.02)
    assert not alive(runner)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
