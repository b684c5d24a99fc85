"""The KV cache's storage: element formats, layouts of K and V, their scales; shared by who writes and who reads.

A cache tensor holds S positions × G kv heads × D dims. Formats (`dtypes.cache`) are fp16, int8 and int4; a quantised
one has a scale (int8: x = scale · q, q −127…127) or a scale and bias (int4: x = scale · q + bias, q 0…15) per head row,
that is per position and head. Layouts, one per tensor ("k" and "v" of a `layouts` mapping):

    sgd       rows [S][G][D]: sequence first, as in Transformer-Lite §2.3
    gsd       rows [G][S][D]: head-major
    gpd{B}    panels [G][ceil(S/B)][D][B]: B = 8, 16, 32 or 64 positions side by side, so that neighbouring lanes, or
              the lanes of a vector, serve neighbouring positions with one load; positions beyond S are zero

int4 holds two dims a byte, even d in the low nibble: [..][D/2] in rows, [..][D/2][B] in panels, where a byte has dims
2i and 2i+1 of one position. Scales are halves (int8) or half pairs (scale, bias) (int4): [S][G] beside sgd, [G][S]
beside gsd, [G][ceil(S/B)·B] beside panels, zero beyond S.

In a kernel's source a layout is an int, the parameters KL and VL: 0 = sgd, 1 = gsd, B = gpd{B}; see
`_common/cache.clh`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from kernels.spec import Config, Workload
from reference.kv_cache import dequantise_rows, quantise_rows_int4, quantise_rows_int8

Array = np.ndarray[Any, Any]
Kind = Literal["fp16", "int8", "int4"]

CACHES: tuple[Kind, ...] = ("fp16", "int8", "int4")
HEAD_DIMS = (32, 64, 72, 80, 96, 128, 256)
PANELS = (8, 16, 32, 64)
LAYOUT_PARAMS = (0, 1, *PANELS)  # values of KL and VL
_STORED: Mapping[str, Any] = {"fp16": np.float16, "int8": np.int8, "int4": np.uint8}
_PATTERN = re.compile(r"sgd|gsd|gpd(?P<panel>\d+)")

# What every family's default reads on a kind of device, so that untuned families share one cache too.
DEFAULT_LAYOUTS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {kind: MappingProxyType({"k": "gsd", "v": "gsd"}) for kind in ("cpu", "gpu", "other")}
)


@dataclass(frozen=True)
class CacheLayout:
    """How one cache tensor is arranged."""

    name: str

    @staticmethod
    def parse(text: str) -> CacheLayout:
        """Read `sgd`, `gsd` or `gpd{B}`. Raises ValueError naming the choices."""
        match = _PATTERN.fullmatch(text)
        if match is None or (match["panel"] and int(match["panel"]) not in PANELS):
            raise ValueError(
                f'unknown cache layout "{text}"; choose sgd, gsd or gpd{{B}} with B = {", ".join(map(str, PANELS))} '
                f"positions side by side"
            )
        return CacheLayout(text)

    @staticmethod
    def of(param: int) -> CacheLayout:
        """The layout that a value of KL or VL stands for. Raises ValueError naming the choices."""
        return CacheLayout.parse({0: "sgd", 1: "gsd"}.get(param, f"gpd{param}"))

    @property
    def param(self) -> int:
        """The value of KL or VL."""
        return {"sgd": 0, "gsd": 1}.get(self.name, self.panel)

    @property
    def panel(self) -> int:
        """Positions side by side; 0 where the layout has rows."""
        return int(self.name[3:]) if self.name.startswith("gpd") else 0

    def __str__(self) -> str:
        return self.name

    def shape(self, S: int, G: int, D: int, kind: Kind) -> tuple[int, ...]:
        """Shape of the stored tensor: bytes of two codes for int4, else elements."""
        units = D // 2 if kind == "int4" else D
        if self.panel:
            return G, -(-S // self.panel), units, self.panel
        return (S, G, units) if self.name == "sgd" else (G, S, units)

    def scales_shape(self, S: int, G: int, kind: Kind) -> tuple[int, ...]:
        """Shape of the stored scales, halves. Raises ValueError for fp16, which has none."""
        if kind == "fp16":
            raise ValueError("an fp16 cache has no scales")
        pair = (2,) if kind == "int4" else ()
        if self.panel:
            return (G, -(-S // self.panel) * self.panel, *pair)
        return (S, G, *pair) if self.name == "sgd" else (G, S, *pair)


@dataclass(frozen=True, eq=False)
class CacheTensor:
    """K or V before any layout: float16, int8 codes or int4 codes (uint8 0…15) [S, G, D] with their scales."""

    codes: Array  # [S, G, D]
    scale: Array | None = None  # float16 [S, G]; None for fp16
    bias: Array | None = None  # float16 [S, G]; int4 alone has one

    @property
    def kind(self) -> Kind:
        """The element format."""
        return cache_kind(self.codes)

    @property
    def values(self) -> Array:
        """What it stands for: float64 [S, G, D]."""
        return dequantise_rows(self.codes, self.scale, self.bias)


def cache_kind(array: Array) -> Kind:
    """The format whose codes (or stored elements) have this array's type. Raises ValueError where none has."""
    for kind in CACHES:
        if array.dtype == _STORED[kind]:
            return kind
    raise ValueError(f"a cache holds float16, int8 or uint8, not {array.dtype}")


# ---------------------------------------------------------------- arranged in memory


def pack_cache(codes: Array, layout: CacheLayout) -> Array:
    """Canonical codes [S, G, D] → stored tensor of shape `layout.shape(S, G, D, kind)`."""
    S = codes.shape[0]
    if cache_kind(codes) == "int4":
        codes = codes[..., 0::2] | codes[..., 1::2] << np.uint8(4)
    if layout.name == "sgd":
        return np.ascontiguousarray(codes)
    heads = codes.transpose(1, 0, 2)
    if not layout.panel:
        return np.ascontiguousarray(heads)
    panels = -(-S // layout.panel)
    packed = np.zeros((heads.shape[0], panels, heads.shape[2], layout.panel), codes.dtype)
    for p in range(panels):
        part = heads[:, p * layout.panel : (p + 1) * layout.panel]
        packed[:, p, :, : part.shape[1]] = part.transpose(0, 2, 1)
    return packed


def unpack_cache(stored: Array, layout: CacheLayout, S: int) -> Array:
    """Canonical codes [S, G, D] again: the inverse of `pack_cache`, the padding dropped."""
    if layout.panel:
        G, panels, units, B = stored.shape
        heads = stored.transpose(0, 1, 3, 2).reshape(G, panels * B, units)[:, :S]
        rows = heads.transpose(1, 0, 2)
    else:
        rows = stored if layout.name == "sgd" else stored.transpose(1, 0, 2)
    if cache_kind(stored) != "int4":
        return np.ascontiguousarray(rows)
    codes = np.empty((*rows.shape[:2], 2 * rows.shape[2]), np.uint8)
    codes[..., 0::2] = rows & 15
    codes[..., 1::2] = rows >> 4
    return codes


def pack_cache_scales(scale: Array, bias: Array | None, layout: CacheLayout) -> Array:
    """Scale, and bias if there is one, float16 [S, G] → stored halves of shape `layout.scales_shape(S, G, kind)`."""
    both = scale if bias is None else np.stack([scale, bias], axis=-1)
    if layout.name == "sgd":
        return np.ascontiguousarray(both)
    heads = np.swapaxes(both, 0, 1)
    if not layout.panel:
        return np.ascontiguousarray(heads)
    S = heads.shape[1]
    packed = np.zeros((heads.shape[0], -(-S // layout.panel) * layout.panel, *heads.shape[2:]), np.float16)
    packed[:, :S] = heads
    return packed


def unpack_cache_scales(stored: Array, layout: CacheLayout, S: int) -> tuple[Array, Array | None]:
    """Scale [S, G], and bias where the stored halves are pairs: the inverse of `pack_cache_scales`."""
    rows = stored if layout.name == "sgd" else np.swapaxes(stored[:, :S], 0, 1)
    return (rows, None) if rows.ndim == 2 else (rows[..., 0], rows[..., 1])


def pack_tensor(name: str, tensor: CacheTensor, layout: CacheLayout) -> dict[str, Array]:
    """`k` (or `v`), and `ks` (`vs`) where the format has scales, by ABI name."""
    packed = {name: pack_cache(tensor.codes, layout)}
    if tensor.scale is not None:
        packed[f"{name}s"] = pack_cache_scales(tensor.scale, tensor.bias, layout)
    return packed


def unpack_tensor(name: str, stored: Mapping[str, Array], layout: CacheLayout, S: int) -> CacheTensor:
    """The inverse of `pack_tensor`."""
    codes = unpack_cache(stored[name], layout, S)
    if f"{name}s" not in stored:
        return CacheTensor(codes)
    return CacheTensor(codes, *unpack_cache_scales(stored[f"{name}s"], layout, S))


# ---------------------------------------------------------------- some positions of what is stored


def at_positions(stored: Array, layout: CacheLayout, positions: Array) -> tuple[Any, ...]:
    """The index of these positions in a stored tensor or its scales."""
    if layout.name == "sgd":
        return (positions,)
    if layout.panel and stored.ndim == 4:
        return slice(None), positions // layout.panel, slice(None), positions % layout.panel
    return slice(None), positions


def take_positions(name: str, stored: Mapping[str, Array], layout: CacheLayout, positions: Array) -> CacheTensor:
    """The cache [M, G, D] of these positions alone, from what `pack_tensor` gives."""
    parts = {}
    for part in (name, f"{name}s"):
        if part in stored:
            rows = stored[part][at_positions(stored[part], layout, positions)]
            panels = layout.panel and stored[part].ndim == 4  # NumPy puts indexed dims first when a slice parts them
            parts[part] = rows if layout.name == "sgd" or panels else np.swapaxes(rows, 0, 1)
    return unpack_tensor(name, parts, CacheLayout("sgd"), len(positions))


# ---------------------------------------------------------------- made for cases


def quantise_rows(x: Array, kind: Kind) -> CacheTensor:
    """Numbers [S, G, D] as a cache of that kind holds them, by the reference's quantisation."""
    if kind == "fp16":
        return CacheTensor(np.asarray(x, np.float64).astype(np.float16))
    if kind == "int8":
        return CacheTensor(*quantise_rows_int8(x))
    return CacheTensor(*quantise_rows_int4(x))


def draw_cache(rng: np.random.Generator, kind: Kind, S: int, G: int, D: int) -> CacheTensor:
    """A random cache with a standard deviation near 1, drawn as bytes: 65,536 positions take a second, not a minute."""
    if kind == "fp16":
        # Random sign and mantissa, exponents 2⁻³ … 2⁰.
        bits = _random_bytes(rng, (S, G, 2 * D)).view(np.uint16)
        bits &= np.uint16(0x8FFF)
        bits += np.uint16(0x3000)
        return CacheTensor(bits.view(np.float16))
    spread = rng.uniform(0.5, 1.5, (S, G))
    codes = _random_bytes(rng, (S, G, D))
    if kind == "int8":
        signed = codes.view(np.int8)
        np.maximum(signed, -127, out=signed)
        return CacheTensor(signed, (spread * 3**0.5 / 127).astype(np.float16))
    codes &= np.uint8(15)
    scale = (spread * 0.217).astype(np.float16)  # codes uniform over 0…15 deviate by 4.61
    return CacheTensor(codes, scale, (-7.5 * scale.astype(np.float64)).astype(np.float16))


def _random_bytes(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    count = int(np.prod(shape))
    words = rng.integers(0, 2**64, -(-count // 8), dtype=np.uint64)
    return words.view(np.uint8)[:count].reshape(shape)


# ---------------------------------------------------------------- as families and sources read it


def row_bytes(kind: Kind, D: int) -> float:
    """Bytes of one head row with its scale."""
    return {"fp16": 2 * D, "int8": D + 2, "int4": D / 2 + 4}[kind]


def workload_kind(workload: Workload) -> Kind:
    """The cache format of a workload. Raises ValueError where its policy names none."""
    if workload.dtypes.cache is None:
        raise ValueError(f"{workload.key} has a KV cache, but its dtype policy no cache type")
    return workload.dtypes.cache


def cache_defines(workload: Workload) -> dict[str, int | float]:
    """Cache format, head size and dtype policy, as `_common/cache.clh` and `_common/types.clh` read them."""
    return {
        "CACHE": CACHES.index(workload_kind(workload)),
        "HEAD_DIM": workload.dims["D"],
        "ACT_FP16": int(workload.dtypes.act == "fp16"),
        "COMPUTE_FP16": int(workload.dtypes.compute == "fp16"),
        "ACC_FP16": int(workload.dtypes.acc == "fp16"),
    }


def cache_layouts(config: Config, workload: Workload) -> Mapping[str, str]:
    """Layouts of K and V that a configuration's KL and VL name."""
    return {"k": str(CacheLayout.of(config["KL"])), "v": str(CacheLayout.of(config["VL"]))}


def default_params(kind: str) -> dict[str, int]:
    """KL and VL of a kind of device's default layouts."""
    names = DEFAULT_LAYOUTS[kind]
    return {"KL": CacheLayout(names["k"]).param, "VL": CacheLayout(names["v"]).param}
