"""`blocks`: the variant for CPUs. A block of weights decoded into the first-level cache meets many tokens."""

from __future__ import annotations

from kernels import linear
from kernels.gemm_prefill import shapes
from kernels.source import source
from kernels.spec import (
    Ceil,
    Config,
    DeviceSheet,
    Launch,
    Rule,
    Schedule,
    Scratch,
    Size,
    Traffic,
    Variant,
    Workload,
    evaluate,
)

_SPAN = 2048  # inputs that a work-item of the first launch arranges, SPAN of blocks.cl


def _x_bytes(config: Config) -> Size:
    """x as floats, padded to a work-item's tokens and whole blocks."""
    tokens = config["TM"] * config["TILES"]
    return 4, Ceil("M", tokens), tokens, Ceil("K", config["KB"]), config["KB"]


def _grid(config: Config) -> tuple[Size, ...]:
    outputs = config["COLUMNS"] * config["TN"] * config["VEC"]
    return (Ceil("N", outputs),), (Ceil("M", config["TM"] * config["TILES"]),)


def _schedule(config: Config, workload: Workload) -> Schedule:
    arrange = Launch(
        entry="arrange",
        grid=((Ceil("K", _SPAN),), (Ceil("M", config["TM"]),)),
        local=(1, 1),
        args=("x", "xb", "M", "K"),
    )
    multiply = Launch(
        entry="gemm",
        grid=_grid(config),
        local=(1, 1),
        args=("xb", *shapes.weights(workload), *shapes.epilogue(workload), "y", "M", "N", "K"),
    )
    return Schedule((arrange, multiply), (Scratch("xb", _x_bytes(config)),))


def _private_bytes(config: Config, workload: Workload) -> int:
    """The block of weights and the sums of all tiles."""
    outputs = config["TN"] * config["VEC"]
    sums = config["COLUMNS"] * config["TILES"] * config["TM"] * shapes.matrices(workload)
    return int(4 * outputs * (config["KB"] + sums))


def _traffic(config: Config, workload: Workload, sheet: DeviceSheet) -> Traffic:
    tokens = evaluate(_grid(config)[1], workload.dims)
    return shapes.traffic(
        config,
        workload,
        tokens,
        moved=evaluate(_x_bytes(config), workload.dims),
        registers=int(config["VEC"] * (config["TN"] * (config["TM"] + 1) + 1)),
        items=evaluate(_grid(config)[0], workload.dims) * tokens,
    )


def _items(config: Config, workload: Workload) -> int:
    outputs, tokens = (evaluate(size, workload.dims) for size in _grid(config))
    return outputs * tokens


def _shares_work(config: Config, workload: Workload, sheet: DeviceSheet) -> bool:
    """At least two work-items for every core, or as small a share of the job as there is."""
    return _items(config, workload) >= 2 * sheet.compute_units or config["TILES"] * config["COLUMNS"] == 1


def spread(config: Config, workload: Workload, sheet: DeviceSheet) -> Config:
    """As many tiles of tokens to a decoding, then columns to a reading of x, as leave every core work.

    Columns beyond one want sixteen work-items a core, since work-items grow unequal where a core is disturbed. x of
    long prompts leaves the caches: 1024 × 2048 × 16384 on a machine whose memory others used, two Zen 5 cores, one →
    four columns: 62 → 83 % of the multiply-add probe on Intel's runtime, 62 → 82 % on PoCL. Two where registers are
    few: 1024 × 2048 × 2048, two Zen 3 cores, four → two columns and twice the KB: 45 → 54 % on PoCL.
    """
    fits = (tiles for tiles in (32, 16, 8, 4, 2) if config["TM"] * tiles <= min(128, 2 * workload.dims["M"] - 1))
    tiled = ({**config, "TILES": tiles} for tiles in fits)
    found = next((c for c in tiled if _shares_work(c, workload, sheet)), {**config, "TILES": 1})
    wide = ({**found, "COLUMNS": columns} for columns in ((4, 2) if sheet.vector_registers == 32 else (2,)))
    return next((c for c in wide if _items(c, workload) >= 16 * sheet.compute_units), found)


BLOCKS = Variant(
    name="blocks",
    source=source("gemm_prefill", "blocks.cl"),
    params={
        "P": (8, 16, 32, 64, 128),
        "VEC": (8, 16),
        "TM": (1, 2, 4, 6, 8, 12),
        "TN": (1, 2, 3, 4),
        "TILES": (1, 2, 4, 8, 16, 32),
        "COLUMNS": (1, 2, 4),
        "KB": (64, 128, 256),
        "DECODE": (1,),  # once for so many tokens that the way hardly counts
        "PREFETCH": (0, 1),
    },
    default={"P": 16, "VEC": 16, "TM": 8, "TN": 2, "TILES": 16, "COLUMNS": 1, "KB": 128, "DECODE": 1, "PREFETCH": 0},
    rules=(
        shapes.PANEL_RULE,
        Rule(
            "the sums of a tile fit the vector registers with the weights that they meet",
            ("VEC", "TM", "TN"),
            lambda c, w, s: (c["TM"] + 1) * c["TN"] * s.registers(c["VEC"]) < s.vector_registers,
            prunes=True,
        ),
        Rule(
            "there are eight sums at least, as an addition takes several cycles",
            ("VEC", "TM", "TN"),
            lambda c, w, s: c["TM"] * c["TN"] * s.registers(c["VEC"]) >= min(8, 2 * w.dims["M"]),
            prunes=True,
        ),
        shapes.TILE_RULE,
        Rule(
            "the tiles that share a block are no more than M has",
            ("TM", "TILES"),
            lambda c, w, s: c["TILES"] == 1 or c["TM"] * c["TILES"] < 2 * w.dims["M"],
            prunes=True,
        ),
        Rule(
            "the block of weights and the sums fit a core's second-level cache",
            ("TM", "TN", "VEC", "TILES", "COLUMNS", "KB"),
            lambda c, w, s: _private_bytes(c, w) <= 256 << 10,
        ),
        Rule(
            "the activations as floats fit one buffer",
            ("TM", "TILES", "KB"),
            lambda c, w, s: evaluate(_x_bytes(c), w.dims) <= s.max_alloc_bytes,
        ),
        Rule("every core has work", ("TM", "TN", "VEC", "TILES", "COLUMNS"), _shares_work, prunes=True),
    ),
    schedule=_schedule,
    traffic=_traffic,
    layouts=linear.layouts,
    workload_rules=(
        shapes.FLOAT_ONLY,
        Rule(
            "products are in float (half ones where the device has no halves)",
            (),
            lambda c, w, s: w.dtypes.compute != "fp16" or not s.has("cl_khr_fp16"),
        ),
        Rule("the device is a CPU", (), lambda c, w, s: s.kind == "cpu"),
    ),
)
