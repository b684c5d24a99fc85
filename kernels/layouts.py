"""Weight layouts: how the codes of a matrix [N, K] are arranged in memory, part of the contract with the engine.

A layout is written `n{P}k{C}`: 32-bit words [ceil(N/P)][K/C][P], each word holding C neighbouring weights along K of
one output, P outputs side by side. `n1` is row-major; larger panels let neighbouring lanes, or the lanes of a vector,
serve neighbouring outputs with one load. Rows beyond N are zero codes.

Words are little-endian. C = 8 (4-bit codes): from bit 0 upwards k0 k2 k4 k6 k1 k3 k5 k7, so that k and k+1 are sixteen
bits apart and one shift and mask prepares both halves of a half2. C = 4 (int8) and C = 2 (fp16): in the order of K.

Scales follow the panels: half pairs (scale, bias) [ceil(N/P)][K/group][P] for 4-bit formats, one half per output,
[ceil(N/P)·P], for int8; fp16 has none.

Packing works in slices of panels, so that a matrix of half a gigabyte needs little beyond its packed copy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

PANELS = (1, 2, 4, 8, 16, 32, 64, 128)
CODES = {"fp16": 2, "int8": 4, "int4": 8, "e0m4": 8}  # weights a word, by format kind
_SLICE_WORDS = 1 << 18  # 1 MiB of words at a time: stays in cache through the passes over it
_PATTERN = re.compile(r"n(?P<panel>\d+)k(?P<codes>\d+)")


@dataclass(frozen=True)
class Layout:
    """Panels of `panel` outputs, words of `codes` weights."""

    panel: int
    codes: int

    @staticmethod
    def parse(text: str) -> Layout:
        """Read `n16k8` and its like. Raises ValueError naming the choices."""
        match = _PATTERN.fullmatch(text)
        if match is None or int(match["panel"]) not in PANELS or int(match["codes"]) not in CODES.values():
            raise ValueError(
                f'unknown layout "{text}"; choose n{{P}}k{{C}} with P = {", ".join(map(str, PANELS))} outputs side by '
                f"side and C = 8 (4-bit), 4 (int8) or 2 (fp16) weights a word"
            )
        return Layout(int(match["panel"]), int(match["codes"]))

    def __str__(self) -> str:
        return f"n{self.panel}k{self.codes}"

    def shape(self, N: int, K: int) -> tuple[int, int, int]:
        """Words of a matrix [N, K]: (panels, words along K, outputs of a panel)."""
        if K % self.codes:
            raise ValueError(f"K = {K} is not a multiple of the {self.codes} weights a word of {self} holds")
        return -(-N // self.panel), K // self.codes, self.panel


def pack_words(canonical: Array, layout: Layout) -> Array:
    """Arrange a matrix in `layout`: uint32 of shape `layout.shape(N, K)`.

    `canonical` is uint8 [N, K/2] (two 4-bit codes a byte, even k in the low nibble), int8 [N, K] or float16 [N, K].
    Raises ValueError where its type is not the one the layout holds, or K does not fill whole words.
    """
    words = _row_words(canonical, layout)
    reorder = _interleave if layout.codes == 8 else _same
    n = words.shape[0]
    packed = np.zeros((-(-n // layout.panel), words.shape[1], layout.panel), np.uint32)
    step = max(1, _SLICE_WORDS // (layout.panel * max(1, words.shape[1])))
    for p in range(0, packed.shape[0], step):
        rows = reorder(words[p * layout.panel : (p + step) * layout.panel])
        whole = rows.shape[0] // layout.panel
        panels = rows[: whole * layout.panel].reshape(whole, layout.panel, words.shape[1])
        packed[p : p + whole] = panels.transpose(0, 2, 1)
        rest = rows[whole * layout.panel :]
        if rest.shape[0]:
            packed[p + whole, :, : rest.shape[0]] = rest.T
    return packed


def unpack_words(packed: Array, layout: Layout, N: int) -> Array:
    """The canonical matrix again: the inverse of `pack_words`, the padding dropped."""
    rows = np.ascontiguousarray(packed.transpose(0, 2, 1)).reshape(-1, packed.shape[1])[:N]
    if layout.codes == 8:
        return _deinterleave(rows).view(np.uint8)
    return rows.view(np.int8 if layout.codes == 4 else np.float16)


def pack_scales(scale: Array, bias: Array, panel: int) -> Array:
    """Scale and bias of each group, float16 [N, K/group] each → float16 [ceil(N/P), K/group, P, 2]; padding is 0."""
    n, groups = scale.shape
    padded = np.zeros((-(-n // panel) * panel, groups, 2), np.float16)
    padded[:n, :, 0] = scale
    padded[:n, :, 1] = bias
    return np.ascontiguousarray(padded.reshape(-1, panel, groups, 2).transpose(0, 2, 1, 3))


def unpack_scales(packed: Array, N: int) -> tuple[Array, Array]:
    """Scale and bias [N, K/group] again: the inverse of `pack_scales`."""
    rows = packed.transpose(0, 2, 1, 3).reshape(-1, packed.shape[1], 2)[:N]
    return rows[:, :, 0], rows[:, :, 1]


def pack_row_scales(scale: Array, panel: int) -> Array:
    """One scale per output, float16 [N] → float16 [ceil(N/P)·P]; padding is 0."""
    padded = np.zeros(-(-scale.shape[0] // panel) * panel, np.float16)
    padded[: scale.shape[0]] = scale
    return padded


def _row_words(canonical: Array, layout: Layout) -> Array:
    """Words [N, K/codes] in the order of K, without a copy where the rows are contiguous."""
    types: dict[int, Any] = {8: np.uint8, 4: np.int8, 2: np.float16}
    if canonical.dtype != types[layout.codes]:
        raise ValueError(f"layout {layout} holds {np.dtype(types[layout.codes])}, not {canonical.dtype}")
    rows = np.ascontiguousarray(canonical)
    if rows.shape[1] * rows.itemsize % 4:
        raise ValueError(f"a row of {rows.shape[1] * rows.itemsize} bytes does not fill words of 32 bit")
    words: Array = rows.view(np.uint32)
    return words


def _same(words: Array) -> Array:
    return words


def _interleave(words: Array) -> Array:
    """Codes in the order of K → even k in the low half of the word, odd k in the high half."""
    even, odd = _gather_nibbles(words), _gather_nibbles(words >> np.uint32(4))
    odd <<= np.uint32(16)
    odd |= even
    return odd


def _gather_nibbles(words: Array) -> Array:
    """Nibbles 0, 2, 4 and 6 moved together into the low sixteen bits."""
    v = words & np.uint32(0x0F0F0F0F)
    v |= v >> np.uint32(4)
    v &= np.uint32(0x00FF00FF)
    v |= v >> np.uint32(8)
    v &= np.uint32(0x0000FFFF)
    return v


def _deinterleave(words: Array) -> Array:
    even, odd = _spread_nibbles(words), _spread_nibbles(words >> np.uint32(16))
    odd <<= np.uint32(4)
    odd |= even
    return odd


def _spread_nibbles(words: Array) -> Array:
    v = words & np.uint32(0x0000FFFF)
    v = (v | v << np.uint32(8)) & np.uint32(0x00FF00FF)
    return (v | v << np.uint32(4)) & np.uint32(0x0F0F0F0F)
