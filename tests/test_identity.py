"""Strings of real devices, as public dumps have them, find their sheet, model and compiler."""

from typing import Any

import pytest

from kernels.claims import device_sheet
from kernels.fit import compiler_meets
from kernels.identity import claimed, identify, versions
from kernels.sheet import Strings, load_sheet, sheet_names, sheet_of

SNAPDRAGON = {"vendor": "QUALCOMM", "platform_name": "QUALCOMM Snapdragon(TM)", "type": "gpu"}
ARM = {"vendor": "ARM", "platform_name": "ARM Platform", "type": "gpu", "driver_version": "3.0"}


def adreno(name: str, version: str, driver: str = "") -> dict[str, Any]:
    more = {"opencl_c_version": version.replace("OpenCL", "OpenCL C"), "driver_version": driver}
    return SNAPDRAGON | {"name": name, "version": version} | more


def mali(name: str, version: str) -> dict[str, Any]:
    return ARM | {"name": name, "version": version, "opencl_c_version": version.replace("OpenCL", "OpenCL C")}


# (where the strings are from, strings, its sheet, model, compiler)
REAL = [
    (
        "Oblomov/clinfo#92",
        adreno(
            "QUALCOMM Adreno(TM) 750",
            "OpenCL 3.0 Adreno(TM) 750",
            "OpenCL 3.0 QUALCOMM build: commit unknown Compiler E031.45.02.06",
        ),
        "adreno750",
        "adreno-750",
        "E031.45.02.06",
    ),
    (
        "ggml-org/llama.cpp#14535",
        adreno(
            "QUALCOMM Adreno(TM) 830",
            "OpenCL 3.0 Adreno(TM) 830",
            "OpenCL 3.0 QUALCOMM build: commit unknown Compiler E031.47.18.23",
        ),
        "adreno830",
        "adreno-830",
        "E031.47.18.23",
    ),
    (  # its name lacks the model, and so does the log; the version is that of CodeLinaro/llama.cpp#17, of the same GPU
        "ggml-org/llama.cpp#10693",
        adreno(
            "QUALCOMM Adreno(TM)",
            "OpenCL 3.0 Adreno(TM) 740",
            "OpenCL 3.0 QUALCOMM build: commit unknown Compiler E031.41.03.44",
        ),
        "adreno740",
        "adreno-740",
        "E031.41.03.44",
    ),
    (
        "ggml-org/llama.cpp#1571",
        adreno("QUALCOMM Adreno(TM)", "OpenCL 2.0 Adreno(TM) 640"),
        "adreno640",
        "adreno-640",
        "",
    ),
    (
        "leejet/stable-diffusion.cpp#1226",
        adreno(
            "QUALCOMM Adreno(TM)",
            "OpenCL 2.0 Adreno(TM) 642L",
            "OpenCL 2.0 QUALCOMM build: commit #272cf717f5 changeid #Iee40f504b5 Date: 10/05/21 Tue Local Branch:  "
            "Remote Branch:  Compiler E031.38.01.08",
        ),
        None,
        "adreno-642",
        "E031.38.01.08",
    ),
    (
        "BOINC/boinc#1742",
        adreno(
            "QUALCOMM Adreno(TM)",
            "OpenCL 2.0 Adreno(TM) 505",
            "OpenCL 2.0 QUALCOMM build: commit #a7f70d7 changeid #I06947f1a28 Date: 11/19/18 Mon Local Branch:  "
            "Remote Branch:  Compiler E031.36.02.00",
        ),
        None,
        "adreno-505",
        "E031.36.02.00",
    ),
    (
        "ggml-org/llama.cpp#22755",
        adreno(
            "QUALCOMM Adreno(TM) 840",
            "OpenCL 3.0 Adreno(TM) 840",
            "OpenCL 3.0 QUALCOMM build: 0842.27.1 Compiler E031.50.19.18",
        ),
        None,
        "adreno-840",
        "E031.50.19.18",
    ),
    ("hashcat/hashcat#4579", adreno("QUALCOMM Adreno(TM) 735", "OpenCL 3.0 Adreno(TM) 735"), None, "adreno-735", ""),
    (
        "GPGPUCourse/GPGPUTasks2025#60",
        mali("Mali-G710 r0p0", "OpenCL 3.0 v1.r51p0-00eac0.5491dbbe6a8ad90707c5bca9eec07875"),
        "mali-g710",
        "mali-g710",
        "r51p0",
    ),
    (
        "hominoids/sgminer-arm#12",
        mali("Mali-G610 MC6 r0p0", "OpenCL 3.0 v1.r32p1-01eac0.54329dee8f160f288c574caaf67bbe3f"),
        None,
        "mali-g610",
        "r32p1",
    ),
    (
        "rockchip-linux/mpp#607",
        mali("Mali-G610 r0p0", "OpenCL 3.0 v1.g13p0-01eac0.9113fb3d6cbac82527a272992153edf9"),
        None,
        "mali-g610",
        "g13p0",
    ),
    (
        "96boards-hikey/linux#59",
        mali("Mali-G71", "OpenCL 2.0 v1.r9p0-01rel0.37c12a13c46b4c2d9d736e0d5ace2e5e"),
        None,
        "mali-g71",
        "r9p0",
    ),
    (
        "ARM-software/ComputeLibrary#953",
        mali("Mali-G52", "OpenCL 2.0 git.c8adbf9.122c9daed32dbba4b3056f41a2f23c58"),
        None,
        "mali-g52",
        "3.0",
    ),
    (  # rusticl on an Adreno 630: another driver, another compiler, and none of Qualcomm's traps
        "hashcat/hashcat#4550",
        {"name": "FD630", "vendor": "Qualcomm", "version": "OpenCL 3.0 ", "opencl_c_version": "OpenCL C 1.2 "}
        | {"platform_name": "rusticl", "driver_version": "25.0.7-2", "type": "gpu"},
        None,
        "fd630",
        "25.0.7-2",
    ),
    (
        "results/nvidia-h200.json",
        {"name": "NVIDIA H200", "vendor": "NVIDIA Corporation", "version": "OpenCL 3.0 CUDA", "type": "gpu"}
        | {"opencl_c_version": "OpenCL C 1.2", "driver_version": "580.159.04", "platform_name": "NVIDIA CUDA"},
        "nvidia-h200",
        "h200",
        "580.159.04",
    ),
    (
        "results/cpu-pocl-zen3.json",
        {"name": "pthread-AMD EPYC", "vendor": "AuthenticAMD", "driver_version": "3.0-rc2", "type": "cpu"}
        | {"version": "OpenCL 3.0 PoCL HSTR: pthread-x86_64-unknown-linux-gnu-haswell"}
        | {"platform_name": "Portable Computing Language", "opencl_c_version": "OpenCL C 1.2 PoCL"}
        | {
            "platform_version": "OpenCL 3.0 PoCL 3.0-rc2  Linux, Release, RELOC, LLVM 14.0.6, SLEEF, DISTRO, POCL_DEBUG"
        },
        "cpu-pocl",
        "amd-epyc",
        "LLVM-14.0.6",
    ),
    (
        "Intel's CPU runtime 2026.22.10 on Zen 3",
        {"name": "AMD EPYC", "vendor": "Intel(R) Corporation", "version": "OpenCL 3.1 (Build 0)", "type": "cpu"}
        | {"platform_name": "Intel(R) OpenCL", "driver_version": "2026.22.10.0.01_160000"}
        | {"opencl_c_version": "OpenCL C 3.1"},
        "cpu-intel",
        "amd-epyc",
        "2026.22.10.0.01_160000",
    ),
]
ANY = device_sheet(load_sheet("adreno750"))
CPU = device_sheet(load_sheet("cpu-pocl"))


@pytest.mark.parametrize(("source", "strings", "sheet", "model", "compiler"), REAL, ids=[row[0] for row in REAL])
def test_real_strings(source: str, strings: dict[str, Any], sheet: str | None, model: str, compiler: str) -> None:
    found = sheet_of(Strings.of(strings))
    assert (found.name if found else None) == sheet
    facts = identify(strings, CPU if strings["type"] == "cpu" else ANY)
    assert facts.model == model
    assert facts.compiler == compiler


def test_drivers_are_told_apart() -> None:
    new, old = REAL[6][1], REAL[4][1]
    assert versions(new) == ("0842.27.1", "E031.50.19.18")
    assert versions(old) == ("commit #272cf717f5", "E031.38.01.08")
    assert versions({}) == ("", "")


def test_a_recorded_compiler_meets_bounds() -> None:
    old, new = REAL[4][4], REAL[0][4]
    assert compiler_meets("<E031.38.11", old)
    assert not compiler_meets("<E031.38.11", new)
    assert not compiler_meets("<E031.38.11", "DX.17.75.00")


def test_a_sheet_gives_the_facts_of_an_absent_device() -> None:
    """The same words as a live device of that model: documents of the two are of one device."""
    for source, strings, sheet, *_ in REAL:
        if sheet and strings["type"] == "gpu":
            live, absent = identify(strings, ANY), claimed(load_sheet(sheet))
            assert (live.vendor, live.family, live.model) == (absent.vendor, absent.family, absent.model), source
    assert {claimed(load_sheet(name)).vendor for name in sheet_names()} >= {"qualcomm", "arm", "nvidia"}
