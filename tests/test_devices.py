import stat
import sys
from pathlib import Path

import pytest
from fake_runner import DEVICE

from harness import devices
from harness.devices import Attached, LiveDevice, resolve, sheet_from, slug
from harness.errors import DeviceMissing, UsageError
from harness.runtimes import Driver, Missing, Runtimes

FAKE = f"{sys.executable} {Path(__file__).parent / 'fake_runner.py'}"
POCL = LiveDevice(
    "pocl", "P|E", DEVICE | {"type": "cpu", "name": "pthread-EPYC", "platform_name": "Portable Computing Language"}
)
INTEL = LiveDevice("intel", "I|E", DEVICE | {"type": "cpu", "name": "EPYC", "platform_name": "Intel(R) OpenCL"})
H200 = LiveDevice(
    "nvidia",
    "N|H",
    DEVICE | {"vendor": "NVIDIA Corporation", "name": "NVIDIA H200", "platform_name": "NVIDIA CUDA"},
)
PHONE = LiveDevice(
    "adreno",
    "Q|A",
    DEVICE
    | {"vendor": "QUALCOMM", "name": "QUALCOMM Adreno(TM)", "version": "OpenCL 3.0 Adreno(TM) 750"}
    | {"platform_name": "QUALCOMM Snapdragon(TM)"},
)


@pytest.fixture
def machine(monkeypatch):
    """Lets a test say which devices are attached."""

    def attach(*live: LiveDevice, missing: tuple[Missing, ...] = ()) -> None:
        monkeypatch.setattr(devices, "list_devices", lambda: Attached(live, Runtimes((), missing)))

    return attach


@pytest.mark.parametrize(
    ("name", "slug_"),
    [
        ("auto", "nvidia-h200"),
        ("cpu", "cpu-pocl"),
        ("ocl:intel", "cpu-intel"),
        ("ocl:INTEL(R) OpenCL / EPYC", "cpu-intel"),
        ("ocl:h200", "nvidia-h200"),
        ("adreno750", "adreno750"),
    ],
)
def test_a_name_means_a_device(machine, name, slug_):
    machine(INTEL, POCL, H200, PHONE)
    choice = resolve(name)
    assert choice.slug == choice.sheet.name == slug_
    assert choice.command[1:4] == ("-P", "-m", "harness.runner")


def test_auto_without_a_gpu_is_the_cpu(machine):
    machine(INTEL, POCL)
    assert resolve("auto").slug == "cpu-pocl"
    machine(INTEL)
    assert resolve("auto").slug == resolve("cpu").slug == "cpu-intel"


@pytest.mark.parametrize("name", ["nonsense", "adbx", "adreno", "ocl", "", "CPU"])
def test_an_unknown_name_is_told_the_choices(machine, name):
    machine(POCL)
    with pytest.raises(UsageError) as wrong:
        resolve(name)
    assert wrong.value.exit_code == 2
    assert all(choice in str(wrong.value) for choice in ("auto", "cpu", "ocl:", "exec:", "adreno750", "mali-g715"))
    assert "\n" not in str(wrong.value)


def test_a_model_that_is_not_attached(machine):
    machine(POCL, INTEL)
    with pytest.raises(DeviceMissing) as missing:
        resolve("adreno750")
    assert missing.value.exit_code == 3
    assert str(missing.value) == (
        'no Adreno 750 is attached: found "pthread-EPYC" (Portable Computing Language), "EPYC" (Intel(R) OpenCL); '
        "connect the phone or try --device cpu"
    )


def test_other_ways_to_be_missing(machine):
    machine(H200)
    with pytest.raises(DeviceMissing, match="no CPU device"):
        resolve("cpu")
    with pytest.raises(DeviceMissing, match='"zzz" in its name'):
        resolve("ocl:zzz")
    machine(missing=(Missing("PoCL from PyPI is not installed", "pip"),))
    with pytest.raises(DeviceMissing, match=r"PoCL from PyPI is not installed.*pip install 'kiln-workbench\[cpu\]'"):
        resolve("auto")


def test_a_native_runner_is_asked_who_it_is():
    choice = resolve(f"exec:{FAKE}")
    assert choice.description["name"] == "Paper tiger"
    assert choice.slug == "nobody-paper-tiger"
    assert choice.command[0] == sys.executable


@pytest.mark.parametrize("command", ["/nowhere/runner", "false", "echo hello", f"{FAKE} garbage", "cat"])
def test_a_native_runner_that_is_none(command):
    with pytest.raises(DeviceMissing, match="does not answer as a runner"):
        resolve(f"exec:{command}")


@pytest.mark.parametrize("command", ["", "'unbalanced"])
def test_a_command_line_that_is_none(command):
    with pytest.raises(UsageError, match="exec:"):
        resolve(f"exec:{command}")


def test_a_native_runner_that_leaves_something_out(tmp_path):
    script = tmp_path / "runner.py"
    script.write_text("""import json, sys
for line in sys.stdin:
    told = {"runner": "r", "device": {}, "sensors": []}
    print(json.dumps({"id": json.loads(line)["id"], "ok": True, **told}), flush=True)
""")
    with pytest.raises(DeviceMissing, match="does not describe its device"):
        resolve(f"exec:{sys.executable} {script}")
    script.write_text(script.read_text().replace('"runner": "r", ', ""))
    with pytest.raises(DeviceMissing, match=r"does not answer as a runner: .* incomplete answer"):
        resolve(f"exec:{sys.executable} {script}")


def test_a_sheet_is_read_from_a_description():
    sheet = sheet_from(DEVICE)
    assert sheet.opencl_c == (1, 2)
    assert sheet.image2d is None
    assert sheet.has("cl_khr_fp16")
    assert sheet.cache_bytes == 1 << 20
    more = {"image2d_max_width": 9, "image2d_max_height": 8, "last_level_cache_bytes": 1 << 25}
    sheet = sheet_from(DEVICE | more | {"opencl_c_version": "OpenCL C 3.1 anything", "subgroup_sizes": [16, 32]})
    assert (sheet.opencl_c, sheet.image2d, sheet.subgroup_sizes) == ((3, 1), (9, 8), (16, 32))
    assert sheet.cache_bytes == 1 << 25
    assert sheet_from(DEVICE | {"opencl_c_version": "?"}).opencl_c == (1, 0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"vendor": "NVIDIA Corporation", "name": "NVIDIA GeForce RTX 4090"}, "nvidia-geforce-rtx-4090"),
        ({"vendor": "Intel(R) Corporation", "name": "Intel(R) UHD Graphics 630"}, "intel-uhd-630"),
        ({"vendor": "QUALCOMM", "name": "QUALCOMM Adreno(TM)", "version": "OpenCL 3.0 Adreno(TM) 830"}, "adreno830"),
        ({"vendor": "ARM", "name": "Mali-G615 MC2"}, "arm-mali-g615-mc2"),
        ({"vendor": "(R)", "name": "???"}, "unknown"),
        ({"type": "cpu", "platform_name": "Oclgrind"}, "cpu-oclgrind"),
    ],
)
def test_slugs_are_short_and_plain(changes, expected):
    assert slug(DEVICE | changes) == expected


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("kill -SEGV $$", "ended with status -11"),
        ("echo 'LLVM ERROR: no' >&2; exit 3", "LLVM ERROR: no"),
        ("echo not json", "said something else"),
    ],
)
def test_a_driver_that_breaks_the_listing_is_only_reported(tmp_path, monkeypatch, script, said):
    shell = tmp_path / "python"
    shell.write_text(f"#!/bin/sh\n{script}\n")
    shell.chmod(shell.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setattr(devices.sys, "executable", str(shell))
    monkeypatch.setattr(devices.runtimes, "find", lambda: Runtimes((Driver("bad", "libbad.so", "/etc/bad.icd"),), ()))
    attached = devices.list_devices()
    assert attached.devices == ()
    assert said in attached.runtimes.missing[0].what
    assert "/etc/bad.icd" in attached.runtimes.missing[0].remedy


@pytest.mark.device
def test_what_is_listed_can_be_served(device):
    assert device.slug == device.sheet.name
    assert device.sheet.kind == device.description["type"]
    assert device.sheet.max_work_group > 0


@pytest.mark.device
def test_the_bundled_cpu_device_is_the_default(device):
    if device.slug == "cpu-pocl":
        assert resolve("cpu").slug == "cpu-pocl"
