"""The KV cache as data, and cache.clh on the devices here: a kernel reads what NumPy packs, and quantises alike."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from harness.devices import DeviceChoice
from harness.runner.protocol import buffer_arg, i32_arg, launch
from harness.supervisor import Supervisor
from kernels.cache import (
    CACHES,
    DEFAULT_LAYOUTS,
    LAYOUT_PARAMS,
    CacheLayout,
    CacheTensor,
    cache_defines,
    cache_kind,
    cache_layouts,
    default_params,
    draw_cache,
    pack_cache,
    pack_tensor,
    quantise_rows,
    row_bytes,
    unpack_tensor,
)
from kernels.source import source
from kernels.spec import DTypes, Workload
from reference.kv_cache import dequantise_rows, quantise_rows_int4, quantise_rows_int8, write_rows

LAYOUTS = [CacheLayout.of(param) for param in LAYOUT_PARAMS]


# ---------------------------------------------------------------- reference


def test_int8_rows_by_hand():
    codes, scale = quantise_rows_int8([[1.0, -2.0, 0.5, 127 / 64], [0.0, 0.0, 0.0, 0.0]])
    assert scale.tolist() == [float(np.float16(2 / 127 + 1e-5)), 0.0]
    assert codes.tolist() == [[63, -127, 32, 126], [0, 0, 0, 0]]


def test_int4_rows_by_hand():
    codes, scale, bias = quantise_rows_int4([[-1.0, 0.0, 6.5, 2.75], [2.0, 2.0, 2.0, 2.0]])
    assert (scale.tolist(), bias.tolist()) == ([0.5, 0.0], [-1.0, 2.0])
    assert codes.tolist() == [[0, 2, 15, 8], [0, 0, 0, 0]]  # 7.5 steps round to the even 8
    assert dequantise_rows(codes, scale, bias).tolist() == [[-1.0, 0.0, 6.5, 3.0], [2.0, 2.0, 2.0, 2.0]]


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_no_number_is_further_than_half_a_step_from_its_code(kind: str):
    x = np.random.default_rng(0).standard_normal((50, 3, 64)) * np.geomspace(1e-3, 1e3, 50)[:, None, None] + 0.3
    tensor = quantise_rows(x, kind)
    assert (np.abs(tensor.values - x).max(axis=2) <= tensor.scale.astype(float) * 0.5001).all()


def test_rows_go_to_their_positions_and_nowhere_else():
    cache = np.arange(6.0).reshape(3, 1, 2)
    new = np.array([[[10.0, 11]], [[20, 21]], [[30, 31]], [[40, 41]]])
    assert write_rows(cache, new, [2, -1, 0, 3])[:, 0].tolist() == [[30, 31], [2, 3], [10, 11]]
    assert cache[0, 0, 0] == 0


# ---------------------------------------------------------------- layouts


def test_layouts_by_hand():
    codes = np.arange(3 * 2 * 4, dtype=np.int8).reshape(3, 2, 4)  # [S, G, D]: 8 s + 4 g + d
    assert pack_cache(codes, CacheLayout.parse("sgd")).ravel().tolist() == list(range(24))
    assert pack_cache(codes, CacheLayout.parse("gsd"))[1].tolist() == [[4, 5, 6, 7], [12, 13, 14, 15], [20, 21, 22, 23]]
    panel = pack_cache(codes, CacheLayout.parse("gpd8"))
    assert panel.shape == (2, 1, 4, 8)
    assert panel[1, 0, 2].tolist() == [6, 14, 22, 0, 0, 0, 0, 0]


def test_two_int4_dims_share_a_byte_of_one_position():
    codes = np.array([[[1, 2, 3, 4]], [[5, 6, 7, 8]]], np.uint8)
    assert pack_cache(codes, CacheLayout.parse("sgd")).tolist() == [[[0x21, 0x43]], [[0x65, 0x87]]]
    assert pack_cache(codes, CacheLayout.parse("gpd8"))[0, 0, :, :2].tolist() == [[0x21, 0x65], [0x43, 0x87]]


@pytest.mark.parametrize("kind", CACHES)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_what_is_packed_comes_back(layout: CacheLayout, kind: str):
    for S in (1, 19, 64, 130):
        tensor = draw_cache(np.random.default_rng(S), kind, S, 3, 64)
        packed = pack_tensor("v", tensor, layout)
        assert packed["v"].shape == layout.shape(S, 3, 64, kind)
        assert packed["v"].flags.c_contiguous
        assert set(packed) == ({"v"} if kind == "fp16" else {"v", "vs"})
        if kind != "fp16":
            assert packed["vs"].shape == layout.scales_shape(S, 3, kind)
            assert packed["vs"].flags.c_contiguous
        again = unpack_tensor("v", packed, layout, S)
        assert again.kind == kind
        assert np.array_equal(again.values, tensor.values)


def test_names_and_parameters_are_one_to_one():
    assert [str(layout) for layout in LAYOUTS] == ["sgd", "gsd", "gpd8", "gpd16", "gpd32", "gpd64"]
    assert [CacheLayout.parse(str(layout)).param for layout in LAYOUTS] == list(LAYOUT_PARAMS)
    for wrong in ("dgs", "gpd12", "gpd"):
        with pytest.raises(ValueError, match=f'unknown cache layout "{wrong}"; choose sgd, gsd or gpd'):
            CacheLayout.parse(wrong)
    with pytest.raises(ValueError, match="gpd5"):
        CacheLayout.of(5)


def test_defaults_are_layouts_of_both_tensors():
    for kind, names in DEFAULT_LAYOUTS.items():
        workload = Workload("f", {"D": 64}, DTypes("fp16", "fp32", "fp32", "fp16"))
        assert cache_layouts(default_params(kind), workload) == names


def test_a_drawn_cache_has_a_spread_near_one():
    for kind in CACHES:
        tensor = draw_cache(np.random.default_rng(1), kind, 100, 2, 128)
        assert 0.7 < tensor.values.std() < 1.4, kind
        assert abs(tensor.values.mean()) < 0.1
        again = draw_cache(np.random.default_rng(1), kind, 100, 2, 128)
        assert np.array_equal(tensor.codes, again.codes)


def test_what_has_no_cache_is_refused_in_words():
    with pytest.raises(ValueError, match="float64"):
        cache_kind(np.zeros(1))
    with pytest.raises(ValueError, match="no scales"):
        LAYOUTS[0].scales_shape(1, 1, "fp16")
    with pytest.raises(ValueError, match="no cache type"):
        cache_defines(Workload("f", {"D": 64}, DTypes("fp16", "fp32", "fp32")))


def test_bytes_of_a_head_row():
    assert [row_bytes(kind, 128) for kind in CACHES] == [256, 130, 68]


# ---------------------------------------------------------------- cache.clh

READ = """
// y [S][G][HEAD_DIM]: every number of the cache, VEC units at a time; one work-item per position and head.
__kernel void whole(__global const cached *k, SCALES_PARAM(__global const, ks) __global float *y, int S, int G) {
  const int s = (int)get_global_id(0), g = (int)get_global_id(1), step = cache_unit_step(KL);
  __global float *row = y + ((size_t)s * G + g) * HEAD_DIM;
#if CACHE > 0
  const cache_scales bits = ks[cache_scale_at(KL, s, g, S, G)];
#endif
#if CACHE == 2
  const float bias = cache_bias_of(bits);
#else
  const float bias = 0.0f;
#endif
#if CACHE > 0
  const float scale = cache_scale_of(bits);
#else
  const float scale = 1.0f;
#endif
  // In rows a vector is VEC units of this position, in panels it is one unit of VEC positions.
  const int lane = step == 1 ? 0 : s % VEC;
  for (int u = 0; u < ROW_UNITS; u += step == 1 ? VEC : 1) {
    __global const cached *p = k + cache_row(KL, s, g, S, G) + (size_t)u * step - lane;
    for (int i = step == 1 ? 0 : lane; i < (step == 1 ? VEC : lane + 1); i++) {
      const int at = step == 1 ? u + i : u;
      float one[VEC];
#if CACHE == 2
      STORE_V(cache_even(widen_uchar(LOAD_V(p))), one);
      row[2 * at] = one[i] * scale + bias;
      STORE_V(cache_odd(widen_uchar(LOAD_V(p))), one);
      row[2 * at + 1] = one[i] * scale + bias;
#else
      STORE_V(cache_load(p), one);
      row[at] = one[i] * scale + bias;
#endif
    }
  }
}
"""

WRITE = """
// One row of HEAD_DIM floats per work-item → half bits (CACHE 0), or codes with their scale.
__kernel void rows(__global const float *x, __global int *codes, __global uint *scales) {
  const int i = (int)get_global_id(0);
#if CACHE > 0
  float low = x[i * HEAD_DIM], high = low;
  for (int d = 1; d < HEAD_DIM; d++) low = min(low, x[i * HEAD_DIM + d]), high = max(high, x[i * HEAD_DIM + d]);
  const row_codes r = row_codes_of(low, high);
  scales[i] = r.bits;
#else
  scales[i] = 0;
#endif
  for (int d = 0; d < HEAD_DIM; d += VEC) {
#if CACHE > 0
    STORE_V(row_quantised(LOAD_V(x + i * HEAD_DIM + d), r), codes + i * HEAD_DIM + d);
#else
    STORE_V(AS_INT_V(widen_ushort(float_to_halves(LOAD_V(x + i * HEAD_DIM + d)))), codes + i * HEAD_DIM + d);
#endif
  }
}
"""


def program(supervisor: Supervisor, body: str, **defines: int) -> str:
    name = f"{hash(body)} {defines}"
    text = f"#define VEC {defines['VEC']}\n" + source("_common", "cache.clh") + body
    supervisor.build(name, text, [f"-D{k}={v}" for k, v in defines.items() if k != "VEC"])
    return name


@pytest.mark.parametrize("kind", CACHES)
@pytest.mark.parametrize("vec", [1, 8, 16])
def test_a_kernel_reads_what_was_packed(kind: str, vec: int, device: DeviceChoice, supervisor: Supervisor):
    S, G, D = 21, 2, 64
    tensor = draw_cache(np.random.default_rng(5), kind, S, G, D)
    supervisor.put("y", np.zeros(S * G * D, np.float32).data)
    for layout in LAYOUTS:
        if layout.panel and layout.panel < vec:
            continue
        packed = pack_tensor("k", tensor, layout)
        for name, array in packed.items():
            supervisor.put(name, np.ascontiguousarray(array).view(np.uint8).reshape(-1).data)
        args = [*(buffer_arg(name) for name in packed), buffer_arg("y"), i32_arg(S), i32_arg(G)]
        built = program(supervisor, READ, VEC=vec, CACHE=CACHES.index(kind), HEAD_DIM=D, KL=layout.param)
        supervisor.run(built, [launch("whole", [S, G], None, args)])
        got = np.frombuffer(supervisor.get("y"), np.float32).reshape(S, G, D)
        assert np.allclose(got, tensor.values, rtol=1e-6, atol=1e-6), layout


@pytest.mark.parametrize(("kind", "vec"), list(itertools.product(CACHES, [1, 4, 16])))
def test_a_kernel_quantises_as_the_reference_does(kind: str, vec: int, device: DeviceChoice, supervisor: Supervisor):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((40, 64)) * np.geomspace(1e-2, 1e3, 40)[:, None]
    x[:8] += 100.0  # minima above zero
    x[8] = 0.0
    x[9] = 2.5
    x = x.astype(np.float32)
    for name, array in {"x": x, "codes": np.zeros(x.shape, np.int32), "scales": np.zeros(40, np.uint32)}.items():
        supervisor.put(name, array.view(np.uint8).reshape(-1).data)
    built = program(supervisor, WRITE, VEC=vec, CACHE=CACHES.index(kind), HEAD_DIM=64)
    supervisor.run(built, [launch("rows", [40], None, [buffer_arg(name) for name in ("x", "codes", "scales")])])
    codes = np.frombuffer(supervisor.get("codes"), np.int32).reshape(x.shape)
    bits = np.frombuffer(supervisor.get("scales"), np.uint32)
    if kind == "fp16":
        assert np.array_equal(codes.astype(np.uint16).view(np.float16), x.astype(np.float16))
        return
    low, high = (0, 15) if kind == "int4" else (-127, 127)
    assert codes.min() >= low
    assert codes.max() <= high
    pairs = bits.view(np.float16).reshape(40, 2)
    mine = CacheTensor(codes, pairs[:, 0], pairs[:, 1] if kind == "int4" else None).values
    step = pairs[:, :1].astype(np.float64)
    assert (np.abs(mine - x) <= 0.5 * step + 2e-6 * np.abs(x)).all()
    theirs = quantise_rows(x, kind)
    assert (np.abs(pairs[:, 0] - theirs.scale) <= 2.0**-10 * theirs.scale.astype(np.float64)).all()
