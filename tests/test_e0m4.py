"""reference.e0m4: the paper's bits by hand, zero exact, error bounds, and the kernels' form against it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from reference.e0m4 import PaperE0M4, dequantize_e0m4_paper, quantize_e0m4_paper
from reference.quantization import dequantize, kernel_form, quantize_e0m4

SEEDED = settings(derandomize=True, deadline=None)
GROUP = arrays(np.float64, (1, 32), elements=st.floats(-16000, 16000), fill=st.floats(-1, 1))
EXPONENTS = st.sampled_from([-1, 0, 1, 2])

# n = 1, one step 0.125, eps = 2^-9; this range makes scale = (2 − eps) / range = 8
LOW, HIGH = -256 / 4096, 767 / 4096


def one_group(*values: float) -> np.ndarray:
    """A matrix [1, 32] that begins with LOW and HIGH and then these values, and is 0 elsewhere."""
    w = np.zeros((1, 32))
    w[0, : 2 + len(values)] = LOW, HIGH, *values
    return w


def wide(p: PaperE0M4) -> tuple[np.ndarray, np.ndarray, float]:
    """Scale and bias in float64, and one step in units of w1."""
    return p.scale.astype(np.float64), p.bias.astype(np.float64), 2.0**p.n / 16


def test_codes_by_hand() -> None:
    # w1 = 8 w + 2.5: fraction 0.59375 is code 4.75, 0.5625 is 4.5 (rounding bit set), 0.56 is 4.48, 0.4375 is 3.5
    p = quantize_e0m4_paper(one_group(0.09375 / 8, 0.0625 / 8, 0.06 / 8, -0.0625 / 8, 0.18), 32)
    assert (p.scale.tolist(), p.bias.tolist()) == ([[8.0]], [[2.5]])
    #                                LOW HIGH 4.75 4.5 4.48 3.5 15.52 (rounds to 16: clamped), zero
    assert p.codes[0, :8].tolist() == [0, 15, 5, 5, 4, 4, 15, 4]
    assert dequantize_e0m4_paper(p)[0, :3].tolist() == [-0.0625, (3.875 - 2.5) / 8, 0.125 / 8]
    assert dequantize_e0m4_paper(p)[0, 7] == 0


def test_kernel_form_by_hand() -> None:
    q = quantize_e0m4(one_group(), 32)
    assert q.scale is not None
    assert q.bias is not None
    assert (q.scale.tolist(), q.bias.tolist()) == ([[0.25]], [[-0.3125]])  # 2 / 8 and −2.5 / 8
    assert dequantize(q)[0, :3].tolist() == [-0.0625, (3.875 - 2.5) / 8, 0]


def test_low_bits_of_the_bias_are_zeroed_and_the_range_clamped() -> None:
    w = np.zeros((1, 32))
    w[0, 0], w[0, 1] = LOW - 0.07 / 8, HIGH - 0.07 / 8  # bias would be 2.57, its four fraction bits say 2.5
    p = quantize_e0m4_paper(w, 32)
    assert p.bias.tolist() == [[2.5]]
    assert p.codes[0, :3].tolist() == [0, 15, 4]  # w1 of the minimum is 1.93: clamped to 2, not read as a fraction of 1


@pytest.mark.parametrize("n", [-14, -1, 0, 1, 2, 15])
def test_n_changes_exponents_alone(n: int) -> None:
    w = np.random.default_rng(3).normal(0, 0.4 * 2.0**n, (4, 64))  # scale stays a normal half for every n
    p, one = quantize_e0m4_paper(w, 64, n), quantize_e0m4_paper(w / 2.0**n * 2, 64, 1)
    assert (p.codes == one.codes).all()
    assert (p.bias == one.bias * 2.0 ** (n - 1)).all()
    assert (dequantize_e0m4_paper(p) == dequantize_e0m4_paper(one) * 2.0 ** (n - 1)).all()


def test_dequantisation_is_two_bit_operations() -> None:
    codes = np.arange(32, dtype=np.uint8)[None] % 16
    p = PaperE0M4(1, 32, codes, np.ones((1, 1), np.float16), np.full((1, 1), 2.0, np.float16))
    assert dequantize_e0m4_paper(p)[0, :16].tolist() == [c / 8 for c in range(16)]  # as_half(0x4000 | c << 6) − 2


@given(GROUP, EXPONENTS)
@SEEDED
def test_bias_is_on_the_grid_of_the_codes(w: np.ndarray, n: int) -> None:
    scale, bias, step = wide(quantize_e0m4_paper(w, 32, n))
    assert (scale > 0).all()
    z = (bias - 2.0**n) / step
    assert (z == np.floor(z)).all()
    assert ((z >= 0) & (z <= 15)).all()


@given(GROUP, EXPONENTS)
@SEEDED
def test_zero_stays_exactly_zero(w: np.ndarray, n: int) -> None:
    w[0, 9] = 0
    assert dequantize_e0m4_paper(quantize_e0m4_paper(w, 32, n))[0, 9] == 0


@given(GROUP, EXPONENTS)
@SEEDED
def test_error_is_half_a_step_unless_clamped(w: np.ndarray, n: int) -> None:
    p = quantize_e0m4_paper(w, 32, n)
    scale, bias, step = wide(p)
    position = (w * scale + bias - 2.0**n) / step
    clamped = (position < 0) | (position > 15.5 - 1 / 128)
    error = np.abs(dequantize_e0m4_paper(p) - w) * scale / step
    assert (error[~clamped] <= 0.5 + 1 / 128 + 1e-9).all()
    assert (error[clamped] <= 1 + 1e-9).all()
    assert ((position > -1 - 1e-9) & (position < 16)).all()


@given(GROUP, EXPONENTS)
@SEEDED
def test_kernel_form_differs_by_the_rounding_of_two_halves(w: np.ndarray, n: int) -> None:
    p = quantize_e0m4_paper(w, 32, n)
    q = kernel_form(p)
    assert q.scale is not None
    assert q.bias is not None
    ideal = 2.0**n / p.scale.astype(np.float64)
    bound = 15 / 16 * np.maximum(ideal * 2.0**-11, 2.0**-25)
    bound = bound + np.maximum(np.abs(q.bias.astype(np.float64)) * 2.0**-11, 2.0**-25)
    difference = np.abs(dequantize(q) - dequantize_e0m4_paper(p))
    assert (difference <= bound * (1 + 1e-9)).all()
    if ideal > 2.0**-13:  # normal halves
        assert (difference <= 0.023 * ideal / 16).all()


@given(GROUP)
@SEEDED
def test_zero_of_the_kernel_form_is_within_its_bias_rounding(w: np.ndarray) -> None:
    w[0, 9] = 0
    q = quantize_e0m4(w, 32)
    assert q.bias is not None
    assert np.abs(dequantize(q)[0, 9]) <= np.maximum(np.abs(q.bias.astype(np.float64)) * 2.0**-11, 2.0**-25)


def test_zeros_do_not_blow_up_the_kernel_scale() -> None:
    q = quantize_e0m4(np.zeros((1, 32)), 32)
    assert q.scale is not None
    assert q.scale.astype(np.float64).max() < 1e-4  # a deferred bias cancels against Σ scale · v · x in the accumulator
    assert (dequantize(q) == 0).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_groups_of_one_sign(sign: int) -> None:
    w = sign * np.linspace(1.0, 2.0, 32)[None]
    p = quantize_e0m4_paper(w, 32)
    assert p.bias.tolist() == ([[2.0]] if sign > 0 else [[3.875]])  # zero is an end of the range: code 0 or 15
    assert np.abs(dequantize_e0m4_paper(p) - w).max() <= 2 / 16


def test_narrow_groups_use_few_codes() -> None:
    w = np.full((1, 32), 1e-7)
    w[0, 0] = -1e-310
    p = quantize_e0m4_paper(w, 32)
    assert p.scale.tolist() == [[65504.0]]
    assert np.abs(dequantize_e0m4_paper(p) - w).max() <= 0.5 * 2 / 16 / 65504


def test_refusals_say_what_to_do() -> None:
    with pytest.raises(ValueError, match="n = 16 is no exponent of a normal half; choose -14 to 15"):
        quantize_e0m4_paper(np.zeros((1, 32)), 32, 16)
    wide_group = np.zeros((1, 64))
    wide_group[0, 40] = 1e9
    with pytest.raises(ValueError, match=r"group \[0, 1\] spans 1e\+09, too wide for an fp16 scale of E0M4; rescale"):
        quantize_e0m4_paper(wide_group, 32)
    wide_group[0, 40:42] = 30000, -30000
    assert quantize_e0m4_paper(wide_group, 32).codes.max() == 15  # the paper's scale is an inverse and fits
    with pytest.raises(ValueError, match=r"bias \[0, 1\] would be .*, beyond the 65504"):
        quantize_e0m4(wide_group, 32)
