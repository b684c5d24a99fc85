"""reference.quantization and reference.groups: hand-computed groups, bounds that hold for any weights, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from reference.groups import half_at_least
from reference.quantization import (
    Kind,
    Quantized,
    ZeroPoint,
    dequantize,
    dequantize_codes,
    pack_nibbles,
    quantize,
    quantize_fp16,
    quantize_int4,
    quantize_int8,
    unpack_nibbles,
)

SEEDED = settings(derandomize=True, deadline=None)
KINDS: list[tuple[Kind, int]] = [("fp16", 0), ("int8", 0), ("int4", 32), ("e0m4", 32)]

# One group of 32, huge and denormal values and repeats among them; ±16 000 keeps every bias within fp16.
GROUP = arrays(np.float64, (1, 32), elements=st.floats(-16000, 16000), fill=st.floats(-1, 1))


def one_group(*values: float) -> np.ndarray:
    """A matrix [1, 32] that begins with these values and is 0 elsewhere."""
    w = np.zeros((1, 32))
    w[0, : len(values)] = values
    return w


def residual(bias: np.ndarray) -> np.ndarray:
    """The largest rounding error of an fp16 bias: half a unit in the last place."""
    return np.maximum(np.abs(bias.astype(np.float64)) * 2.0**-11, 2.0**-25)


def half_step(q: Quantized) -> np.ndarray:
    """Half a step of each group, with room for float64's own rounding and for spans that underflow it."""
    assert q.scale is not None
    return 0.5 * q.scale.astype(np.float64) * (1 + 1e-9) + 1e-300


# ---------------------------------------------------------------- INT4


def test_int4_integer_zero_point_by_hand() -> None:
    # range −0.5 … 1.375 = 15 · 0.125, zero-point 4
    q = quantize_int4(one_group(-0.5, 1.375, 0.06, 0.07, -0.19), 32)
    assert q.scale is not None
    assert q.bias is not None
    assert q.scale.tolist() == [[0.125]]
    assert q.bias.tolist() == [[-0.5]]
    assert q.codes[0, :6].tolist() == [0, 15, 4, 5, 2, 4]
    assert dequantize(q)[0, :6].tolist() == [-0.5, 1.375, 0.0, 0.125, -0.25, 0.0]


def test_int4_float_zero_point_by_hand() -> None:
    w = np.full((1, 32), 0.75)
    w[0, :4] = 0.25, 2.125, 0.3, 0.32  # range 0.25 … 2.125 = 15 · 0.125
    q = quantize_int4(w, 32, "float")
    assert q.scale is not None
    assert q.bias is not None
    assert q.scale.tolist() == [[0.125]]
    assert q.bias.tolist() == [[0.25]]
    assert q.codes[0, :5].tolist() == [0, 15, 0, 1, 4]
    assert dequantize(q)[0, :5].tolist() == [0.25, 2.125, 0.25, 0.375, 0.75]


def test_int4_integer_extends_the_range_to_zero() -> None:
    q = quantize_int4(np.linspace(1.0, 1.875, 32)[None], 32)
    assert q.scale is not None
    assert q.scale.tolist() == [[0.125]]  # 1.875 / 15, not 0.875 / 15
    assert q.codes.min() == 8  # 1.0 / 0.125
    assert q.bias is not None
    assert q.bias.tolist() == [[0.0]]


def test_each_group_and_row_has_its_own_scale() -> None:
    w = np.zeros((2, 64))
    w[0, 0], w[0, 63], w[1, 40] = 15, 30, 7.5
    q = quantize_int4(w, 32)
    assert q.scale is not None
    assert q.scale.tolist() == [[1, 2], [0, 0.5]]
    assert dequantize(q).tolist() == w.tolist()


@given(GROUP)
@SEEDED
def test_int4_integer_is_within_half_a_step(w: np.ndarray) -> None:
    q = quantize_int4(w, 32)
    assert q.bias is not None
    assert (np.abs(dequantize(q) - w) <= half_step(q) + residual(q.bias)).all()


@given(GROUP)
@SEEDED
def test_int4_integer_zero_is_a_code_and_its_residual_is_small(w: np.ndarray) -> None:
    w[0, 5] = 0
    q = quantize_int4(w, 32)
    assert q.scale is not None
    assert q.bias is not None
    zero = int(q.codes[0, 5])
    exact = q.scale.astype(np.float64) * (q.codes.astype(np.float64) - zero)  # the form with an integer zero-point
    assert exact[0, 5] == 0
    assert np.abs(dequantize(q)[0, 5]) <= residual(q.bias)
    assert np.abs(dequantize(q)[0, 5]) <= 0.008 * q.scale.astype(np.float64) + 2.0**-25


@given(GROUP)
@SEEDED
def test_int4_float_is_within_half_a_step(w: np.ndarray) -> None:
    q = quantize_int4(w, 32, "float")
    assert (np.abs(dequantize(q) - w) <= half_step(q)).all()


# ---------------------------------------------------------------- int8 and fp16


def test_int8_by_hand() -> None:
    q = quantize_int8(np.array([[63.5, -63.5, 0.2, 0.3, 0], [0, 0, 0, 0, 0], [-127, 1, 0.4, 2, 3]]))
    assert q.scale is not None
    assert q.scale.tolist() == [[0.5], [0], [1]]
    assert q.codes.tolist() == [[127, -127, 0, 1, 0], [0] * 5, [-127, 1, 0, 2, 3]]
    assert dequantize(q)[0].tolist() == [63.5, -63.5, 0, 0.5, 0]


@given(arrays(np.float64, (3, 7), elements=st.floats(-1e6, 1e6)))
@SEEDED
def test_int8_is_within_half_a_step_and_zero_exact(w: np.ndarray) -> None:
    w[:, 3] = 0
    q = quantize_int8(w)
    assert np.abs(q.codes.astype(int)).max() <= 127
    assert (np.abs(dequantize(q) - w) <= half_step(q)).all()
    assert (dequantize(q)[:, 3] == 0).all()


def test_fp16_rounds_to_nearest() -> None:
    q = quantize_fp16([[1 + 2.0**-11, 1 + 3 * 2.0**-11, -0.1, 65504]])
    assert dequantize(q).tolist() == [[1.0, 1 + 2.0**-9, -0.0999755859375, 65504]]


# ---------------------------------------------------------------- every format


@pytest.mark.parametrize(("kind", "group"), KINDS)
def test_shapes_and_types(kind: Kind, group: int) -> None:
    w = np.random.default_rng(1).standard_normal((5, 96))
    q = quantize(w, kind, group)
    assert (q.kind, q.group, q.codes.shape) == (kind, group, (5, 96))
    assert q.codes.dtype == {"fp16": np.float16, "int8": np.int8}.get(kind, np.uint8)
    if group:
        assert q.scale is not None
        assert q.bias is not None
        assert q.scale.shape == q.bias.shape == (5, 3)
        assert q.scale.dtype == q.bias.dtype == np.float16
    assert dequantize(q).dtype == np.float64


@pytest.mark.parametrize(("kind", "group"), KINDS)
@pytest.mark.parametrize("value", [0.0, 0.5, -0.3, 700.0, 1e-7, -1e-310])
def test_equal_weights(kind: Kind, group: int, value: float) -> None:
    back = dequantize(quantize(np.full((2, 32), value), kind, group))
    # the ends of [0, value] are codes, up to an fp16 scale and bias; E0M4's upper clamp costs one of 16 steps
    assert np.abs(back - value).max() <= (abs(value) / 16 if kind == "e0m4" else abs(value) / 500) + 2.0**-20


def test_equal_weights_with_a_float_zero_point() -> None:
    q = quantize_int4(np.full((1, 32), 0.5), 32, "float")
    assert q.codes.max() == 0
    assert (dequantize(q) == 0.5).all()
    assert np.abs(dequantize(quantize_int4(np.full((1, 32), 0.3), 32, "float")) - 0.3).max() < 2.0**-16


@pytest.mark.parametrize("zero_point", ["integer", "float"])
@pytest.mark.parametrize("group", [32, 64, 128])
def test_groups_are_independent(group: int, zero_point: ZeroPoint) -> None:
    w = np.random.default_rng(2).standard_normal((3, 256))
    whole = dequantize(quantize_int4(w, group, zero_point))
    part = dequantize(quantize_int4(w[1:2, group : 2 * group], group, zero_point))
    assert (whole[1:2, group : 2 * group] == part).all()


@pytest.mark.parametrize(("kind", "group"), KINDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_is_refused(kind: Kind, group: int, bad: float) -> None:
    w = np.zeros((2, 32))
    w[1, 7] = bad
    with pytest.raises(ValueError, match=r"weight \[1, 7\] is .*; only finite weights can be quantised"):
        quantize(w, kind, group)


@pytest.mark.parametrize(("kind", "group"), KINDS)
@pytest.mark.parametrize("huge", [3e8, 1e308])
def test_beyond_fp16_is_refused(kind: Kind, group: int, huge: float) -> None:
    w = np.zeros((1, 32))
    w[0, :2] = huge, -huge
    with pytest.raises(ValueError, match="rescale these weights or keep them in another format"):
        quantize(w, kind, group)


@pytest.mark.parametrize("kind", ["int4", "e0m4"])
def test_wrong_groups_are_refused(kind: Kind) -> None:
    with pytest.raises(ValueError, match="K = 100 is not a multiple of the group of 32; choose"):
        quantize(np.zeros((1, 100)), kind, 32)
    with pytest.raises(ValueError, match="a group is 32, 64 or 128 weights, not 16"):
        quantize(np.zeros((1, 32)), kind, 16)


@pytest.mark.parametrize("shape", [(32,), (1, 1, 32), (0, 32), (2, 0)])
def test_what_is_no_matrix_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="weights are a matrix"):
        quantize_int4(np.zeros(shape), 32)


def test_an_unknown_zero_point_is_refused() -> None:
    with pytest.raises(ValueError, match='unknown zero-point "int"; choose integer or float'):
        quantize_int4(np.zeros((1, 32)), 32, "int")  # type: ignore[arg-type]


def test_contradicting_shapes_are_refused() -> None:
    codes, scale = np.zeros((2, 64), np.uint8), np.ones((2, 2), np.float16)
    with pytest.raises(ValueError, match="bias is missing"):
        dequantize_codes("int4", codes, scale, None, 32)
    with pytest.raises(ValueError, match=r"scale is of shape \(2, 2\); these codes need \(2, 1\)"):
        dequantize_codes("int4", codes, scale, scale, 64)
    with pytest.raises(ValueError, match="are the codes still packed"):
        dequantize_codes("e0m4", pack_nibbles(codes), scale, scale, 64)


def test_dequantised_codes_follow_the_formula() -> None:
    codes = np.arange(32, dtype=np.uint8)[None] % 16
    scale, bias = np.array([[0.5]], np.float16), np.array([[-1.0]], np.float16)
    assert dequantize_codes("int4", codes, scale, bias, 32)[0, :16].tolist() == [0.5 * c - 1 for c in range(16)]
    assert dequantize_codes("e0m4", codes, scale, bias, 32)[0, :16].tolist() == [c / 32 - 0.5 for c in range(16)]
    as_half = (np.uint16(0x3C00) | codes.astype(np.uint16) << 6).view(np.float16)  # the two bit operations of a kernel
    assert (dequantize_codes("e0m4", codes, scale, bias, 32) == 0.5 * as_half.astype(np.float64) - 1).all()


# ---------------------------------------------------------------- helpers


def test_packing_puts_the_even_k_low() -> None:
    assert pack_nibbles(np.array([[1, 2, 15, 0]], np.uint8)).tolist() == [[0x21, 0x0F]]
    with pytest.raises(ValueError, match="K = 3 is odd"):
        pack_nibbles(np.zeros((1, 3), np.uint8))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
@SEEDED
def test_packing_round_trip(rows: int, pairs: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 16, (rows, 2 * pairs), dtype=np.uint8)
    assert (unpack_nibbles(pack_nibbles(codes)) == codes).all()


@given(arrays(np.float64, 8, elements=st.floats(-65504, 65504)))
@SEEDED
def test_rounding_up_to_half(values: np.ndarray) -> None:
    up = half_at_least(values, "value")
    assert up.dtype == np.float16
    assert (up.astype(np.float64) >= values).all()
    with np.errstate(over="ignore"):  # -65504
        below = np.nextafter(up, np.float16(-np.inf))
    assert (below.astype(np.float64) < values).all()
