"""Which device this is, in words that stay the same when a driver changes how it spells them.

Raw OpenCL strings are ambiguous: Adreno's name often lacks its model (the version has it), its compiler's version hides
in the driver's, and a CPU's platform matters more than its name. Tuned documents compare what is normalised here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kernels.claims import device_sheet
from kernels.sheet_nouns import Sheet
from kernels.spec import DeviceSheet
from kernels.tuned import DeviceFacts

RAW = ("name", "vendor", "version", "opencl_c_version", "driver_version", "platform_name", "platform_version")
_VENDORS = ("qualcomm", "arm", "nvidia", "intel", "amd", "apple", "imagination", "samsung")
_BIFROST = ("G31", "G51", "G52", "G71", "G72", "G76")
_OLD_VALHALL = ("G57", "G68", "G77", "G78")  # two digits like Bifrost, but the later architecture


def identify(description: Mapping[str, Any], sheet: DeviceSheet) -> DeviceFacts:
    """The facts of a live device from its limits and its raw strings (named as in `RAW`, like the runner's `hello`)."""
    raw = {name: str(description.get(name, "")) for name in RAW}
    driver, compiler = versions(raw)
    vendor, family, model = _names(raw, sheet.kind, sheet.vector_floats)
    return DeviceFacts(vendor, family, model, driver, compiler, raw, sheet)


def _names(raw: Mapping[str, str], kind: str, vector_floats: int) -> tuple[str, str, str]:
    """Vendor, family and model."""
    text = f"{raw['name']} {raw['version']} {raw['opencl_c_version']}"
    if match := re.search(r"Adreno\s*(?:\(TM\))?\s*(X?\d+)", text, re.IGNORECASE):
        model = match[1].lower()
        return "qualcomm", f"adreno-{model if model[0] == 'x' else model[0] + 'xx'}", f"adreno-{model}"
    if match := re.search(r"(?:Mali|Immortalis)-?([GT]\d+)", text, re.IGNORECASE):
        model = match[1].upper()
        return "arm", _mali_family(model), f"mali-{model.lower()}"
    model = _plain(raw["name"])
    if kind == "cpu":
        platform = "pocl" if raw["platform_name"] == "Portable Computing Language" else _vendor(raw["platform_name"])
        # Virtual machines call every processor alike; what was tuned for 512-bit registers is another machine's.
        registers = f"-{32 * vector_floats}-bit" if vector_floats else ""
        return platform, "cpu", model.removeprefix("pthread-").removeprefix("cpu-") + registers
    vendor = _vendor(f"{raw['vendor']} {raw['name']}")
    return vendor, f"{vendor}-{kind}", model.removeprefix(f"{vendor}-") or "unknown"


def _mali_family(model: str) -> str:
    """Arm's architecture of a Mali: the generations differ in warp width and in how they issue."""
    if model[0] == "T":
        return "mali-midgard"
    if model in _BIFROST:
        return "mali-bifrost"
    if model in _OLD_VALHALL or (len(model) == 4 and int(model[2:]) < 20):  # G310 to G715; G620, G720 and on are later
        return "mali-valhall"
    return "mali-5th-gen"


def claimed(sheet: Sheet, compiler: str = "") -> DeviceFacts:
    """The facts of a device that is not here, as far as its sheet claims them (`kernels.claims.device_sheet`)."""
    one = sheet.identity
    raw = dict.fromkeys(RAW, "") | {"name": one.model, "vendor": one.vendor}
    facts = device_sheet(sheet, compiler)
    vendor, family, model = _names(raw, one.type, 0)
    return DeviceFacts(vendor, family, model, "", compiler, raw, facts)


def versions(description: Mapping[str, Any]) -> tuple[str, str]:
    """Driver and compiler. Where a driver does not tell its compiler's version, the two come together.

    As real devices say it: Qualcomm's driver is "OpenCL 3.0 QUALCOMM build: 0842.27.1 Compiler E031.50.19.18", or, from
    before that, "… build: commit #272cf717f5 changeid … Compiler E031.38.01.08"; Windows has "… Compiler DX.17.75.00".
    Arm's is in CL_DEVICE_VERSION, "OpenCL 3.0 v1.r38p1-01eac0.…", on Linux boards "… v1.g13p0-01eac0.…".
    """
    driver, version = str(description.get("driver_version", "")), str(description.get("version", ""))
    if match := re.search(r"Compiler\s+(\S+)", driver):
        build = re.search(r"build:?\s*((?:commit\s+)?\S+)", driver)
        return (build[1] if build else driver), match[1]
    if match := re.search(r"\bv\d+\.([rg]\d+p\d+)\S*", version):
        return match[0], match[1]
    if match := re.search(r"\bLLVM (\d[\w.]*)", str(description.get("platform_version", ""))):  # PoCL
        return driver, f"LLVM-{match[1]}"
    return driver, driver


def _vendor(text: str) -> str:
    words = _plain(text.replace("Advanced Micro Devices", "AMD").replace("AuthenticAMD", "AMD")).split("-")
    return next((vendor for vendor in _VENDORS if vendor in words), words[0])


def _plain(text: str) -> str:
    """Lower-case words joined by dashes, without what vendors decorate names with."""
    text = re.sub(r"\((r|tm|c)\)|\b(corporation|corp|inc|opencl|graphics|gpu|processor)\b", " ", text.lower())
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-") or "unknown"
