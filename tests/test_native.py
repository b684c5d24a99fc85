"""The native runner by itself, on an OpenCL library of paper: its worker's deaths, its link, its sensors, its words."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import native
import numpy as np
import pytest
from test_protocol import play

from harness.child import Child
from harness.devices import resolve
from harness.errors import DeviceMissing
from harness.runner.protocol import buffer_arg, i32_arg, image_arg, launch
from harness.supervisor import Refused, Rotation, RunnerLost, Supervisor, Timeouts
from kernels.spec import Verdict

pytestmark = pytest.mark.skipif(bool(native.ABSENT), reason=native.ABSENT)
NATIVE = "always"
COUNT = "__kernel void count(__global int *a, int by) {}"
DEATHS = "__kernel void crash(int n) {} __kernel void hang(int n) {} __kernel void talk(int n) {}"
SOON_S = 20.0  # what takes milliseconds has ended by then


@pytest.fixture(scope="session")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fake library."""
    return native.fake_opencl(tmp_path_factory.mktemp("paper"))


@pytest.fixture
def command(paper: Path) -> tuple[str, ...]:
    return (str(native.RUNNER), "--library", str(paper), "--inject")


@pytest.fixture
def runner(command: tuple[str, ...]) -> Iterator[Supervisor]:
    with Supervisor(command, timeouts=Timeouts(build_s=20, run_s=20)) as supervisor:
        yield supervisor


def one(entry: str, *args):
    return [launch(entry, [1], None, args)]


def pid(runner: Supervisor) -> int:
    assert runner._child is not None
    return runner._child._process.pid


def children(parent: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def gone(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def soon(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + SOON_S
    while not true() and time.monotonic() < end:
        time.sleep(0.005)
    return true()


@pytest.mark.parametrize("icd", [False, True], ids=["exported", "icd table"])
def test_the_golden_transcript_without_a_driver(tmp_path: Path, icd: bool) -> None:
    """A library that exports OpenCL, and one that has nothing but the table of its platform."""
    play((str(native.RUNNER), "--library", str(native.fake_opencl(tmp_path, icd=icd))))


def test_what_it_declares_of_opencl_is_what_khronos_says() -> None:
    if not Path("/usr/include/CL/cl_icd.h").exists():
        pytest.skip("Khronos's headers are not here: sudo apt-get install -y opencl-headers")
    source = native.ROOT / "tests" / "native" / "headers.c"
    flags = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"]
    done = subprocess.run(["cc", *flags, str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- the driver's deaths


@pytest.mark.parametrize("op", ["build", "run"])
def test_a_crash_of_the_driver_is_a_message(runner: Supervisor, op: str) -> None:
    runner.fill("a", 64)
    runner.build("p", DEATHS)
    first = pid(runner)
    with pytest.raises(RunnerLost) as lost:
        runner.build("q", "crash the compiler") if op == "build" else runner.run("p", one("crash", i32_arg(1)))
    assert (lost.value.verdict, lost.value.op) == (Verdict.CRASHED, op)
    assert f"the worker was killed by SIGSEGV during {op}" in lost.value.log
    assert ("it said last:\nLLVM ERROR: no such thing" in lost.value.log) == (op == "build")
    assert not runner.alive
    assert not runner.have("a", 64)  # a fresh worker knows nothing,
    assert (runner.generation, pid(runner)) == (2, first)  # and it is the same runner that started it
    runner.fill("a", 64)
    runner.build("count", COUNT)
    runner.run("count", [launch("count", [16], None, [buffer_arg("a"), i32_arg(3)])])
    assert runner.get("a") == (3).to_bytes(4, "little") * 16


@pytest.mark.parametrize("op", ["build", "run"])
def test_a_driver_that_hangs_is_a_message(runner: Supervisor, op: str) -> None:
    runner.build("p", DEATHS)
    first, (worker,) = pid(runner), children(pid(runner))
    hangs = {
        "build": lambda: runner.build("q", "hang the compiler", timeout_s=0.2),
        "run": lambda: runner.run("p", one("hang", i32_arg(1)), timeout_s=0.2),
    }
    with pytest.raises(RunnerLost, match=f"did not answer in time during {op}") as lost:
        hangs[op]()
    assert lost.value.verdict is Verdict.TIMEOUT
    assert gone(worker)
    assert not runner.have("a", 4)
    assert pid(runner) == first


def test_a_worker_that_ends_between_requests_is_missed_by_the_next(runner: Supervisor) -> None:
    runner.hello()
    (worker,) = children(pid(runner))
    os.kill(worker, signal.SIGKILL)
    assert soon(lambda: gone(worker))
    with pytest.raises(Refused, match="killed by SIGKILL") as refused:
        runner.fill("a", 64)
    assert refused.value.verdict is Verdict.WORKER_LOST
    runner.fill("a", 64)
    assert runner.generation == 2


def test_a_driver_that_crashes_when_it_is_opened_is_told(tmp_path: Path) -> None:
    library = tmp_path / "libcrash.so"
    text = "#include <signal.h>\nint clGetPlatformIDs(void) { raise(SIGSEGV); return 0; }\n"
    subprocess.run(["cc", "-shared", "-fPIC", "-xc", "-", "-o", str(library)], input=text, text=True, check=True)
    words = "killed by SIGSEGV when it opened the device"
    with Supervisor((str(native.RUNNER), "--library", str(library))) as runner, pytest.raises(RunnerLost, match=words):
        runner.hello()
    listed = subprocess.run([native.RUNNER, "--library", library, "--list"], capture_output=True, text=True, check=True)
    found = json.loads(listed.stdout)
    assert found["devices"] == []
    assert "ended its process" in found["runtimes"]["missing"][0]["what"]


# ---------------------------------------------------------------- the link


def start(command: tuple[str, ...]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    ask(process, {"id": 1, "op": "hello", "protocol": 1})
    return process


def send(process: subprocess.Popen[bytes], frame, blob: bytes = b"") -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(frame).encode() + b"\n" + blob)
    process.stdin.flush()


def ask(process: subprocess.Popen[bytes], frame, blob: bytes = b""):
    assert process.stdout is not None
    send(process, frame, blob)
    return json.loads(process.stdout.readline())


def hang(process: subprocess.Popen[bytes]) -> int:
    """Have its worker hang in the driver; returns the worker."""
    ask(process, {"id": 2, "op": "build", "program": "p", "blobs": [len(DEATHS)]}, DEATHS.encode())
    send(process, {"id": 3, "op": "run", "program": "p", "launches": one("hang", i32_arg(1))})
    (worker,) = children(process.pid)
    return worker


@pytest.mark.parametrize("end", ["stdin", "stdout", "killed"])
def test_no_worker_outlives_its_link(command: tuple[str, ...], end: str) -> None:
    process = start(command)
    worker = hang(process)
    if end == "killed":
        process.kill()
    else:
        pipe = process.stdin if end == "stdin" else process.stdout
        assert pipe is not None
        pipe.close()
    assert process.wait(SOON_S) == (-signal.SIGKILL if end == "killed" else 0)
    assert soon(lambda: gone(worker))
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()


def test_requests_that_were_sent_ahead_are_answered(command: tuple[str, ...]) -> None:
    """As a script sends them, which has closed its end long before the answers come."""
    requests = [{"id": n, "op": "put", "buf": "a", "bytes": 4, "pattern": "ff"} for n in range(50)]
    text = "".join(json.dumps(request) + "\n" for request in requests)
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == list(range(50))


def test_a_blob_larger_than_any_buffer_in_between(runner: Supervisor) -> None:
    data = np.random.default_rng(1).integers(0, 255, 70 << 20, dtype=np.uint8)
    runner.put("a", data.data)
    assert runner.get("a") == data.tobytes()


def test_what_is_announced_and_does_not_come_costs_nothing(command: tuple[str, ...]) -> None:
    text = b'{"id":1,"op":"put","buf":"a","bytes":9000000000000000000,"blobs":[9000000000000000000]}\nabc'
    done = subprocess.run(command, input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"hello", "malformed value"),
        (b"[1]", "not an object"),
        (b'{"id":1,"op":"hello"', "no end"),
        (b'{"id":1} {"id":2}', "more than one value"),
        (b'{"op":"\xff"}', "not UTF-8"),
        (b'{"op":"\\ud800x"}', "unknown op"),
        (b'{"n":01}', "no end|malformed|comma"),
        (b'{"n":1e999}', "not finite"),
        (b'{"n":NaN}', "malformed value"),
        (b"[" * 100, "too deep"),
        (b'{"blobs":[-1]}', "no number of bytes"),
        (b'{"blobs":[9000000000000000000,9000000000000000000]}', "larger than any memory"),
        (b'{"n":[' + b"0," * (1 << 20) + b"0]}", "too many values"),
    ],
)
def test_garbage_is_answered_and_survived(command: tuple[str, ...], line: bytes, said: str) -> None:
    done = subprocess.run(command, input=line + b'\n{"id":2,"op":"bye"}\n', capture_output=True, check=True)
    garbage, bye = map(json.loads, done.stdout.splitlines())
    assert garbage["error"]["kind"] == "bad_request"
    assert any(part in garbage["error"]["message"] for part in said.split("|")), garbage
    assert bye == {"id": 2, "ok": True}


def test_a_line_without_an_end_is_read_to_its_end_and_refused(command: tuple[str, ...]) -> None:
    text = b'{"x":"' + b"y" * (65 << 20) + b'"}\n{"id":2,"op":"bye"}\n'
    done = subprocess.run(command, input=text, capture_output=True, check=True)
    garbage, bye = map(json.loads, done.stdout.splitlines())
    assert "longer than any frame" in garbage["error"]["message"]
    assert bye["ok"]


@pytest.mark.parametrize("id", ["a text", 7, -1, 2.5, True, None])
def test_an_id_comes_back_as_it_was(command: tuple[str, ...], id) -> None:
    text = json.dumps({"id": id, "op": "bye"}) + "\n"
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"id": id, "ok": True}


# ---------------------------------------------------------------- what it does on the device


def test_texels_stand_in_for_an_image(runner: Supervisor) -> None:
    halves = np.array([[0.0, -1.5], [65504, 6e-8], [np.inf, -0.0], [2.0**-14, 1 / 3]], np.float16)
    runner.put("w", halves.data)
    runner.fill("y", 80, b"\xff")
    runner.build("read", "__kernel void texels(int image, int y) {}")
    view = image_arg("w", "RG", "fp16", 2, 2, texels=True)
    runner.run("read", [launch("texels", [5], None, [view, buffer_arg("y")])])
    got = np.frombuffer(runner.get("y"), np.float32).reshape(5, 4)
    assert got[0].view(np.uint32).tolist() == [2, 2, 0, 0]
    assert np.array_equal(got[1:, :2], halves.astype(np.float32))
    assert got[1:, 2:].tolist() == [[0, 1]] * 4


def test_an_image_of_another_form_is_refused(runner: Supervisor) -> None:
    runner.fill("w", 64)
    runner.build("read", "__kernel void texels(int image, int y) {}")
    view = image_arg("w", "RGB", "fp16", 2, 2)
    with pytest.raises(ValueError, match="an image has channels, type, width and height"):
        runner.run("read", [launch("texels", [5], None, [view, buffer_arg("w")])])


def test_rotation_and_restoring_and_copies(runner: Supervisor) -> None:
    runner.fill("a", 64)
    runner.fill("zero", 64)
    runner.build("count", COUNT)
    launches = [launch("count", [16], None, [buffer_arg("a"), i32_arg(1)])]
    run = runner.run("count", launches * 2, samples=4, warmup=1, rotate=Rotation(("a",), 3))
    assert runner.get("a") == (4).to_bytes(4, "little") * 16  # samples 0 and 3 of 5, two launches each
    assert [len(sample) for sample in run.samples_ns] == [2] * 4
    assert all(q < s < b < e for sample in run.samples_ns for q, s, b, e in sample)
    runner.run("count", launches, samples=5, restore=[("a", "zero")])
    assert runner.get("a") == (1).to_bytes(4, "little") * 16


def test_more_samples_than_an_answer_holds_are_refused(runner: Supervisor) -> None:
    runner.fill("a", 64)
    runner.build("count", COUNT)
    with pytest.raises(ValueError, match="more samples than an answer holds"):
        runner.run("count", [launch("count", [16], None, [buffer_arg("a"), i32_arg(1)])], samples=500_001)


def test_what_the_driver_prints_is_not_the_protocol(runner: Supervisor) -> None:
    runner.build("p", DEATHS)
    runner.run("p", one("talk", i32_arg(1)))
    assert runner.hello()
    runner.sensors()


# ---------------------------------------------------------------- sensors


def test_sensors_of_a_phone(tmp_path: Path, paper: Path) -> None:
    files = {
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1000000",
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "3000000",
        "sys/class/thermal/thermal_zone0/type": "battery",
        "sys/class/thermal/thermal_zone0/temp": "31000",
        "sys/class/thermal/thermal_zone1/type": "CPU-0-0",
        "sys/class/thermal/thermal_zone1/temp": "52300",
        "sys/class/kgsl/kgsl-3d0/gpuclk": "680000000",
        "sys/class/kgsl/kgsl-3d0/temp": "0",
        "sys/class/kgsl/kgsl-3d0/reset_count": "4",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    count = tmp_path / "sys/class/kgsl/kgsl-3d0/reset_count"
    command = (str(native.RUNNER), "--library", str(paper), "--sys", str(tmp_path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_RESETS", str(count))
        child = Child(command)
    try:
        ends = time.monotonic() + SOON_S
        sensors, _ = child.ask({"id": 1, "op": "sensors"}, [], ends)
        values, why = sensors["values"], sensors["why"]
        assert (values["cpu_clock_mhz"], values["cpu_temperature_c"], values["gpu_clock_mhz"]) == (2000, 52.3, 680)
        assert values["gpu_temperature_c"] is None
        assert why["gpu_temperature_c"] == "it reads 0"
        assert why["cpu_energy_j"] == "no energy counter (RAPL) in /sys/class/powercap"
        assert values["rss_bytes"] > 1 << 16
        source = b"__kernel void reset(int n) {} __kernel void other(int n) {}"
        child.ask({"id": 2, "op": "build", "program": "p"}, [source], ends)
        for entry, samples, resets in (("other", 1, 0), ("reset", 3, 3)):
            request = {"id": 3, "op": "run", "program": "p", "launches": one(entry, i32_arg(1)), "samples": samples}
            answer, _ = child.ask(request | {"profile": True}, [], ends)
            assert answer["resets"] == resets
        count.unlink()
        answer, _ = child.ask(request | {"launches": one("other", i32_arg(1))}, [], ends)
        assert "resets" not in answer
    finally:
        child.close()


def test_files_are_read_and_watched(tmp_path: Path, command: tuple[str, ...]) -> None:
    file = tmp_path / "clock"
    file.write_bytes(b"680\xff\n")
    child = Child(command)
    try:
        ends = time.monotonic() + SOON_S
        said, _ = child.ask({"id": 1, "op": "hello", "protocol": 1}, [], ends)
        assert said["ops"] == ["read", "watch", "limit"]
        paths = [str(file), str(tmp_path / "absent"), f"{tmp_path}/", "/proc/self/mem"]
        read, _ = child.ask({"id": 2, "op": "read", "paths": paths}, [], ends)
        assert read["texts"][:3] == ["680\ufffd\n", None, "clock\n"]
        assert read["why"][:3] == [None, "ENOENT: No such file or directory", None]
        assert (read["texts"][3] is None) == (read["why"][3] is not None)
        files = [{"path": str(file), "period_ms": 1}, {"path": str(tmp_path / "absent"), "period_ms": 2.5}]
        begun, _ = child.ask({"id": 3, "op": "watch", "files": files}, [], ends)
        samples = []
        while {index for _, index, _ in samples} != {0, 1} or len(samples) < 20:
            watched, _ = child.ask({"id": 4, "op": "watched"}, [], ends)
            samples += watched["samples"]
            assert watched["dropped"] == 0
        assert watched["why"] == {"1": "ENOENT: No such file or directory"}
        assert watched["cpu_ns"] > 0
        assert {tuple(sample[1:]) for sample in samples} == {(0, "680\ufffd\n"), (1, None)}
        stamps = [at for at, _, _ in samples]
        assert stamps == sorted(stamps)
        assert begun["clock_ns"] <= stamps[0] <= stamps[-1] <= watched["clock_ns"]
        child.ask({"id": 5, "op": "watch", "files": []}, [], ends)
        none, _ = child.ask({"id": 6, "op": "watched"}, [], ends)
        assert (none["samples"], none["why"]) == ([], {})
        wrong, _ = child.ask({"id": 7, "op": "watch", "files": [{"path": "x", "period_ms": 0}]}, [], ends)
        assert wrong["error"]["kind"] == "bad_request"
    finally:
        child.close()


# ---------------------------------------------------------------- the command line


def run(*words: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [native.RUNNER, *words], input="", capture_output=True, text=True, check=False, env=os.environ | (env or {})
    )


def test_exit_codes_and_sentences(paper: Path) -> None:
    for words, code, said in (
        (["--version"], 0, ""),
        (["--nonsense"], 2, "unknown option --nonsense"),
        (["--device"], 2, "a value is missing after --device"),
        (["--priority", "top"], 2, "no level: top"),
        (["--library", "/nowhere/libOpenCL.so"], 3, "no OpenCL device: /nowhere/libOpenCL.so: cannot open"),
        (["--library", "libc.so.6"], 3, "libc.so.6 is no OpenCL library"),
        (["--library", paper, "--device", "adreno"], 3, "no device adreno: Fake|Paper GPU is here"),
        (["--library", paper, "--device", "paper"], 0, ""),
        (["--library", paper, "--device", "Fake|Paper GPU"], 0, ""),
        (["--library", paper, "--device", "0"], 0, ""),
        (["--library", paper, "--device", "1"], 3, "no device 1"),
    ):
        done = run(*words)
        assert done.returncode == code, (words, done.stderr)
        assert said in done.stderr
    nothing = run("--library", paper, env={"FAKE_NO_PLATFORM": "1"})
    assert nothing.returncode == 3
    assert "is there but shows no platform: CL_PLATFORM_NOT_FOUND_KHR (-1001)" in nothing.stderr


def test_the_list_is_that_of_the_python_runner(paper: Path) -> None:
    found = json.loads(run("--library", paper, "--library", "/nowhere.so", "--library", paper, "--list").stdout)
    (device,) = found["devices"]
    assert device["selector"] == "Fake|Paper GPU"
    assert (device["type"], device["max_work_item_sizes"]) == ("gpu", [256, 256, 64])
    assert device["image_pitch_alignment"] == 1
    (driver,) = found["runtimes"]["drivers"]
    assert driver["library"] == str(paper)
    (missing,) = found["runtimes"]["missing"]
    assert "/nowhere.so" in missing["what"]
    assert "--library" in missing["remedy"]


def test_libraries_that_the_host_knows_come_last(paper: Path) -> None:
    listed = run("--list", env={"KILN_OPENCL_LIBRARIES": f"/nowhere.so:{paper}"})
    assert any(device["selector"] == "Fake|Paper GPU" for device in json.loads(listed.stdout)["devices"])


def test_exec_names_it_as_a_device(paper: Path) -> None:
    choice = resolve(f"exec:{native.RUNNER} --library {paper}")
    assert (choice.slug, choice.sheet.kind, choice.python_runner) == ("nobody-paper", "gpu", False)
    with pytest.raises(DeviceMissing, match=r"no device adreno: Fake\|Paper GPU is here"):
        resolve(f"exec:{native.RUNNER} --library {paper} --device adreno")


def test_a_hint_that_is_not_taken_is_told(command: tuple[str, ...]) -> None:
    with Supervisor((*command, "--priority", "low", "--performance", "high")) as supervisor:
        hints = supervisor.hello().hints
    neither = "the device lists neither cl_khr_priority_hints nor cl_qcom_priority_hint"
    assert hints["priority"] == f"default: low was asked for, and {neither}"
    assert hints["performance"] == "default: high was asked for, and the device does not list cl_qcom_perf_hint"


@pytest.mark.slow
def test_clang_compiles_it_without_a_warning() -> None:
    if not shutil.which("clang"):
        pytest.skip("no clang: sudo apt-get install -y clang")
    sources = sorted(map(str, (native.ROOT / "harness" / "runner" / "native").glob("*.c")))
    flags = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror"]
    done = subprocess.run(["clang", *flags, "-fsyntax-only", *sources], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
