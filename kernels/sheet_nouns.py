"""What a device sheet holds: an identity, values with where each comes from, and traps of the drivers.

A value that no source tells is not in a sheet; `kernels.claims` says what stands in for it where legality needs one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kernels.spec import Denied

Kind = Literal["measured", "published", "inferred", "recalled"]
# measured: read from such a device, or timed on one. published: by its maker, or in source code of its driver.
# inferred: from other values by a rule the source names. recalled: public knowledge that nobody here has looked up.
KINDS: tuple[Kind, ...] = ("measured", "published", "inferred", "recalled")

# What each table of a sheet may hold, and of which type (`kernels.sheet_file` says what each takes).
KEYS: Mapping[str, Mapping[str, str]] = {
    "limits": {
        "max_work_group": "count",
        "kernel_work_group": "count",  # what a kernel compiles for that names no work-group size
        "max_work_item_sizes": "triple",
        "local_bytes": "count",
        "max_alloc_bytes": "count",  # the least that was seen, where products differ
        "global_bytes": "count",
        "constant_bytes": "count",
        "image2d": "pair",  # largest width and height in texels
        "image1d_buffer_texels": "count",
        "image_pitch_texels": "count",  # alignment of an image2d-from-buffer's row pitch
        "image_base_texels": "count",
        "mem_base_align_bytes": "count",
    },
    "execution": {
        "compute_units": "count",
        "subgroup_sizes": "counts",
        "wave": "count",  # work-items that execute together; of two widths, the one kernels are written for
        "threads_per_unit": "count",
        "waves_per_unit": "count",
    },
    "registers": {  # 32-bit ones of a work-item
        "full": "count",  # up to which every wave that a unit can hold fits
        "half": "count",  # up to which half of them do
        "most": "count",  # beyond which they spill to memory
        "rule": "text",
    },
    "caches": {
        "last_level_bytes": "count",
        "l1_bytes": "count",
        "texture_l1_bytes": "count",
        "line_bytes": "count",
        "image_line_bytes": "count",
        "local_in_dram": "flag",  # local memory is no memory of its own
    },
    "peaks": {  # one multiply-add is two operations
        "read_gb_per_s": "rate",
        "copy_gb_per_s": "rate",  # read plus written
        "fp32_gflops": "rate",
        "fp16_gflops": "rate",
        "int8_gops": "rate",
        "launch_ns": "rate",  # device time of an empty kernel
    },
    "language": {
        "opencl_c": "version",
        "extensions": "names",  # that matter to Kiln; others are not listed
        "without": "names",  # known to be missing
        "timer_resolution_ns": "count",
        "timer_step_ns": "count",  # smallest difference seen between two stamps
    },
}


@dataclass(frozen=True)
class Strings:
    """What a live device says of itself, as far as it tells one model from another."""

    name: str
    version: str = ""
    opencl_c_version: str = ""
    vendor: str = ""
    platform: str = ""
    type: str = ""

    @staticmethod
    def of(description: Mapping[str, Any]) -> Strings:
        """From a runner's description (harness.runner.describe), or from what a document quotes of one."""
        keys = ("name", "version", "opencl_c_version", "vendor", "platform_name", "type")
        return Strings(*(str(description.get(key, "")) for key in keys))


@dataclass(frozen=True)
class Identity:
    """How a device model is called and how a live device of that model is recognised."""

    name: str  # as in --device: the file's stem
    vendor: str
    model: str  # for people
    type: Literal["gpu", "cpu"]
    match: tuple[str, ...]  # regular expressions; one of them found in a device's names and versions is a match
    platform: str | None = None  # a regular expression that the platform's name meets; None: any platform

    def matches(self, device: Strings) -> bool:
        """Whether a device with these strings is of this model.

        The name, the version and OpenCL C's version are looked at: Adreno's name often lacks its model.
        """
        if device.type and device.type != self.type:
            return False
        if self.platform is not None and not re.search(self.platform, device.platform, re.IGNORECASE):
            return False
        texts = f"{device.name}\n{device.version}\n{device.opencl_c_version}"
        return any(re.search(pattern, texts, re.IGNORECASE) for pattern in self.match)


@dataclass(frozen=True)
class Value:
    """One value of a sheet."""

    value: Any
    kind: Kind
    sources: tuple[str, ...]  # in words


@dataclass(frozen=True)
class Trap:
    """Something that a driver is known to get wrong."""

    what: str
    compiler: tuple[str, ...]  # all must hold for it to be there, as in a document's deny rules; () = every compiler
    guard: str  # what is done about it
    kind: Kind
    sources: tuple[str, ...]
    deny: tuple[Denied, ...] = ()  # configurations that are not run because of it


@dataclass(frozen=True)
class Sheet:
    """Everything that is claimed of one device model."""

    identity: Identity
    values: Mapping[str, Value]  # by table and key: "limits.local_bytes"
    traps: tuple[Trap, ...] = ()

    @property
    def name(self) -> str:
        """As in --device."""
        return self.identity.name

    def get(self, key: str) -> Any:
        """A value, lists as tuples; None where no source tells it."""
        found = self.values.get(key)
        return None if found is None else found.value
