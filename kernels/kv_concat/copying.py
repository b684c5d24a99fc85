"""A KV concat that copies, as engines without in-place writing have it: a baseline to measure kv_concat against.

Transformer-Lite's figure 3 (a): the concatenation writes all cached rows and the new ones to another tensor, and that
is copied back to where the next token finds its cache. It is no variant of the family: nobody searches or emits it.
"""

from __future__ import annotations

from dataclasses import replace

from kernels.cache import cache_layouts
from kernels.kv_concat import FAMILY, shared
from kernels.source import source
from kernels.spec import (
    Ceil,
    Config,
    DeviceSheet,
    Family,
    Launch,
    Rule,
    Schedule,
    Scratch,
    Size,
    Traffic,
    Variant,
    Workload,
)

ENTRIES = ("concat", "take_back")  # what a token launches per layer, in order
_GROUP = 128  # work-items of a GPU's work-group at most
_CPU_ROWS = 4  # rows of a CPU's work-group


def second_copy_bytes(workload: Workload) -> int:
    """Bytes of the other tensors, K's and V's, of one layer: what writing in place does without."""
    return 2 * workload.dims["T"] * workload.dims["G"] * workload.dims["D"] * 2


def _row_items(config: Config, workload: Workload) -> int:
    return max(1, workload.dims["G"] * workload.dims["D"] // _piece(config))


def _piece(config: Config) -> int:
    """Halves of a work-item."""
    return 2 * int(config["WIDTH"]) * int(config["STEPS"])


def _schedule(config: Config, workload: Workload) -> Schedule:
    """Rows in the second dimension; on a CPU a work-item takes a row or a good part of one, on a GPU a vector."""
    items = _row_items(config, workload)
    across = min(_GROUP, 1 << (items.bit_length() - 1))
    down = _CPU_ROWS if items == 1 else 1
    rows: Size = (Ceil("T", down), down)
    width: Size = (across, -(-items // across))
    args = tuple(name for name in shared.arguments(workload) if name not in ("positions", "k", "v", "S", "M", "G", "H"))
    concat = (*args, "k", "v", "k_all", "v_all", "M", "T", "G", "H")
    back = ("k_all", "v_all", "k", "v", "T", "G")
    size: Size = (Ceil("T", 1), Ceil("G", 1), Ceil("D", 1), 2)
    return Schedule(
        (
            Launch(ENTRIES[0], (width, rows, (shared.tensors(workload),)), (across, down, 1), concat),
            Launch(ENTRIES[1], (width, rows, (2,)), (across, down, 1), back),
        ),
        (Scratch("k_all", size), Scratch("v_all", size)),
    )


def _traffic(config: Config, workload: Workload, sheet: DeviceSheet) -> Traffic:
    moved = 2.0 * second_copy_bytes(workload)
    return Traffic(read_bytes=moved, write_bytes=moved, flops=0.0)


_VARIANT = Variant(
    name="copying",
    source=source("kv_concat", "copying.cl"),
    params={"KL": (0,), "VL": (0,), "WIDTH": (4, 16), "STEPS": (1, 2, 4)},
    default={"KL": 0, "VL": 0, "WIDTH": 4, "STEPS": 1},
    rules=(
        Rule(
            "a work-item's vectors are within a row",
            ("WIDTH", "STEPS"),
            lambda c, w, s: w.dims["G"] * w.dims["D"] % _piece(c) == 0,
        ),
    ),
    schedule=_schedule,
    traffic=_traffic,
    layouts=cache_layouts,
    workload_rules=(
        Rule(
            "activations and cache are fp16: rows that nobody turns are copied as they are",
            (),
            lambda c, w, s: w.dtypes.cache == w.dtypes.act == "fp16",
        ),
    ),
)


def _default(workload: Workload, sheet: DeviceSheet) -> Config:
    """A CPU's work-item takes four lines of 64 bytes, a GPU's 128 bits, neighbours side by side.

    Of 1 to 32 lines four were the fastest or not told from it (PoCL, Zen 5, 128 and 2048 positions of 2 and 32 heads).
    """
    row = workload.dims["G"] * workload.dims["D"]
    if sheet.kind != "cpu" or row % 32:
        return _VARIANT.config()
    steps = max(n for n in _VARIANT.params["STEPS"] if row % (32 * n) == 0)
    return _VARIANT.config(WIDTH=16, STEPS=steps)


def _awkward(workload: Workload) -> tuple[Workload, ...]:
    """New rows at the end, as a concatenation has them: nothing before them, one, some, all."""
    shapes = ((1, 1), (1, 67), (5, 13), (37, 37))
    return tuple(workload.with_dims(M=m, T=t, S=t) for m, t in shapes)


COPYING: Family = replace(
    FAMILY,
    about="new K and V and all that is cached into other tensors, and back: a baseline",
    variants=(_VARIANT,),
    default=_default,
    awkward=_awkward,
    cover=lambda: (),
    jobs=lambda sheet, ask: ([], []),
)
