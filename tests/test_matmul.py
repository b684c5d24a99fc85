"""reference.matmul: products by hand, slices against whole matrices, what int8 activations cost, bounded memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from reference import matmul
from reference.matmul import (
    dequantize_activations,
    gemv,
    gemv_int8_activations,
    gemv_quantized,
    quantize_activations_int8,
)
from reference.quantization import Kind, Quantized, dequantize, pack_nibbles, quantize

SEEDED = settings(derandomize=True, deadline=None)
FORMATS: list[tuple[Kind, int]] = [("fp16", 0), ("int8", 0), ("int4", 32), ("e0m4", 32)]


def product(x: np.ndarray, q: Quantized) -> np.ndarray:
    return gemv_quantized(x, q.kind, q.codes, q.scale, q.bias, q.group)


def test_gemv_by_hand() -> None:
    y = gemv(np.array([[1, 2, 3], [0, -1, 0.5]]), np.array([[1, 1, 1], [2, 0, -4]]))
    assert y.dtype == np.float64
    assert y.tolist() == [[6, -10], [-0.5, -2]]


def test_gemv_sums_in_float64() -> None:
    x = np.full((1, 4096), 1.0, np.float16)
    x[0, 0] = 60000
    assert gemv(x, np.ones((1, 4096), np.float16)).tolist() == [[64095.0]]  # beyond fp16's exact integers


@pytest.mark.parametrize(("kind", "group"), FORMATS)
@pytest.mark.parametrize("M", [1, 3])
def test_quantised_product_is_that_of_the_dequantised_matrix(kind: Kind, group: int, M: int) -> None:
    rng = np.random.default_rng(4)
    q = quantize(rng.standard_normal((19, 96)), kind, group)
    x = rng.standard_normal((M, 96)).astype(np.float16)
    np.testing.assert_allclose(product(x, q), gemv(x, dequantize(q)), rtol=0, atol=1e-12)


def test_slices_with_a_tail_and_packed_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    q = quantize(rng.standard_normal((23, 64)), "e0m4", 32)
    x = rng.standard_normal((2, 64))
    expected = gemv(x, dequantize(q))
    for slice_weights in (1, 64 * 4, 64 * 22, 1 << 20):
        monkeypatch.setattr(matmul, "_SLICE_WEIGHTS", slice_weights)
        np.testing.assert_allclose(product(x, q), expected, rtol=0, atol=1e-12)
        packed = gemv_quantized(x, q.kind, pack_nibbles(q.codes), q.scale, q.bias, q.group)
        np.testing.assert_allclose(packed, expected, rtol=0, atol=1e-12)


def test_quantised_product_by_hand() -> None:
    codes = np.array([[2] * 16 + [8] * 16], np.uint8)
    scale, bias = np.array([[0.5]], np.float16), np.array([[-1]], np.float16)
    x = np.array([[1.0] * 16 + [2.0] * 16])
    assert gemv_quantized(x, "int4", codes, scale, bias, 32).tolist() == [[16 * 0 + 32 * 3.0]]
    assert gemv_quantized(x, "e0m4", codes, scale, bias, 32).tolist() == [[16 * -0.4375 + 32 * -0.25]]


def test_int8_scale_of_either_shape() -> None:
    codes, x = np.array([[1, -2], [3, 4]], np.int8), np.array([[10.0, 1.0]])
    for shape in ((2,), (2, 1)):
        scale = np.array([0.5, 2], np.float16).reshape(shape)
        assert gemv_quantized(x, "int8", codes, scale, None, 0).tolist() == [[4.0, 68.0]]


def test_memory_stays_bounded() -> None:
    N, K = 8192, 2048  # 128 MiB in float64
    rng = np.random.default_rng(6)
    codes = rng.integers(0, 256, (N, K // 2), dtype=np.uint8)
    scale = np.full((N, K // 128), 0.01, np.float16)
    x = rng.standard_normal((1, K))
    tracemalloc.start()
    gemv_quantized(x, "int4", codes, scale, -scale, 128)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"activations of shape \(1, 3\) do not fit weights with K = 4"):
        gemv(np.zeros((1, 3)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"activations of shape \(4,\) do not fit"):
        gemv(np.zeros(4), np.zeros((2, 4)))
    q = quantize(np.zeros((2, 64)), "int4", 32)
    with pytest.raises(ValueError, match="do not fit weights with K = 64"):
        product(np.zeros((1, 96)), q)
    with pytest.raises(ValueError, match=r"scale is of shape \(1, 2\); these codes need \(2, 2\)"):
        gemv_quantized(np.zeros((1, 64)), q.kind, q.codes, q.scale[:1], q.bias, q.group)  # type: ignore[index]


# ---------------------------------------------------------------- int8 activations


def test_activations_by_hand() -> None:
    q = quantize_activations_int8([[127, -3, 0.4, 0.6, 0, 0, 0, 0], [0, 0, 254, -1, 63.5, 0.2, 0.3, 0]], 4)
    assert q.scale.dtype == np.float32
    assert q.scale.tolist() == [[1, 0], [2, 0.5]]
    assert q.codes.tolist() == [[127, -3, 0, 1, 0, 0, 0, 0], [0, 0, 127, 0, 127, 0, 1, 0]]
    assert dequantize_activations(q)[1].tolist() == [0, 0, 254, 0, 63.5, 0, 0.5, 0]


def test_per_row_is_one_block() -> None:
    q = quantize_activations_int8(np.arange(12.0).reshape(2, 6), 6)
    assert q.scale.shape == (2, 1)


@given(arrays(np.float32, (2, 8), elements=st.floats(-(2.0**15), 2.0**15, width=32)), st.sampled_from([1, 2, 8]))
@SEEDED
def test_activations_are_within_half_a_step(x: np.ndarray, block: int) -> None:
    q = quantize_activations_int8(x, block)
    assert np.abs(q.codes.astype(int)).max() <= 127
    bound = np.repeat(q.scale.astype(np.float64), block, axis=1) * 0.5 * (1 + 1e-5) + 127 * 2.0**-149
    assert (np.abs(dequantize_activations(q) - x) <= bound).all()


def test_int8_activations_cost_what_uniform_rounding_predicts() -> None:
    rng = np.random.default_rng(7)
    x, w = rng.standard_normal((4, 2048)), rng.standard_normal((64, 2048))
    exact = gemv(x, w)
    relative = np.sqrt(np.mean((gemv_int8_activations(x, w, 128) - exact) ** 2) / np.mean(exact**2))
    scale = quantize_activations_int8(x, 128).scale.astype(np.float64)
    assert relative == pytest.approx(np.sqrt(np.mean(scale**2) / 12), rel=0.15)  # x has an rms of 1
    assert relative < np.sqrt(np.mean((gemv_int8_activations(x, w, 2048) - exact) ** 2) / np.mean(exact**2))


def test_bad_activations_are_refused() -> None:
    with pytest.raises(ValueError, match="K = 6 is not a multiple of the block of 4; choose a divisor of K"):
        quantize_activations_int8(np.zeros((1, 6)), 4)
    with pytest.raises(ValueError, match="not a multiple of the block of 0"):
        quantize_activations_int8(np.zeros((1, 6)), 0)
    with pytest.raises(ValueError, match="activations are not all finite"):
        quantize_activations_int8([[1.0, np.nan]], 2)
    with pytest.raises(ValueError, match=r"activations are a matrix \[M, K\], not of shape \(6,\)"):
        quantize_activations_int8(np.zeros(6), 2)
