"""What a live OpenCL device says of itself, as the plain data of the protocol's `hello`."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from typing import Any

import pyopencl as cl

# Queries that pyopencl has no constants for (CL/cl_ext.h).
_IMAGE_PITCH_ALIGNMENT = 0x104A  # pixels
_IMAGE_BASE_ADDRESS_ALIGNMENT = 0x104B  # pixels
_MAX_NUM_SUB_GROUPS = 0x105C  # above 0 where OpenCL 3.0 has them without an extension
_SUB_GROUP_SIZES_INTEL = 0x4108


def describe(device: cl.Device) -> dict[str, Any]:
    """Raw strings, type, extensions and limits of a device; sizes in bytes where the name says nothing else.

    0 stands for "has none": images (`image2d_max_*`), images from buffers (`image_*_alignment`, in texels). An empty
    `subgroup_sizes` means that it has no subgroups or does not tell their size before a kernel is built.
    """
    platform = device.platform
    images = bool(device.image_support)
    extensions = device.extensions.split()
    from_buffer = images and "cl_khr_image2d_from_buffer" in extensions
    return {
        "name": device.name.strip(),
        "vendor": device.vendor.strip(),
        "version": device.version.strip(),
        "opencl_c_version": device.opencl_c_version.strip(),
        "driver_version": device.driver_version.strip(),
        "platform_name": platform.name.strip(),
        "platform_version": platform.version.strip(),
        "type": _type(device),
        "extensions": extensions,
        "max_work_group_size": device.max_work_group_size,
        "max_work_item_sizes": list(device.max_work_item_sizes),
        "local_mem_size": device.local_mem_size,
        "max_mem_alloc_size": device.max_mem_alloc_size,
        "global_mem_size": device.global_mem_size,
        "global_mem_cache_size": device.global_mem_cache_size,
        "last_level_cache_bytes": cpu_cache_bytes() if _type(device) == "cpu" else 0,
        "compute_units": device.max_compute_units,
        "vector_floats": cpu_vector_floats(device.native_vector_width_float) if _type(device) == "cpu" else 0,
        "max_clock_mhz": device.max_clock_frequency,
        "image2d_max_width": device.image2d_max_width if images else 0,
        "image2d_max_height": device.image2d_max_height if images else 0,
        "image_pitch_alignment": _number(device, _IMAGE_PITCH_ALIGNMENT) if from_buffer else 0,
        "image_base_address_alignment": _number(device, _IMAGE_BASE_ADDRESS_ALIGNMENT) if from_buffer else 0,
        "subgroup_sizes": _subgroup_sizes(device, extensions),
        "mem_base_addr_align_bytes": device.mem_base_addr_align // 8,  # OpenCL tells bits
        "profiling_timer_resolution_ns": device.profiling_timer_resolution,
    }


def _type(device: cl.Device) -> str:
    for name in ("GPU", "CPU"):
        if device.type & getattr(cl.device_type, name):
            return name.lower()
    return "other"


def cpu_cache_bytes(cpus: Path = Path("/sys/devices/system/cpu")) -> int:
    """The last-level caches by Linux, since Intel's runtime reports the second level. 0 = unknown.

    All that this process may use count: each chiplet of a large EPYC has its own, and a kernel's work is on them all.
    """
    found: dict[tuple[int, str], int] = {}  # (level, the cores that share it) → bytes
    for cpu in os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ():
        for index in (cpus / f"cpu{cpu}" / "cache").glob("index*"):
            try:
                level, shared, size = ((index / name).read_text() for name in ("level", "shared_cpu_list", "size"))
            except OSError:  # a virtual machine tells what it likes
                continue
            if match := re.fullmatch(r"(\d+)([KMG]?)\s*", size):
                found[int(level), shared] = int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]]
    last = max((level for level, _ in found), default=0)
    return sum(size for (level, _), size in found.items() if level == last)


def cpu_vector_floats(reported: int, cpuinfo: Path = Path("/proc/cpuinfo")) -> int:
    """Floats of the widest vector registers: by Linux's flags of an x86, else as the driver reports.

    Kernels name their vectors, so what counts is the registers there are, not the width a driver vectorises to.
    """
    try:
        flags = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.MULTILINE)
    except OSError:  # not Linux
        flags = None
    names = set(flags[1].split()) if flags else set()
    return 16 if "avx512f" in names else 8 if "avx" in names else reported


def _subgroup_sizes(device: cl.Device, extensions: list[str]) -> list[int]:
    """The sizes a kernel may ask for (Intel), else the one that a plain kernel gets, else none."""
    if "cl_intel_required_subgroup_size" in extensions:
        raw = _query(device, _SUB_GROUP_SIZES_INTEL)
        step = ctypes.sizeof(ctypes.c_size_t)
        return [int.from_bytes(raw[i : i + step], "little") for i in range(0, len(raw), step)]
    if "cl_khr_subgroups" not in extensions and not _number(device, _MAX_NUM_SUB_GROUPS):
        return []
    try:
        program = cl.Program(cl.Context([device]), "__kernel void one(__global int *a) { a[get_global_id(0)] = 1; }")
        size = program.build().one.get_sub_group_info(
            device, cl.kernel_sub_group_info.MAX_SUB_GROUP_SIZE_FOR_NDRANGE, [min(128, device.max_work_group_size)]
        )
    except cl.Error:
        return []
    return [int(size)] if size else []


def _number(device: cl.Device, query: int) -> int:
    return int.from_bytes(_query(device, query)[:4], "little")


def _query(device: cl.Device, query: int) -> bytes:
    """The raw answer to a clGetDeviceInfo query, empty where the driver does not know it.

    The function is looked up through pyopencl's own module, so that it is the one of the same ICD loader.
    """
    ask = ctypes.CDLL(cl._cl.__file__).clGetDeviceInfo
    size = ctypes.c_size_t()
    room = ctypes.create_string_buffer(1024)
    status = ask(ctypes.c_void_p(device.int_ptr), query, ctypes.c_size_t(len(room)), room, ctypes.byref(size))
    return room.raw[: size.value] if status == 0 else b""
