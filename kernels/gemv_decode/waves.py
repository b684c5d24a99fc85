"""`wave_k` and `image`: waves of a work-group side by side along K; weights from buffer or image."""

from __future__ import annotations

from kernels import linear
from kernels.gemv_decode import outputs
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
    Size,
    Traffic,
    Variant,
    Workload,
    evaluate,
)


def _grid(config: Config) -> tuple[Size, ...]:
    lanes = config["LANES"]
    return (Ceil("N", lanes * config["VEC"]), lanes), (config["WAVES"],), outputs.token_tiles(config)


def _launch(config: Config, args: tuple[str | ImageView, ...]) -> Schedule:
    return Schedule((Launch("gemv", _grid(config), (config["LANES"], config["WAVES"], 1), args),))


def _from_buffer(config: Config, workload: Workload) -> Schedule:
    return _launch(config, outputs.arguments(workload, "y"))


def _view(config: Config, workload: Workload) -> ImageView:
    """Row: a panel. Column: word along K, then four outputs of the panel."""
    codes = CODES[workload.format.kind]
    return ImageView("w", "RGBA", "uint32", (Ceil("K", codes), config["P"] // 4), (Ceil("N", config["P"]),))


def _from_image(config: Config, workload: Workload) -> Schedule:
    x, _, *rest = outputs.arguments(workload, "y")
    return _launch(config, (x, _view(config, workload), *rest))


def _local_bytes(config: Config, workload: Workload) -> int:
    others = (config["WAVES"] - 1) * config["LANES"] * config["VEC"] * 4
    return outputs.local_bytes(config, workload, config["WAVES"]) + int(others)


def _traffic(config: Config, workload: Workload, sheet: DeviceSheet) -> Traffic:
    items = 1
    for size in _grid(config):
        items *= evaluate(size, workload.dims)
    return outputs.traffic(config, workload, items, _local_bytes(config, workload))


def _shares(config: Config, workload: Workload, sheet: DeviceSheet) -> bool:
    return bool(workload.dims["K"] >= config["WAVES"] * linear.chunk(workload))


def _image_fits(config: Config, workload: Workload, sheet: DeviceSheet) -> bool:
    view = _view(config, workload)
    largest = sheet.image2d or (0, 0)
    return evaluate(view.width, workload.dims) <= largest[0] and evaluate(view.height, workload.dims) <= largest[1]


def _pitch_fits(config: Config, workload: Workload, sheet: DeviceSheet) -> bool:
    """Decided from the smallest step of K, so that it holds for every K that the workload's bucket may have."""
    texels = (workload.format.group or 8) // CODES[workload.format.kind] * config["P"] // 4
    return sheet.image_pitch_texels > 0 and texels % sheet.image_pitch_texels == 0


_RULES = (
    outputs.DECODE_RULE,
    outputs.TOKENS_RULE,
    outputs.register_rule("VEC", "MT"),
    Rule(
        "the work-group is allowed",
        ("LANES", "WAVES"),
        lambda c, w, s: c["LANES"] * c["WAVES"] <= s.max_work_group and c["WAVES"] <= s.max_work_item_sizes[1],
    ),
    Rule("every wave has a share of K", ("WAVES",), _shares),
    Rule(
        "staged activations and partial sums fit local memory",
        ("XLOCAL", "MT", "WAVES", "LANES", "VEC"),
        lambda c, w, s: _local_bytes(c, w) <= s.local_bytes,
    ),
)

WAVE_K = Variant(
    name="wave_k",
    source=source("gemv_decode", "wave_k.cl"),
    params={
        "P": linear.PANELS,
        "VEC": (1, 2, 4),
        "LANES": (16, 32, 64, 128),
        "WAVES": (1, 2, 4, 8),
        "MT": outputs.TOKENS,
        "XLOCAL": (0, 1),
        "UNROLL": (1, 4),
        "DECODE": (0, 1, 2),
    },
    default={"P": 64, "VEC": 1, "LANES": 64, "WAVES": 2, "MT": 1, "XLOCAL": 0, "UNROLL": 4, "DECODE": 1},
    rules=(
        *_RULES,
        Rule(
            "neighbouring lanes read a line of 64 bytes at least",
            ("P", "VEC"),
            lambda c, w, s: c["P"] >= 16 or c["P"] == c["VEC"],
        ),
    ),
    schedule=_from_buffer,
    traffic=_traffic,
    layouts=linear.layouts,
    workload_rules=(
        outputs.FLOAT_ONLY,
        Rule("the device is a GPU (a CPU takes panel's explicit vectors)", (), lambda c, w, s: s.kind != "cpu"),
    ),
)

IMAGE = Variant(
    name="image",
    source=source("gemv_decode", "image.cl"),
    params={
        "P": linear.PANELS,
        "VEC": (4,),  # a texel is four words
        "LANES": (8, 16, 32, 64, 128),
        "WAVES": (1, 2, 4, 8),
        "MT": outputs.TOKENS,
        "XLOCAL": (0, 1),
        "UNROLL": (1, 4),
        "DECODE": (0, 1, 2),
    },
    default={"P": 64, "VEC": 4, "LANES": 16, "WAVES": 4, "MT": 1, "XLOCAL": 0, "UNROLL": 4, "DECODE": 1},
    rules=(
        *_RULES,
        Rule("the image is within the device's largest", ("P",), _image_fits),
        Rule("rows of the image are whole pitches at every K", ("P",), _pitch_fits),
    ),
    schedule=_from_image,
    traffic=_traffic,
    layouts=linear.layouts,
    workload_rules=(outputs.FLOAT_ONLY,),
    needs=("cl_khr_image2d_from_buffer",),
)
