"""What a device reaches at most, as far as a sheet knows it: what a cost model divides by where nothing was probed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Peaks:
    """Rates per nanosecond, so bytes come as GB/s and FLOPs as GFLOPS; one multiply-add is two FLOPs.

    What no source tells is None where the type allows it, absent from `flops_per_ns`, and 0 in `launch_ns`,
    `last_level_cache_bytes` and `compute_units`: a term that then never binds. The read rate is always known: a sheet
    without one gives no peaks.
    """

    read_per_ns: float
    copy_per_ns: float | None  # bytes read plus bytes written
    flops_per_ns: Mapping[str, float]  # by compute type of a workload: fp32, fp16, int8
    launch_ns: float  # device time of an empty kernel
    last_level_cache_bytes: int
    registers_per_work_item: int | None  # 32-bit registers up to which half of the waves that fit at most still do
    wave: int | None  # work-items that execute together, the width that kernels are written for
    compute_units: int
