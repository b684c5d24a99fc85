"""Builds the C++ side of kernels/engine for tests, once; skips visibly where a compiler or the header is missing."""

import fcntl
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

import kernels

ENGINE = Path(kernels.__file__).parent / "engine"
BUILD = Path(__file__).parent.parent / "build" / "engine"
WARNINGS = ("-std=c++17", "-Wall", "-Wextra", "-Werror")
# Unoptimised: the compiler takes twenty seconds instead of fifty, and a document milliseconds all the same.
SANITIZERS = ("-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@cache
def missing() -> str:
    """Why the C++ side cannot be built here, "" if it can."""
    if not shutil.which("g++"):
        return "g++ is not here; install it with: apt-get install g++"
    return "" if _has("nlohmann/json.hpp") else "nlohmann/json is not here: apt-get install nlohmann-json3-dev"


@cache
def opencl_missing() -> str:
    """Why a host in C++ cannot be built here, "" if it can."""
    library = subprocess.run(["g++", "-print-file-name=libOpenCL.so"], capture_output=True, text=True, check=False)
    if _has("CL/cl.h") and Path(library.stdout.strip()).is_absolute():
        return ""
    return "OpenCL's headers or loader are not here: apt-get install opencl-headers ocl-icd-opencl-dev"


def _has(header: str) -> bool:
    probe = f"#if !__has_include(<{header}>)\n#error\n#endif\n"
    command = ["g++", "-std=c++17", "-fsyntax-only", "-x", "c++", "-"]
    return subprocess.run(command, input=probe, capture_output=True, text=True, check=False).returncode == 0


def query_tool() -> Path:
    """kernels/engine/query.cpp, built with sanitizers; anew where a source is newer."""
    if why := missing():
        pytest.skip(why)
    return build("query.cpp", "kiln-query", *SANITIZERS)


def build(source: str, name: str, *flags: str) -> Path:
    """The program, anew where a source is newer; one worker of a test run builds it and the others wait."""
    program, sources = BUILD / name, [ENGINE / source, *ENGINE.glob("*.hpp")]
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists() or program.stat().st_mtime < max(file.stat().st_mtime for file in sources):
            fresh = program.with_suffix(".new")
            command = ["g++", *WARNINGS, str(ENGINE / source), "-o", str(fresh), *flags]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[-4000:]
            fresh.replace(program)
    return program
