"""harness/doctor.py: every device is in the report, with what it lacks and what mends it."""

import dataclasses
import json

import pytest

from harness import doctor
from harness.devices import DeviceChoice, resolve
from harness.doctor import FEATURES, Checkup, Remedy, Report, compiler, examine, text
from kernels.claims import Contradiction

DESCRIPTION = {
    "name": "QUALCOMM Adreno(TM)",
    "vendor": "QUALCOMM",
    "version": "OpenCL 3.0 Adreno(TM) 750",
    "opencl_c_version": "OpenCL C 3.0 Adreno(TM) 750",
    "driver_version": "OpenCL 3.0 QUALCOMM build: 0762.10 Compiler E031.45.02.16",
    "platform_name": "QUALCOMM Snapdragon(TM)",
    "platform_version": "OpenCL 3.0 QUALCOMM build",
    "type": "gpu",
    "extensions": ["cl_khr_fp16", "cl_qcom_priority_hint"],
    "max_work_group_size": 1024,
    "max_work_item_sizes": [1024, 1024, 1024],
    "local_mem_size": 32768,
    "max_mem_alloc_size": 1 << 30,
    "global_mem_size": 5 << 30,
    "global_mem_cache_size": 131072,
    "compute_units": 6,
    "max_clock_mhz": 1,
    "image2d_max_width": 16384,
    "image2d_max_height": 16384,
    "image_pitch_alignment": 64,
    "image_base_address_alignment": 64,
    "subgroup_sizes": [64],
    "mem_base_addr_align_bytes": 128,
    "profiling_timer_resolution_ns": 52,
}

PHONE = Checkup(
    slug="adreno750",
    description=DESCRIPTION,
    driver="./runner",
    repair="",
    compiler="E031.45.02.16",
    features=dict.fromkeys(FEATURES, True),
    launch_ns=None,
    launch_wall_ns=21_000.0,
    sensors={"gpu_clock_mhz": None},
    why={"gpu_clock_mhz": "EACCES"},
    wrong=None,
)


@pytest.mark.parametrize(
    ("fields", "version"),
    [
        ({}, "E031.45.02.16"),
        (
            {"driver_version": "3.0", "platform_version": "OpenCL 3.0 PoCL 3.0  Linux, LLVM 14.0.6, SLEEF"},
            "LLVM-14.0.6",
        ),
        ({"driver_version": "3.0", "version": "OpenCL 3.0 v1.r38p1-01eac0"}, "r38p1"),
        ({"driver_version": "3.0", "version": "OpenCL 3.0 v1.g13p0-01eac0"}, "g13p0"),
        ({"driver_version": "OpenCL 3.0 QUALCOMM build: 0.0 Compiler DX.17.75.00"}, "DX.17.75.00"),
        ({"driver_version": "535.1"}, None),
    ],
)
def test_the_compiler_is_read_from_the_version_strings(fields: dict[str, str], version: str | None) -> None:
    assert compiler({**DESCRIPTION, **fields}) == version


def test_the_report_of_a_phone() -> None:
    words = text(Report((PHONE,), (Remedy("PoCL from PyPI is not installed", "pip install X"),)))
    for part in ("adreno750", "E031.45.02.16", "16384 × 16384, pitch 64 texels", "52 ns", "–, launched in 21 µs"):
        assert part in words
    assert "adreno750: gpu_clock_mhz is not readable: EACCES" in words
    assert "missing: PoCL from PyPI is not installed\n   mend it: pip install X" in words


def test_a_device_that_does_not_work_says_why() -> None:
    broken = dataclasses.replace(PHONE, wrong="the runner was killed by SIGSEGV", launch_wall_ns=None, why={})
    assert "adreno750: does not run kernels: the runner was killed by SIGSEGV" in text(Report((broken,), ()))


def test_a_device_beside_its_sheet() -> None:
    wrong = Contradiction("limits.max_work_group", 1024, 512)
    words = text(Report((dataclasses.replace(PHONE, sheet="adreno750", contradictions=(wrong,)),), ()))
    assert "adreno750: the sheet says limits.max_work_group 1,024, the device 512: the device's holds" in words
    assert "its sheet, adreno750, says" not in words
    words = text(Report((dataclasses.replace(PHONE, sheet="adreno750"),), ()))
    assert "adreno750: it has the limits that its sheet, adreno750, says" in words


def test_no_device_at_all() -> None:
    assert text(Report((), ())) == "No OpenCL device was found."


def test_the_report_is_json() -> None:
    assert json.loads(json.dumps(Report((PHONE,), ()).to_json()))["devices"][0]["slug"] == "adreno750"


def test_every_device_here_is_examined(device: DeviceChoice) -> None:
    slugs = {found.slug: found for found in examine().devices}
    found = slugs[device.slug]
    assert found.wrong is None
    assert found.launch_wall_ns is not None
    assert found.launch_wall_ns > 0
    assert set(found.features) == set(FEATURES)
    assert found.features["fp16 arithmetic"] == device.sheet.has("cl_khr_fp16")
    assert found.sheet == device.slug, "both CPU devices have a sheet"
    assert found.contradictions == ()
    # PoCL counts what memory is free, which other programs change; an image is as large as one allocation may be.
    sizes = dict.fromkeys(("global_mem_size", "max_mem_alloc_size", "image2d_max_width", "image2d_max_height"), 0)
    assert dict(found.description) | sizes == dict(device.description) | sizes


def test_one_device_alone(device: DeviceChoice) -> None:
    choice = resolve(f"ocl:{device.description['platform_name']}")
    assert [found.slug for found in examine(choice).devices] == [device.slug]


def test_a_driver_that_crashes_is_a_line_of_the_report(device: DeviceChoice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.probe_kernels.source", lambda: "not OpenCL C")
    found = doctor._checkup(device, None)
    assert found.wrong is not None
    assert found.wrong.startswith("build_failed")
