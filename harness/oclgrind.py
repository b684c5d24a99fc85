"""Oclgrind, the OpenCL simulator that checks every access of a kernel: its installation, its command, what it says.

Version 21.10, Debian's. It interprets kernels as LLVM compiled them, and knows less than LLVM does:

- Optimised code holds `freeze` instructions, which its check for uninitialised values gives up at, and code that was
  inlined without optimisation holds `llvm.experimental.noalias.scope.decl`, which nothing of it knows. Without any of
  LLVM's passes there is neither; kernels then take about eight times as long.
- The same check takes what a buffer was last filled or partly written with for all of it, and reads memory of its own
  that nobody wrote where an image is an argument. So every buffer is written whole, from the host, and buffers stand
  in for images (`emulation`).
- It misreads vectors that clang widens with undefined lanes (`halves`). Should it crash, a kernel runs once more
  without it.

To re-check with another version: drop one of the settings and run `python -m harness sanitize`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness import halves, runtimes
from harness.devices import runner_command
from harness.errors import DeviceMissing, KilnError

BUILD_OPTIONS = ("-disable-llvm-passes",)
PRELUDE = "#define __builtin_prefetch(...) ((void)0)\n" + halves.PRELUDE  # it knows no prefetch
_PACKAGE = "oclgrind"
_LOCAL_BYTES = 1 << 20  # what emulation adds to a kernel's local memory must not make it fail; rules see LOCAL_BYTES
LOCAL_BYTES = 32 << 10
_REMEDY = "apt-get install oclgrind (or `python -m harness sanitize --install`, as root or where sudo asks nothing)"


@dataclass(frozen=True)
class Finding:
    """Something that a kernel did and must not do."""

    what: str  # "Invalid read of size 4 at global memory"
    kernel: str
    lines: tuple[int, ...]  # of its source

    def text(self, source: str) -> str:
        """For people, with the lines themselves."""
        told = source.splitlines()
        lines = [f"line {n}: {told[n - 1].strip()}" for n in self.lines if 0 < n <= len(told)]
        return f"{self.what} in {self.kernel}" + (f" ({'; '.join(lines)})" if lines else "")


@dataclass(frozen=True)
class Heard:
    """What the log of a run says."""

    findings: tuple[Finding, ...]
    gave_up: str  # the instruction or function that it does not know, "" = none


def command(log: Path, *, uninitialized: bool = True) -> tuple[str, ...]:
    """Starts a runner of the simulator that watches memory and data races, and uninitialised values if asked.

    Its messages are appended to `log`: through stderr, since a log file of its own is written late or, where it
    crashes, not at all.
    """
    settings = {
        "OCLGRIND_DATA_RACES": "1",
        "OCLGRIND_NUM_THREADS": "1",  # several runners at a time make better use of the cores
        "OCLGRIND_LOCAL_MEM_SIZE": str(_LOCAL_BYTES),
        **({"OCLGRIND_UNINITIALIZED": "1"} if uninitialized else {}),
    }
    assigned = (f"{name}={value}" for name, value in settings.items())
    runner = runner_command(runtimes.SIMULATOR, "0")
    return ("env", *assigned, "sh", "-c", 'exec "$@" 2>>"$0"', str(log), *runner)


# ---------------------------------------------------------------- its log

_MESSAGE = re.compile(r"^(?P<what>\S.*)\n\tKernel: (?P<kernel>\S+)\n(?P<body>(?:\t.*\n)*)", re.MULTILINE)
_ADDRESS = re.compile(r" address 0x[0-9a-f]+")
_LINE = re.compile(r"^\tAt line (\d+)", re.MULTILINE)
_FATAL = re.compile(r"^OCLGRIND FATAL ERROR .*\n(.*)", re.MULTILINE)


def read_log(text: str) -> Heard:
    """The findings, each once per kernel and place, in the order they were made. Other lines are passed over."""
    findings: dict[Finding, None] = {}
    for message in _MESSAGE.finditer(text):
        lines = tuple(dict.fromkeys(int(n) for n in _LINE.findall(message["body"]) if int(n)))
        findings[Finding(_ADDRESS.sub("", message["what"]), message["kernel"], lines)] = None
    fatal = _FATAL.search(text)
    return Heard(tuple(findings), fatal[1] if fatal else "")


# ---------------------------------------------------------------- its installation


def require(*, install: bool) -> None:
    """Have it here. Raises DeviceMissing where it is not and `install` is False, KilnError where it cannot be had."""
    if runtimes.simulator() is not None:
        return
    if not install:
        raise DeviceMissing(f"Oclgrind is not installed: {_REMEDY}")
    _install()
    if runtimes.simulator() is None:
        raise KilnError(f"the package {_PACKAGE} is installed but its {runtimes.SIMULATOR_LIBRARY} is not found")


def _install() -> None:
    apt = shutil.which("apt-get")
    if apt is None:
        raise KilnError("Oclgrind cannot be installed here: there is no apt-get; build it from its sources")
    root = os.geteuid() == 0
    sudo = None if root else shutil.which("sudo")
    if not root and sudo is None:
        raise KilnError(f"Oclgrind cannot be installed: neither root nor sudo; have somebody run {_REMEDY}")
    # -n: a password cannot be typed in CI, and a prompt would wait forever.
    prefix = [sudo, "-n"] if sudo else []
    install = [*prefix, apt, "install", "-y", "--no-install-recommends", _PACKAGE]
    if _run(install) is None:
        return
    _run([*prefix, apt, "update"])  # lists that are missing or old are the usual reason
    if why := _run(install):
        raise KilnError(f"Oclgrind cannot be installed: {why}; have somebody run {_REMEDY}")


def _run(words: list[str]) -> str | None:
    """Why a command failed, None where it did not."""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(words, check=False, capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL)
    if not done.returncode:
        return None
    told = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()
    return told[-1]
