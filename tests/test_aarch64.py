"""The native runner for 64-bit Arm, under qemu-user, on an OpenCL library of paper for the same processor."""

import shutil
from pathlib import Path

import native
import pytest
from test_protocol import play

from harness.runner.protocol import i32_arg, launch
from harness.supervisor import RunnerLost, Supervisor
from kernels.spec import Verdict

COMPILER, QEMU, LIBRARIES = "aarch64-linux-gnu-gcc", "qemu-aarch64-static", "/usr/aarch64-linux-gnu"
ABSENT = [word for word in (COMPILER, QEMU) if not shutil.which(word)]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(ABSENT), reason=f"no {' or '.join(ABSENT)}: make runner-aarch64 says what to install"),
]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    runner = native.build("build/kiln-runner-aarch64")
    library = native.fake_opencl(tmp_path_factory.mktemp("arm"), COMPILER)
    return (QEMU, "-L", LIBRARIES, str(runner), "--library", str(library))


def test_it_is_for_arm(command: tuple[str, ...]) -> None:
    header = Path(command[3]).read_bytes()[:20]
    assert header[:5] == b"\x7fELF\x02"
    assert int.from_bytes(header[18:20], "little") == 183  # EM_AARCH64


def test_the_golden_transcript(command: tuple[str, ...]) -> None:
    play(command)


def test_it_outlives_its_driver(command: tuple[str, ...]) -> None:
    with Supervisor(command) as supervisor:
        supervisor.build("p", "__kernel void crash(int n) {}")
        with pytest.raises(RunnerLost, match="killed by SIGSEGV during run") as lost:
            supervisor.run("p", [launch("crash", [1], None, [i32_arg(1)])])
        assert lost.value.verdict is Verdict.CRASHED
        supervisor.fill("a", 64, b"\x07")
        assert supervisor.get("a") == b"\x07" * 64
        assert supervisor.generation == 2
