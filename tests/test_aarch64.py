"""The native runner elsewhere: for 64-bit Arm under qemu-user, by an NDK's compiler, with another libc.

The OpenCL library is one of paper, for the same processor, and once Debian's PoCL for arm64, where it is here."""

import os
import shutil
import subprocess
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


def test_on_debians_pocl_for_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real driver: its compiler, its linker and its kernels are arm64's, under qemu."""
    folder = native.ROOT / "build" / "arm64-pocl"
    if not (folder / "done").exists():
        pytest.skip("Debian's PoCL for arm64 is not here: make runner-aarch64")
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    library = folder / "root" / "usr/lib/aarch64-linux-gnu/libpocl.so.2"
    play((QEMU, "-L", str(folder / "root"), str(native.build("build/kiln-runner-aarch64")), "--library", str(library)))


NDK_CLANG = """#!/bin/sh
# What an NDK's clang is asked for, compiled for Android as far as that goes without Android's libraries.
echo "$@" > "$0.asked"
exec clang "$@" -isystem /usr/aarch64-linux-gnu/include -Werror -Wno-unused-command-line-argument -fsyntax-only
"""


def test_the_command_for_android(tmp_path: Path) -> None:
    """`make runner-android NDK=…` asks the NDK's compiler for an arm64 program that needs libc and libdl alone."""
    if not shutil.which("clang"):
        pytest.skip("no clang: sudo apt-get install -y clang")
    compiler = tmp_path / "toolchains/llvm/prebuilt/linux-x86_64/bin/clang"
    compiler.parent.mkdir(parents=True)
    compiler.write_text(NDK_CLANG)
    compiler.chmod(0o755)
    make = ["make", "-B", "runner-android", f"NDK={tmp_path}"]
    done = subprocess.run(make, cwd=native.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    asked = Path(f"{compiler}.asked").read_text().split()
    assert asked[0] == "--target=aarch64-linux-android29"
    assert asked[-3:] == ["-o", "build/kiln-runner-android", "-ldl"]
    assert {Path(word).name for word in asked if word.endswith(".c")} >= {"main.c", "supervisor.c", "worker.c"}
    for ndk, said in (("", "say where the Android NDK is"), (str(tmp_path / "bin"), "is no Android NDK")):
        wrong = subprocess.run([*make[:-1], f"NDK={ndk}"], cwd=native.ROOT, capture_output=True, text=True, check=False)
        assert wrong.returncode != 0
        assert said in wrong.stdout


def test_with_another_libc(tmp_path: Path) -> None:
    """musl, which like Android's has nothing of glibc's own."""
    if not shutil.which("musl-gcc"):
        pytest.skip("no musl: sudo apt-get install -y musl-tools")
    runner = tmp_path / "kiln-runner"
    sources = map(str, (native.ROOT / "harness" / "runner" / "native").glob("*.c"))
    flags = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    subprocess.run(["musl-gcc", *flags, *sources, "-o", str(runner)], check=True)
    play((str(runner), "--library", str(native.fake_opencl(tmp_path, "musl-gcc"))))
