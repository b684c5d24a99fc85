"""Finds the OpenCL drivers of this machine and makes the ICD loader see them all, without root.

Three sources, in this order: the system's .icd files, PoCL from PyPI (`pocl-binary-distribution`, the embedded
default) and Intel's CPU runtime from PyPI (`intel-opencl-rt`). `find` only reads files; `prepare` loads libraries and
sets environment variables, so it belongs in a runner process. Importing this module does neither.

The ICD loader that pyopencl's wheels bundle (ocl-icd) reads one directory of .icd files. A private one with absolute
paths shows it every driver at once. Libraries are loaded with RTLD_LOCAL on purpose: loaded globally, libintelocl's own
cl* symbols hide the loader's and PoCL vanishes.

Oclgrind is a fourth: an interpreter that checks kernels, of no use for anything else, and it calls itself a GPU. So it
is loaded only where it is asked for by name.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path, PurePath

from harness.pocl_repair import repair

SIMULATOR = "oclgrind"  # its name, for `prepare` and for a runner's --driver
_SYSTEM_VENDORS = "/etc/OpenCL/vendors"
_SIMULATOR_STEM = "liboclgrind"
SIMULATOR_LIBRARY = "liboclgrind-rt-icd.so"
_PREFIXES = ("/usr", "/usr/local")


@dataclass(frozen=True)
class Driver:
    """One installable client driver: a library that the ICD loader can open."""

    name: str  # short and unique: "pocl", "intel", or the .icd file's stem
    library: str  # an absolute path, or a bare name for the dynamic linker to find
    origin: str  # for people: where it was found
    note: str = ""  # a repair that was made, for doctor


@dataclass(frozen=True)
class Missing:
    """Something that is absent or broken, and what mends it."""

    what: str
    remedy: str


@dataclass(frozen=True)
class Runtimes:
    """What was found on this machine, and what was not."""

    drivers: tuple[Driver, ...]
    missing: tuple[Missing, ...]


@dataclass(frozen=True)
class _Wheel:
    """A PyPI distribution that carries a driver."""

    name: str
    distribution: str
    stem: str  # the library's file name begins with it
    what: str
    remedy: str


_WHEELS = (
    _Wheel("pocl", "pocl-binary-distribution", "libpocl", "PoCL from PyPI", "pip install 'kiln-workbench[cpu]'"),
    _Wheel(
        "intel",
        "intel-opencl-rt",
        "libintelocl.",
        "Intel's CPU runtime from PyPI (x86-64)",
        "pip install 'kiln-workbench[intel]'",
    ),
)


def find() -> Runtimes:
    """Every driver that files say is here, one per platform, and what could be added. Loads nothing."""
    drivers = list(_system_drivers())
    missing = []
    for wheel in _WHEELS:
        if any(_base(d.library).startswith(wheel.stem) for d in drivers):
            continue  # a system copy wins: two copies of one platform in a process would share symbols and clash
        library = _library_of(wheel)
        if library is None:
            missing.append(Missing(f"{wheel.what} is not installed", wheel.remedy))
        else:
            # Ubuntu's intel.icd is the driver of Intel's GPUs, another platform.
            name = f"{wheel.name}-pypi" if any(d.name == wheel.name for d in drivers) else wheel.name
            origin = f"PyPI {wheel.distribution} {metadata.version(wheel.distribution)}"
            drivers.append(Driver(name, str(library), origin))
    return Runtimes(tuple(drivers), tuple(missing))


def simulator() -> Driver | None:
    """Oclgrind, where it is installed: beside its command, or where Debian and a build of one's own put it."""
    command = shutil.which(SIMULATOR)
    prefixes = [str(Path(command).resolve().parent.parent)] if command else []
    for prefix in (*prefixes, *_PREFIXES):
        for library in sorted(Path(prefix).glob(f"lib*/oclgrind/{SIMULATOR_LIBRARY}")):
            return Driver(SIMULATOR, str(library), str(library.parent))
    return None


def prepare(only: str | None = None) -> Runtimes:
    """Point the ICD loader at every loadable driver, or at the one named `only`, and repair PoCL where it needs it.

    Call it once, after pyopencl is imported and before its first OpenCL call: the loader reads the variables then, and
    the import sets PYOPENCL_HOME, which would show the bundled PoCL a second time. The record holds what loads and,
    under `missing`, what does not, with the linker's reason. The private directory goes when the process exits.
    """
    if only == SIMULATOR:
        chosen = [driver] if (driver := simulator()) else []
    else:
        chosen = [d for d in find().drivers if only is None or d.name == only]
    usable, missing = [], []
    for driver in chosen:
        try:
            library = ctypes.CDLL(driver.library)  # RTLD_LOCAL: see above
        except OSError as error:
            missing.append(Missing(f"{driver.origin} does not load: {error}", _remedy(driver)))
            continue
        usable.append(replace(driver, note=repair(library)) if _base(driver.library).startswith("libpocl") else driver)
    vendors = tempfile.mkdtemp(prefix="kiln-icd-")
    atexit.register(shutil.rmtree, vendors, ignore_errors=True)
    for driver in usable:
        (Path(vendors) / f"{driver.name}.icd").write_text(driver.library + "\n")
    os.environ["OCL_ICD_VENDORS"] = vendors
    os.environ["PYOPENCL_HOME"] = vendors
    os.environ.pop("OPENCL_VENDOR_PATH", None)  # ocl-icd's older name for the same, which would win
    return Runtimes(tuple(usable), tuple(missing))


def _system_drivers() -> Iterator[Driver]:
    """Drivers that .icd files of the system, or of the user's OCL_ICD_VENDORS, name; the first of each library."""
    seen: set[str] = set()
    names: set[str] = set()
    for file in _icd_files():
        for line in _lines(file):
            if _base(line) in seen or _base(line).startswith(_SIMULATOR_STEM):
                continue
            seen.add(_base(line))
            name = file.stem if file.stem not in names else f"{file.stem}-{len(names)}"
            names.add(name)
            yield Driver(name, line, str(file))


def _icd_files() -> Iterator[Path]:
    asked = os.environ.get("OCL_ICD_VENDORS") or os.environ.get("OPENCL_VENDOR_PATH") or ""
    for place in dict.fromkeys([*filter(None, asked.split(os.pathsep)), _SYSTEM_VENDORS]):
        path = Path(place)
        if path.is_dir():
            yield from sorted(path.glob("*.icd"))
        elif path.suffix == ".icd" and path.is_file():
            yield path


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return []  # unreadable for us is unreadable for the loader


def _library_of(wheel: _Wheel) -> Path | None:
    """The wheel's driver library, by what the installer recorded, or beside this environment's other libraries."""
    try:
        recorded: Iterable[metadata.PackagePath] = metadata.files(wheel.distribution) or ()
    except metadata.PackageNotFoundError:
        return None
    candidates = [Path(str(f.locate())) for f in recorded if _is_library(f, wheel.stem)]
    candidates += sorted((Path(sys.prefix) / "lib").glob(f"{wheel.stem}*"))
    for path in candidates:
        if path.is_file() and _is_library(path, wheel.stem):
            return path.resolve()
    return None


def _is_library(path: PurePath, stem: str) -> bool:
    return path.name.startswith(stem) and path.suffix in (".so", ".dylib")


def _base(library: str) -> str:
    return PurePath(library).name


def _remedy(driver: Driver) -> str:
    for wheel in _WHEELS:
        if driver.origin.startswith(f"PyPI {wheel.distribution} "):
            return wheel.remedy
    return f"reinstall the driver that {driver.origin} belongs to"
