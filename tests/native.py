"""The native runner for tests: built once by `make runner`, and started for a device that a driver's library shows."""

import fcntl
import shutil
import subprocess
import tempfile
from pathlib import Path

from harness import runtimes
from harness.devices import DeviceChoice, LiveDevice, sheet_from, slug

ROOT = Path(__file__).parent.parent
RUNNER = ROOT / "build" / "kiln-runner"
ABSENT = "" if shutil.which("cc") and shutil.which("make") else "no C compiler: sudo apt-get install -y gcc make"


def build(target: str = "build/kiln-runner") -> Path:
    """Make it if it is older than its sources; test processes beside wait for the one that does."""
    with (Path(tempfile.gettempdir()) / "kiln-native-tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(["make", "-s", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return ROOT / target


def library(driver: str) -> str:
    """The path of a driver that was found here."""
    return next(found.library for found in runtimes.find().drivers if found.name == driver)


def choice(live: LiveDevice) -> DeviceChoice:
    """A device through the native runner, with faults."""
    command = (str(RUNNER), "--library", library(live.driver), "--device", live.selector, "--inject")
    return DeviceChoice(slug(live.description), command, live.description, sheet_from(live.description))


def fake_opencl(folder: Path, compiler: str = "cc", *, icd: bool = False) -> Path:
    """tests/native/fake_opencl.c as a library; `icd`: as one that exports nothing but the way to its table."""
    library = folder / "libOpenCL-fake.so"
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    flags += ["-DFAKE_ICD"] if icd else []
    source = ROOT / "tests" / "native" / "fake_opencl.c"
    subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True)
    return library
