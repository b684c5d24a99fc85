import ctypes
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from harness import pocl_repair, runtimes


@pytest.fixture
def vendors(tmp_path, monkeypatch):
    """A machine whose only .icd files are in the folder returned, with no wheels installed."""

    def absent(name):
        raise metadata.PackageNotFoundError(name)

    folder = tmp_path / "vendors"
    folder.mkdir()
    monkeypatch.setenv("OCL_ICD_VENDORS", str(folder))
    monkeypatch.delenv("OPENCL_VENDOR_PATH", raising=False)
    monkeypatch.setattr(runtimes, "_SYSTEM_VENDORS", str(tmp_path / "etc"))
    monkeypatch.setattr(runtimes.metadata, "files", absent)
    return folder


def test_a_bare_machine_is_told_what_to_install(vendors):
    found = runtimes.find()
    assert found.drivers == ()
    assert [m.remedy for m in found.missing] == [
        "pip install 'kiln-workbench[cpu]'",
        "pip install 'kiln-workbench[intel]'",
    ]


def test_system_drivers_once_each(vendors, tmp_path):
    (tmp_path / "etc").mkdir()
    (vendors / "nvidia.icd").write_text("libnvidia-opencl.so.1\n")
    (vendors / "two.icd").write_text("\n/opt/a/libone.so\n/opt/a/libtwo.so\n")
    (vendors / "readme.txt").write_text("libnot.so")
    (tmp_path / "etc" / "nvidia.icd").write_text("/usr/lib/libnvidia-opencl.so.1")  # the same one
    (tmp_path / "etc" / "two.icd").write_text("libthree.so")
    found = [(d.name, d.library) for d in runtimes.find().drivers]
    assert [library for _, library in found] == [
        "libnvidia-opencl.so.1",
        "/opt/a/libone.so",
        "/opt/a/libtwo.so",
        "libthree.so",
    ]
    assert len({name for name, _ in found}) == 4


def test_one_icd_file_may_be_named(vendors, monkeypatch):
    (vendors / "mali.icd").write_text("libmali.so")
    (vendors / "other.icd").write_text("libother.so")
    monkeypatch.setenv("OCL_ICD_VENDORS", str(vendors / "mali.icd"))
    assert [d.library for d in runtimes.find().drivers] == ["libmali.so"]


def test_a_system_copy_wins_over_the_wheel(vendors, tmp_path, monkeypatch):
    library = tmp_path / "libpocl-123.so"
    library.touch()
    wheel = metadata.PackagePath("x/libpocl-123.so")
    wheel.dist = type("Dist", (), {"locate_file": lambda self, path: library})()
    known = {"pocl-binary-distribution": [wheel]}
    absent = runtimes.metadata.files
    monkeypatch.setattr(runtimes.metadata, "files", lambda name: known.get(name) or absent(name))
    monkeypatch.setattr(runtimes.metadata, "version", lambda name: "9.9")
    (driver,) = runtimes.find().drivers
    assert driver == runtimes.Driver("pocl", str(library), "PyPI pocl-binary-distribution 9.9")
    (vendors / "pocl.icd").write_text("libpocl.so.2")
    assert [d.library for d in runtimes.find().drivers] == ["libpocl.so.2"]


def test_a_wheel_beside_a_system_driver_of_its_name_keeps_apart(vendors, tmp_path, monkeypatch):
    """Ubuntu's intel.icd belongs to Intel's GPUs."""
    library = tmp_path / "libintelocl.so"
    library.touch()
    wheel = metadata.PackagePath("lib/libintelocl.so")
    wheel.dist = type("Dist", (), {"locate_file": lambda self, path: library})()
    known = {"intel-opencl-rt": [wheel]}
    absent = runtimes.metadata.files
    monkeypatch.setattr(runtimes.metadata, "files", lambda name: known.get(name) or absent(name))
    monkeypatch.setattr(runtimes.metadata, "version", lambda name: "9.9")
    (vendors / "intel.icd").write_text("libigdrcl.so")
    gpu, cpu = runtimes.find().drivers
    assert [(d.name, d.library) for d in (gpu, cpu)] == [("intel", "libigdrcl.so"), ("intel-pypi", str(library))]
    assert "kiln-workbench[intel]" in runtimes._remedy(cpu)
    assert "kiln-workbench" not in runtimes._remedy(gpu)


def python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_importing_touches_nothing():
    code = """
import os, sys
before = dict(os.environ)
import harness.runtimes, harness.devices, harness.supervisor, harness.buffers
assert dict(os.environ) == before
assert "pyopencl" not in sys.modules
assert "libpocl" not in open("/proc/self/maps").read() if os.path.exists("/proc/self/maps") else True
"""
    python(code)


PLATFORMS = """
import json, os
import pyopencl as cl
from harness import runtimes
found = runtimes.prepare({only!r})
try:
    names = [p.name for p in cl.get_platforms()]
except cl.Error:
    names = []
print(json.dumps([os.environ["OCL_ICD_VENDORS"], names, [d.name for d in found.drivers],
                  [m.what for m in found.missing]]))
"""


@pytest.mark.device
def test_every_platform_appears_once_and_the_folder_goes():
    folder, names, drivers, missing = json.loads(python(PLATFORMS.format(only=None)))
    assert len(names) == len(set(names)) == len(drivers)
    assert missing == []
    assert not Path(folder).exists()


@pytest.mark.device
def test_a_driver_can_be_had_alone():
    for driver in runtimes.find().drivers:
        _, names, drivers, _ = json.loads(python(PLATFORMS.format(only=driver.name)))
        assert drivers == [driver.name]
        assert len(names) == 1


def test_a_driver_that_does_not_load_is_reported(vendors):
    (vendors / "broken.icd").write_text(str(vendors / "broken.icd"))
    (vendors / "absent.icd").write_text("libnowhere.so.9")
    _, names, drivers, missing = json.loads(python(PLATFORMS.format(only="broken"), OCL_ICD_VENDORS=str(vendors)))
    assert (names, drivers) == ([], [])
    assert "broken.icd does not load" in missing[0]
    _, _, _, missing = json.loads(python(PLATFORMS.format(only="absent"), OCL_ICD_VENDORS=str(vendors)))
    assert "libnowhere.so.9" in missing[0]


AVX2 = "avx2 fma f16c bmi1 bmi2"
AVX512 = "avx512f avx512bw avx512dq avx512vl avx512cd"


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (f"fpu sse2 {AVX2} {AVX512}", "skylake-avx512"),
        (f"fpu sse2 {AVX2} avx512f", "haswell"),
        (f"fpu sse2 {AVX2}", "haswell"),
        ("fpu sse2 avx", None),
    ],
)
def test_the_name_says_what_the_cpu_can(tmp_path, flags, name):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nmodel name\t: Any\nflags\t\t: {flags}\nbugs\t\t:\n")
    assert pocl_repair.cpu_name(cpuinfo) == name
    cpuinfo.write_text("processor : 0\n")
    assert pocl_repair.cpu_name(cpuinfo) is None


def test_a_library_without_the_function_is_left_alone():
    assert pocl_repair.repair(ctypes.CDLL(None)) == ""


@pytest.mark.parametrize(
    ("own", "name", "fits"),
    [
        ("generic", "haswell", False),
        ("generic", None, False),
        ("znver3", "skylake-avx512", False),  # a Zen 4, as LLVM 14 sees it
        ("znver3", "haswell", False),  # its built-in library would be called instead of inlined
        ("haswell", "haswell", True),
        ("alderlake", "haswell", True),
        ("icelake-server", "skylake-avx512", True),
        ("penryn", None, True),
    ],
)
def test_a_name_fits_if_it_has_what_the_cpu_has(own, name, fits):
    assert pocl_repair.fits(own, name) is fits
