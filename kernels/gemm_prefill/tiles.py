"""The variants for GPUs: `tile` (registers alone), `staged` (activations in local memory), `image`, and `dequant`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kernels import linear
from kernels.gemm_prefill import shapes
from kernels.layouts import CODES
from kernels.source import source
from kernels.spec import (
    Ceil,
    Config,
    DeviceSheet,
    ImageView,
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

_PITCH = 64  # texels: PITCH of image.cl
_DEQUANTISE_WG = 16  # work-items of a work-group of the launch that dequantises


# ---------------------------------------------------------------- launches


def _grid(config: Config) -> tuple[Size, ...]:
    wgn, wgm = config["WGN"], config["WGM"]
    return (Ceil("N", wgn * config["VEC"] * config["BLOCKS"]), wgn), (Ceil("M", wgm * config["TM"]), wgm)


def _multiply(config: Config, workload: Workload, x: str | ImageView, weights: tuple[str | ImageView, ...]) -> Launch:
    args = (x, *weights, *shapes.epilogue(workload), "y", "M", "N", "K")
    return Launch("gemm", _grid(config), (config["WGN"], config["WGM"]), args)


def _plain(config: Config, workload: Workload) -> Schedule:
    return Schedule((_multiply(config, workload, "x", shapes.weights(workload)),))


def _view(config: Config, workload: Workload, name: str) -> ImageView:
    """Row: a panel. Column: word along K, then four outputs of the panel."""
    codes = CODES[workload.format.kind]
    return ImageView(name, "RGBA", "uint32", (Ceil("K", codes), config["P"] // 4), (Ceil("N", config["P"]),))


def _x_view(workload: Workload) -> ImageView:
    """Row: four inputs. Column: token."""
    kind = "fp16" if workload.dtypes.act == "fp16" else "fp32"
    return ImageView("xi", "RGBA", kind, (Ceil("M", _PITCH), _PITCH), (Ceil("K", 4),))  # type: ignore[arg-type]


def _x_bytes(workload: Workload) -> Size:
    return Ceil("M", _PITCH), _PITCH, Ceil("K", 4), 4 * shapes.act_bytes(workload)


def _images(config: Config, workload: Workload) -> Schedule:
    names = shapes.weights(workload)
    weights = tuple(_view(config, workload, name) if name.startswith("w") else name for name in names)
    if not config["XIMAGE"]:
        return Schedule((_multiply(config, workload, "x", weights),))
    arrange = Launch("arrange", ((Ceil("M", _PITCH), _PITCH), (Ceil("K", 4),)), (_PITCH, 1), args=("x", "xi", "M", "K"))
    multiply = _multiply(config, workload, _x_view(workload), weights)
    return Schedule((arrange, multiply), (Scratch("xi", _x_bytes(workload)),))


def _ready_bytes(config: Config, workload: Workload) -> Size:
    """A dequantised matrix: halves where products are in half, else floats."""
    return Ceil("N", config["P"]), config["P"], Ceil("K", 1), 2 if workload.dtypes.compute == "fp16" else 4


def _dequantised(config: Config, workload: Workload) -> Schedule:
    names = ("w", "w_up")[: shapes.matrices(workload)]
    grid = (
        (Ceil("N", config["P"]), config["P"] // config["VEC"]),
        (Ceil("K", CODES[workload.format.kind] * _DEQUANTISE_WG), _DEQUANTISE_WG),
    )
    ready = tuple(f"{name}_ready" for name in names)
    launches = [
        Launch("dequantise", grid, (1, _DEQUANTISE_WG), (name, name.replace("w", "sb"), to, "N", "K"))
        for name, to in zip(names, ready, strict=True)
    ]
    launches.append(_multiply(config, workload, "x", ready))
    return Schedule(tuple(launches), tuple(Scratch(name, _ready_bytes(config, workload)) for name in ready))


# ---------------------------------------------------------------- traffic


def _registers(config: Config, workload: Workload) -> int:
    """32-bit registers for the sums, the weights of one step and a token's activations that meet them."""
    halves = 2 if workload.dtypes.compute == "fp16" else 1  # halves of a unit pack two to a register
    step = 8 if config["variant"] == "dequant" else CODES[workload.format.kind]
    columns = config["BLOCKS"] * config["VEC"] * shapes.matrices(workload)
    half_sums = columns * config["TM"] if workload.dtypes.acc == "fp16" else 0
    return int(columns * (config["TM"] + step // halves) + half_sums + step // halves)


def _local_bytes(config: Config, workload: Workload) -> int:
    item = 2 if workload.dtypes.compute == "fp16" else 4
    return int(config["WGM"] * config["TM"] * config["KS"] * item) if "KS" in config else 0


def _traffic(config: Config, workload: Workload, sheet: DeviceSheet, moved: float = 0.0) -> Traffic:
    items, tiles = (evaluate(size, workload.dims) for size in _grid(config))
    return shapes.traffic(
        config,
        workload,
        tiles,
        moved=moved,
        local=_local_bytes(config, workload),
        registers=_registers(config, workload),
        items=items * tiles,
    )


def _image_traffic(config: Config, workload: Workload, sheet: DeviceSheet) -> Traffic:
    return _traffic(config, workload, sheet, evaluate(_x_bytes(workload), workload.dims) if config["XIMAGE"] else 0)


def _ready_traffic(config: Config, workload: Workload, sheet: DeviceSheet) -> Traffic:
    """Packed weights once, decoded ones once written and once per tile of tokens read."""
    items, tiles = (evaluate(size, workload.dims) for size in _grid(config))
    ready = shapes.matrices(workload) * evaluate(_ready_bytes(config, workload), workload.dims)
    once = shapes.traffic(config, workload, 1, moved=ready, registers=_registers(config, workload), items=items * tiles)
    return Traffic(
        once.read_bytes + (tiles - 1) * ready,
        once.write_bytes,
        once.flops,
        registers=once.registers,
        work_items=once.work_items,
    )


# ---------------------------------------------------------------- legality


def _fits_image(view: ImageView, workload: Workload, sheet: DeviceSheet) -> bool:
    largest = sheet.image2d or (0, 0)
    return evaluate(view.width, workload.dims) <= largest[0] and evaluate(view.height, workload.dims) <= largest[1]


def _pitch_fits(config: Config, workload: Workload, sheet: DeviceSheet) -> bool:
    """Decided from the smallest step of K, so that it holds for every K that the workload's bucket may have."""
    texels = (workload.format.group or 8) // CODES[workload.format.kind] * config["P"] // 4
    return sheet.image_pitch_texels > 0 and texels % sheet.image_pitch_texels == 0


def _suits(config: Config, workload: Workload, sheet: DeviceSheet) -> bool:
    """GPUs want a wave at least and neighbours that read a line; a CPU is served by few work-items."""
    items = config["WGN"] * config["WGM"]
    return bool(items <= 8 if sheet.kind == "cpu" else 32 <= items <= 256)


_VECTORS = (shapes.PANEL_RULE, shapes.LOAD_RULE)  # images have but one width
_RULES = (
    Rule(
        "sums, weights and activations of a tile fit the registers",
        ("TM", "VEC", "BLOCKS"),
        lambda c, w, s: _registers(c, w) <= (512 if s.kind == "cpu" else 128),
    ),
    # Beyond it Intel's runtime compiles for more than half a minute and nothing gains.
    Rule(
        "the unrolled step stays small: TM · BLOCKS · matrices ≤ 32",
        ("TM", "BLOCKS"),
        lambda c, w, s: c["TM"] * c["BLOCKS"] * shapes.matrices(w) <= 32,
    ),
    shapes.TILE_RULE,
    Rule(
        "the tokens of a work-group are no more than M needs",
        ("TM", "WGM"),
        lambda c, w, s: c["WGM"] == 1 or c["TM"] * c["WGM"] < 2 * w.dims["M"],
        prunes=True,
    ),
    Rule(
        "neighbouring work-items read a line of 64 bytes at least",
        ("P", "VEC"),
        lambda c, w, s: c["P"] >= 16 or c["P"] == c["VEC"],
        prunes=True,
    ),
    Rule("the work-group suits the kind of device", ("WGN", "WGM"), _suits, prunes=True),
    Rule(
        "the work-group is within the device's limits",
        ("WGN", "WGM"),
        lambda c, w, s: (
            c["WGN"] * c["WGM"] <= s.max_work_group
            and c["WGN"] <= s.max_work_item_sizes[0]
            and c["WGM"] <= s.max_work_item_sizes[1]
        ),
    ),
)

_TILE: Mapping[str, tuple[Any, ...]] = {
    "P": linear.PANELS,
    "VEC": (1, 2, 4, 8),
    "BLOCKS": (1, 2, 4),
    "TM": (1, 2, 4, 8, 16),
    "WGN": (1, 8, 16, 32, 64, 128),
    "WGM": (1, 2, 4, 8),
}


TILE = Variant(
    name="tile",
    source=source("gemm_prefill", "tile.cl"),
    params={**_TILE, "DECODE": (0, 1, 2)},
    default={"P": 64, "VEC": 4, "BLOCKS": 1, "TM": 4, "WGN": 16, "WGM": 4, "DECODE": 1},
    rules=(shapes.DECODE_RULE, *_VECTORS, *_RULES),
    schedule=_plain,
    traffic=_traffic,
    layouts=linear.layouts,
    workload_rules=(shapes.FLOAT_ONLY,),
    any_local=True,
)

STAGED = Variant(
    name="staged",
    source=source("gemm_prefill", "staged.cl"),
    params={**_TILE, "KS": (32, 64), "DECODE": (0, 1)},
    default={"P": 64, "VEC": 2, "BLOCKS": 1, "TM": 8, "WGN": 32, "WGM": 2, "KS": 32, "DECODE": 1},
    rules=(
        shapes.DECODE_RULE,
        *_VECTORS,
        *_RULES,
        Rule("a staged chunk is a part of a group", ("KS",), lambda c, w, s: linear.chunk(w) % c["KS"] == 0),
        Rule(
            "the staged activations fit local memory",
            ("TM", "WGM", "KS"),
            lambda c, w, s: _local_bytes(c, w) <= s.local_bytes,
        ),
        Rule(
            "several work-items read what is staged",
            ("WGN",),
            lambda c, w, s: c["WGN"] >= 8,
        ),
    ),
    schedule=_plain,
    traffic=_traffic,
    layouts=linear.layouts,
    workload_rules=(shapes.FLOAT_ONLY,),
)

IMAGE = Variant(
    name="image",
    source=source("gemm_prefill", "image.cl"),
    params={**_TILE, "VEC": (4,), "XIMAGE": (0, 1), "DECODE": (0, 1)},  # a texel is four words
    default={"P": 64, "VEC": 4, "BLOCKS": 1, "TM": 8, "WGN": 16, "WGM": 4, "XIMAGE": 1, "DECODE": 1},
    rules=(
        shapes.DECODE_RULE,
        *_RULES,
        Rule(
            "the images are within the device's largest",
            ("P", "XIMAGE"),
            lambda c, w, s: _fits_image(_view(c, w, "w"), w, s) and (not c["XIMAGE"] or _fits_image(_x_view(w), w, s)),
        ),
        Rule("rows of the weights' image are whole pitches at every K", ("P",), _pitch_fits),
        Rule(
            "rows of the activations' image are whole pitches",
            ("XIMAGE",),
            lambda c, w, s: not c["XIMAGE"] or (s.image_pitch_texels > 0 and _PITCH % s.image_pitch_texels == 0),
        ),
    ),
    schedule=_images,
    traffic=_image_traffic,
    layouts=linear.layouts,
    workload_rules=(shapes.FLOAT_ONLY,),
    needs=("cl_khr_image2d_from_buffer",),
)

DEQUANT = Variant(
    name="dequant",
    source=source("gemm_prefill", "dequant.cl"),
    params={**_TILE, "VEC": (1, 2, 4, 8, 16), "DECODE": (1,)},
    default={"P": 64, "VEC": 4, "BLOCKS": 1, "TM": 8, "WGN": 16, "WGM": 4, "DECODE": 1},
    rules=(*_VECTORS, *_RULES, shapes.HALF_RULE),
    schedule=_dequantised,
    traffic=_ready_traffic,
    layouts=linear.layouts,
    workload_rules=(
        shapes.FLOAT_ONLY,
        Rule("the weights are quantised", (), lambda c, w, s: w.format.kind != "fp16"),
        Rule(
            "the dequantised weights fit one buffer",
            (),
            lambda c, w, s: 4 * w.dims["N"] * w.dims["K"] <= s.max_alloc_bytes,
        ),
    ),
)
