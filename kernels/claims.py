"""What a device sheet claims, in the forms that the rest works with, and where a live device says otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from kernels.fit import compiler_meets
from kernels.peaks import Peaks
from kernels.sheet_nouns import Sheet
from kernels.spec import Denied, DeviceSheet
from kernels.tuned import Deny

# What stands in for a value that a sheet does not have: the least that OpenCL lets a device of the full profile have,
# where it says so (OpenCL 3.0 API, table of device queries), else the least that phones were seen with.
LEAST_WORK_GROUP = 128  # OpenCL allows 1; kernels of an Adreno 660 compile for 128 (ggml-org/llama.cpp#27673)
LEAST_LOCAL_BYTES = 32 << 10  # OpenCL
LEAST_ALLOC_BYTES = 128 << 20  # OpenCL 1.2; 3.0 allows 32 MiB, but no phone was seen with less than 256
LEAST_OPENCL_C = (1, 2)
_LEAST_DEPTH = 64  # work-items of a group in the third dimension: NVIDIA's limit, the least that was seen


def device_sheet(sheet: Sheet, compiler: str = "") -> DeviceSheet:
    """What may run on a device of this model, for where none is attached.

    Whatever the sheet does not know is taken as the device would be at its worst: the LEAST_… above; the least buffer
    twice over as its memory; one compute unit; no last-level cache; no images, no subgroups, no extension that is not
    listed. A kernel that names no work-group size may get fewer work-items than the device allows, and no rule knows
    which kernel does, so the smaller limit counts for all. With an unknown compiler ("") every trap counts as there.
    """
    get = sheet.get
    group = get("limits.max_work_group") or LEAST_WORK_GROUP
    sizes = get("limits.max_work_item_sizes") or (group, group, min(group, _LEAST_DEPTH))
    alloc_bytes = get("limits.max_alloc_bytes") or min(
        LEAST_ALLOC_BYTES, get("limits.global_bytes") or LEAST_ALLOC_BYTES
    )
    extensions = frozenset(get("language.extensions") or ())
    from_buffer = "cl_khr_image2d_from_buffer" in extensions and get("limits.image2d") is not None
    return DeviceSheet(
        name=sheet.name,
        vendor=sheet.identity.vendor,
        kind=sheet.identity.type,
        max_work_group=min(group, get("limits.kernel_work_group") or group),
        max_work_item_sizes=sizes,
        local_bytes=get("limits.local_bytes") or LEAST_LOCAL_BYTES,
        max_alloc_bytes=alloc_bytes,
        global_bytes=get("limits.global_bytes") or 2 * alloc_bytes,
        compute_units=get("execution.compute_units") or 1,
        cache_bytes=get("caches.last_level_bytes") or 0,
        image2d=get("limits.image2d"),
        image_pitch_texels=(get("limits.image_pitch_texels") or 0) if from_buffer else 0,
        image_base_texels=(get("limits.image_base_texels") or 0) if from_buffer else 0,
        subgroup_sizes=get("execution.subgroup_sizes") or (),
        extensions=extensions,
        opencl_c=get("language.opencl_c") or LEAST_OPENCL_C,
        denied=denied(sheet, compiler),
    )


def peaks(sheet: Sheet) -> Peaks | None:
    """What a device of this model reaches at most; None where the sheet does not know how fast it reads memory."""
    get = sheet.get
    if get("peaks.read_gb_per_s") is None:
        return None
    rates = {"fp32": get("peaks.fp32_gflops"), "fp16": get("peaks.fp16_gflops"), "int8": get("peaks.int8_gops")}
    return Peaks(
        read_per_ns=float(get("peaks.read_gb_per_s")),
        copy_per_ns=get("peaks.copy_gb_per_s"),
        flops_per_ns=MappingProxyType({name: float(rate) for name, rate in rates.items() if rate is not None}),
        launch_ns=float(get("peaks.launch_ns") or 0),
        last_level_cache_bytes=get("caches.last_level_bytes") or 0,
        registers_per_work_item=get("registers.half"),
        wave=get("execution.wave"),
        compute_units=get("execution.compute_units") or 0,
    )


# ---------------------------------------------------------------- what drivers get wrong


def denied(sheet: Sheet, compiler: str) -> tuple[Denied, ...]:
    """Configurations that a driver with this compiler gets wrong; an unknown one ("") may be a bad one."""
    return tuple(
        rule
        for trap in sheet.traps
        if not compiler or all(compiler_meets(bound, compiler) for bound in trap.compiler)
        for rule in trap.deny
    )


def deny_rules(sheet: Sheet, family: str) -> tuple[Deny, ...]:
    """A family's rules for a tuned config, of all compilers: an engine may meet another one than the tuner did."""
    return tuple(
        Deny(dict(rule.params), trap.compiler, rule.why)
        for trap in sheet.traps
        for rule in trap.deny
        if rule.family == family
    )


# ---------------------------------------------------------------- a live device beside its sheet


@dataclass(frozen=True)
class Contradiction:
    """A value of a sheet that a live device does not confirm. The device's own holds."""

    key: str
    claimed: Any
    live: Any

    def __str__(self) -> str:
        return f"the sheet says {self.key} {shown(self.claimed)}, the device {shown(self.live)}: the device's holds"


def contradictions(sheet: Sheet, live: DeviceSheet) -> tuple[Contradiction, ...]:
    """Where a live device of this model has other limits than its sheet says.

    Memory, compute units and caches differ between products of one model, and drivers tell L1 for a cache: they are no
    contradiction. More than is said is none either: a larger buffer, a later OpenCL C, an extension that is not listed.
    """
    return tuple(found for found in _differences(sheet, live) if found.claimed is not None)


def _differences(sheet: Sheet, live: DeviceSheet) -> Iterator[Contradiction]:
    get = sheet.get
    for key, value in (
        ("limits.max_work_group", live.max_work_group),
        ("limits.max_work_item_sizes", live.max_work_item_sizes),
        ("limits.local_bytes", live.local_bytes),
        ("limits.image2d", live.image2d),
        ("limits.image_pitch_texels", live.image_pitch_texels),
        ("limits.image_base_texels", live.image_base_texels),
    ):
        if get(key) != value:
            yield Contradiction(key, get(key), value)
    if live.max_alloc_bytes < (get("limits.max_alloc_bytes") or 0):
        yield Contradiction("limits.max_alloc_bytes", get("limits.max_alloc_bytes"), live.max_alloc_bytes)
    if live.opencl_c < (get("language.opencl_c") or live.opencl_c):
        yield Contradiction("language.opencl_c", get("language.opencl_c"), live.opencl_c)
    sizes = get("execution.subgroup_sizes")
    if sizes and not set(live.subgroup_sizes) <= set(sizes):  # a device may tell one of them, or none
        yield Contradiction("execution.subgroup_sizes", sizes, live.subgroup_sizes)
    if missing := set(get("language.extensions") or ()) - live.extensions:
        yield Contradiction("language.extensions", tuple(sorted(missing)), "has not")
    if unexpected := set(get("language.without") or ()) & live.extensions:
        yield Contradiction("language.without", tuple(sorted(unexpected)), "has")


def shown(value: Any) -> str:
    """A value for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
