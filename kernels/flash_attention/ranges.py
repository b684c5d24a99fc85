"""What the variants that split the keys share: the launch that joins ranges, scratch, rules."""

from __future__ import annotations

from math import prod

from kernels.flash_attention.problem import heads_per_group
from kernels.spec import Ceil, Config, DeviceSheet, Launch, Rule, Schedule, Scratch, Size, Workload, evaluate

HEADS = (1, 2, 4, 7, 8, 16)
HEADS_RULE = Rule(
    "a tile's heads share a kv head: HEADS divides H / G",
    ("HEADS",),
    lambda c, w, s: heads_per_group(w) % c["HEADS"] == 0,
)


def ranges(config: Config) -> Size:
    """How many ranges of keys there are."""
    return (Ceil("T", config["SPLIT"]),) if config["SPLIT"] else (1,)


def schedule(attend: Launch, config: Config, joiners: int) -> Schedule:
    """The launch over ranges, whose arguments end in "o" and sizes, and the one that joins what they leave."""
    if not config["SPLIT"]:
        return Schedule((attend,))
    at = attend.args.index("o")
    args = (*attend.args[:at], "partial", "extent", *attend.args[at + 1 :])
    join = Launch(
        "join",
        ((Ceil("H", 1), joiners), (Ceil("M", 1),)),
        (joiners, 1),
        ("partial", "extent", "o", "M", "T", "H"),
    )
    rows = (*ranges(config), Ceil("M", 1), Ceil("H", 1))
    return Schedule(
        (Launch(attend.entry, attend.grid, attend.local, args), join),
        (Scratch("partial", (4, *rows, Ceil("D", 1))), Scratch("extent", (8, *rows))),
    )


def scratch_bytes(config: Config, workload: Workload) -> int:
    """Bytes that ranges leave, written once and read once."""
    if not config["SPLIT"]:
        return 0
    rows = (*ranges(config), Ceil("M", 1), Ceil("H", 1))
    return evaluate((4, *rows, Ceil("D", 1)), workload.dims) + evaluate((8, *rows), workload.dims)


def work_items(grid: tuple[Size, ...], workload: Workload) -> int:
    """Work-items of a grid."""
    return prod(evaluate(size, workload.dims) for size in grid)


def _worth(config: Config, workload: Workload, sheet: DeviceSheet) -> bool:
    """Two ranges at least; a single one needs no second launch."""
    return bool(config["SPLIT"] == 0) or workload.dims["T"] > config["SPLIT"]


SCRATCH_RULE = Rule(
    "what the ranges leave fits one allocation",
    ("SPLIT",),
    lambda c, w, s: scratch_bytes(c, w) <= s.max_alloc_bytes,
)
RANGES_RULE = Rule("there is more than one range of keys, or SPLIT is 0", ("SPLIT",), _worth, prunes=True)
