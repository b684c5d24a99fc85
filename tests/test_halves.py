"""halves.clh on the devices here: every half and back, and what relaxed mathematics must not make of two of them."""

from __future__ import annotations

import numpy as np
import pytest

from harness.devices import DeviceChoice
from harness.runner.protocol import buffer_arg, launch
from harness.supervisor import Supervisor
from kernels.source import source

WIDTHS = (1, 2, 4, 8, 16)
RELAXED = ["-cl-mad-enable", "-cl-fast-relaxed-math"]

KERNELS = """
__kernel void floats(__global const ushort *h, __global float *f) {
  const size_t at = get_global_id(0) * VEC;
  STORE_V(CAT(widen, VEC)(LOAD_V(h + at)), f + at);
}

__kernel void halves(__global const float *f, __global ushort *h) {
  const size_t at = get_global_id(0) * VEC;
  STORE_V(CAT(narrow, VEC)(LOAD_V(f + at)), h + at);
}

__kernel void product(__global const ushort *h, __global float *f) {
  const size_t at = get_global_id(0) * VEC, other = (get_global_size(0) - 1) * VEC - at;
  STORE_V(CAT(widen, VEC)(LOAD_V(h + at)) * CAT(widen, VEC)(LOAD_V(h + other)), f + at);
}

__kernel void product_of_words(__global const uint *w, __global float *f) {
  const size_t at = get_global_id(0) * VEC;
  STORE_V(half_low(LOAD_V(w + at)) * half_high(LOAD_V(w + at)), f + at);
}

__kernel void words(__global const uint *w, __global uint *f) {
  const size_t at = get_global_id(0) * VEC;
  STORE_V(half_words(half_low(LOAD_V(w + at)), half_high(LOAD_V(w + at))), f + at);
}
"""


def run(supervisor: Supervisor, vec: int, entry: str, given: np.ndarray, result: type) -> np.ndarray:
    text = f"#define VEC {vec}\n" + source("_common", "types.clh") + KERNELS
    program = f"halves {vec}"
    supervisor.build(program, text, RELAXED)
    supervisor.put("given", given.view(np.uint8).data)
    supervisor.put("result", np.full(given.size * np.dtype(result).itemsize, 0xFF, np.uint8).data)
    supervisor.run(program, [launch(entry, [given.size // vec], None, [buffer_arg("given"), buffer_arg("result")])])
    return np.frombuffer(supervisor.get("result"), result)


@pytest.fixture(scope="module")
def finite() -> np.ndarray:
    """Every finite half, subnormal ones too."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    return np.ascontiguousarray(bits[np.isfinite(bits.view(np.float16))])


@pytest.mark.parametrize("vec", WIDTHS)
def test_every_half_is_widened_exactly(vec: int, finite: np.ndarray, device: DeviceChoice, supervisor: Supervisor):
    got = run(supervisor, vec, "floats", finite, np.float32)
    assert np.array_equal(got, finite.view(np.float16).astype(np.float32))


@pytest.mark.parametrize("vec", WIDTHS)
def test_floats_are_rounded_to_nearest_even(vec: int, finite: np.ndarray, device: DeviceChoice, supervisor: Supervisor):
    exact = np.sort(finite.view(np.float16).astype(np.float32))
    ties = (exact[:-1] + exact[1:]) / 2
    near = np.concatenate([np.nextafter(ties, np.float32(np.inf)), np.nextafter(ties, np.float32(-np.inf))])
    beyond = np.float32([65519.99, 65520.0, -65520.0, 1e30, 2.9e-8, 3.1e-8, -3.1e-8, 1e-20])
    given = np.concatenate([exact, ties, near, beyond])
    given = given[np.abs(given) >= np.finfo(np.float32).tiny]  # a float that is subnormal itself may be flushed
    given = np.ascontiguousarray(given[: given.size // 16 * 16])
    with np.errstate(over="ignore"):
        expected = given.astype(np.float16)
    got = run(supervisor, vec, "halves", given, np.uint16).view(np.float16)
    wrong = got != expected
    assert not wrong.any(), (given[wrong][:4], got[wrong][:4], expected[wrong][:4])


@pytest.mark.parametrize("vec", WIDTHS)
def test_two_halves_are_multiplied_as_numbers(
    vec: int, finite: np.ndarray, device: DeviceChoice, supervisor: Supervisor
):
    """A factor of 2^112 in each would become infinity, and the product NaN or nothing (NVIDIA, Intel, PoCL)."""
    got = run(supervisor, vec, "product", finite, np.float32)
    wide = finite.view(np.float16).astype(np.float64)
    expected = wide * wide.reshape(-1, vec)[::-1].reshape(-1)
    assert np.allclose(got, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("vec", WIDTHS)
def test_the_halves_of_words(vec: int, finite: np.ndarray, device: DeviceChoice, supervisor: Supervisor):
    halves = np.random.default_rng(0).permutation(finite)
    pairs = halves.view(np.float16).astype(np.float64).reshape(-1, 2)
    got = run(supervisor, vec, "product_of_words", halves.view(np.uint32), np.float32)
    assert np.allclose(got, pairs[:, 0] * pairs[:, 1], rtol=1e-6, atol=0)
    back = run(supervisor, vec, "words", halves.view(np.uint32), np.uint32)
    assert np.array_equal(back.view(np.float16), halves.view(np.float16))  # by value: the sign of a zero may change
