"""kernels/layouts.py: what the bits mean, by hand; that nothing is lost, by property; that packing stays in bounds."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.layouts import (
    PANELS,
    Layout,
    pack_row_scales,
    pack_scales,
    pack_words,
    unpack_scales,
    unpack_words,
)


def _matrix(codes: int, N: int, words: int, seed: int) -> np.ndarray:
    """A canonical matrix of random bits whose rows are `words` words long."""
    raw = np.random.default_rng(seed).integers(0, 256, (N, 4 * words), dtype=np.uint8)
    return {8: raw, 4: raw.view(np.int8), 2: raw.view(np.float16)}[codes]


def test_codes_of_a_word_stand_in_the_order_of_the_contract():
    codes = np.arange(8, dtype=np.uint8)
    packed = pack_words((codes[0::2] | codes[1::2] << 4).reshape(1, 4), Layout(1, 8))
    assert packed.item() == 0x7531_6420  # k0 k2 k4 k6 from bit 0, k1 k3 k5 k7 from bit 16


def test_neighbours_along_k_are_sixteen_bits_apart():
    canonical = _matrix(8, 3, 4, 0)
    words = pack_words(canonical, Layout(4, 8))
    nibbles = np.stack([canonical & 15, canonical >> 4], axis=2).reshape(3, -1)
    for n in range(3):
        for k in range(32):
            bit = k % 8 // 2 * 4 + k % 2 * 16
            assert words[0, k // 8, n] >> np.uint32(bit) & np.uint32(15) == nibbles[n, k]


def test_bytes_and_halves_stand_in_the_order_of_k():
    assert pack_words(np.array([[1, 2, 3, -1]], np.int8), Layout(1, 4)).item() == 0xFF03_0201
    assert pack_words(np.array([[1.0, -2.0]], np.float16), Layout(1, 2)).item() == 0xC000_3C00


def test_panels_put_outputs_side_by_side():
    packed = pack_words(np.array([[10], [20], [30]], np.int8).repeat(8, axis=1), Layout(2, 4))
    assert packed.shape == (2, 2, 2)
    assert (packed & np.uint32(255)).tolist() == [[[10, 20], [10, 20]], [[30, 0], [30, 0]]]


@settings(deadline=None, max_examples=60)
@given(
    panel=st.sampled_from(PANELS),
    codes=st.sampled_from((8, 4, 2)),
    N=st.integers(1, 150),
    words=st.integers(1, 40),
    seed=st.integers(0, 9),
)
def test_unpacking_gives_the_matrix_back(panel: int, codes: int, N: int, words: int, seed: int):
    canonical = _matrix(codes, N, words, seed)
    layout = Layout(panel, codes)
    packed = pack_words(canonical, layout)
    assert packed.shape == layout.shape(N, words * codes)
    assert unpack_words(packed, layout, N).tobytes() == canonical.tobytes()
    rows = packed.transpose(0, 2, 1).reshape(-1, words)
    assert not rows[N:].any()  # padding is zero codes


@settings(deadline=None, max_examples=30)
@given(panel=st.sampled_from(PANELS), N=st.integers(1, 150), groups=st.integers(1, 6))
def test_scales_follow_the_panels(panel: int, N: int, groups: int):
    scale = np.arange(N * groups, dtype=np.float16).reshape(N, groups)
    bias = -scale
    packed = pack_scales(scale, bias, panel)
    n, g = N - 1, groups - 1
    assert packed[n // panel, g, n % panel].tolist() == [scale[n, g], bias[n, g]]
    back = unpack_scales(packed, N)
    assert np.array_equal(back[0], scale)
    assert np.array_equal(back[1], bias)


def test_row_scales_are_padded_to_whole_panels():
    assert pack_row_scales(np.ones(5, np.float16), 4).tolist() == [1, 1, 1, 1, 1, 0, 0, 0]


def test_a_slice_boundary_inside_a_large_matrix_is_seamless():
    canonical = _matrix(8, 1100, 300, 1)  # more words than one slice holds, and a short last panel
    layout = Layout(16, 8)
    assert np.array_equal(unpack_words(pack_words(canonical, layout), layout, 1100), canonical)


def test_packing_needs_little_beyond_the_packed_copy():
    canonical = _matrix(8, 8192, 256, 2)  # 8 MiB
    tracemalloc.start()
    packed = pack_words(canonical, Layout(16, 8))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < packed.nbytes + (16 << 20)


def test_layout_names_are_read_and_written():
    assert str(Layout.parse("n16k8")) == "n16k8"


@pytest.mark.parametrize("text", ["", "k8", "n3k8", "n16k16", "n16k8x", "N16K8"])
def test_an_unknown_layout_is_refused_with_the_choices(text: str):
    with pytest.raises(ValueError, match=r"choose n\{P\}k\{C\}"):
        Layout.parse(text)


def test_a_matrix_of_the_wrong_type_is_refused():
    with pytest.raises(ValueError, match="layout n4k8 holds uint8, not int8"):
        pack_words(np.zeros((4, 8), np.int8), Layout(4, 8))


def test_rows_that_do_not_fill_words_are_refused():
    with pytest.raises(ValueError, match="does not fill words"):
        pack_words(np.zeros((4, 6), np.uint8), Layout(4, 8))
    with pytest.raises(ValueError, match="K = 12 is not a multiple of the 8"):
        Layout(4, 8).shape(4, 12)
