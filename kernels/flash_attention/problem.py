"""Attention as a problem: random cases with tolerances, least cost, rules and defines. No variant is known here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from kernels.cache import (
    HEAD_DIMS,
    CacheLayout,
    CacheTensor,
    cache_defines,
    draw_cache,
    pack_tensor,
    row_bytes,
    workload_kind,
)
from kernels.spec import Case, Cost, DeviceSheet, Rule, Stored, Tolerance, Workload
from reference.attention import attention

Array = np.ndarray[Any, Any]

_ACT: dict[str, Any] = {"fp16": np.float16, "fp32": np.float32}
_OPTIONS = frozenset({"causal", "window", "softcap", "padding", "scale"})


def act_bytes(workload: Workload) -> int:
    """Bytes of one activation."""
    return int(np.dtype(_ACT[workload.dtypes.act]).itemsize)


def scale_of(workload: Workload) -> float:
    """The factor of q · k: the option, or 1 / √D."""
    return float(workload.options.get("scale", workload.dims["D"] ** -0.5))


# ---------------------------------------------------------------- cases


def make_case(workload: Workload, seed: int) -> Case:
    """Random q and cache, and o in float64.

    Every seventh query row is large and, where logits are summed in float, one is so large that its logits reach 10⁴.
    A quantised cache is drawn as codes: quantising is no part of the error. Cached positions at T and beyond hold NaN
    (as values, or as scales), which must not reach any output. Padding hides the first third of the keys, so that
    early causal queries see none at all, and a quarter of the rest.
    """
    rng = np.random.default_rng(seed)
    M, T, H, G, D, S = (workload.dims[name] for name in ("M", "T", "H", "G", "D", "S"))
    q = rng.standard_normal((M, H, D))
    half = workload.dtypes.compute == "fp16"
    rows = q.reshape(M * H, D)
    rows[3::7] *= 4 if half else 20
    if not half:
        rows[M * H // 2] *= 1e4 / float(np.abs(rows[M * H // 2]).sum()) / scale_of(workload)
    q = q.astype(_ACT[workload.dtypes.act])
    k, v = (_draw(rng, workload, S, G, D, T) for _ in range(2))
    valid = None
    if workload.options.get("padding"):
        valid = (rng.random(T) < 0.75).astype(np.uint8)
        valid[: T // 3] = 0
    keys, values = k.values[:T], v.values[:T]
    expected = attention(q, keys, values, **arguments(workload), valid=valid)
    return Case(
        pack=partial(_pack, q, k, v, valid),
        outputs={"o": Stored(np.dtype(_ACT[workload.dtypes.act]), (M, H, D))},
        expected={"o": expected},
        tolerance=tolerance(workload, q, keys, expected),
    )


def arguments(workload: Workload) -> dict[str, Any]:
    """The options as `reference.attention` takes them."""
    options = workload.options
    return {
        "scale": scale_of(workload),
        "causal": bool(options.get("causal", False)),
        "window": options.get("window"),
        "softcap": options.get("softcap"),
    }


def _draw(rng: np.random.Generator, workload: Workload, S: int, G: int, D: int, T: int) -> CacheTensor:
    tensor = draw_cache(rng, workload_kind(workload), S, G, D)
    (tensor.codes if tensor.scale is None else tensor.scale)[T:] = np.nan
    return tensor


def _pack(
    q: Array, k: CacheTensor, v: CacheTensor, valid: Array | None, layouts: Mapping[str, str]
) -> Mapping[str, Array]:
    tensors = {"q": q}
    tensors |= pack_tensor("k", k, CacheLayout.parse(layouts["k"]))
    tensors |= pack_tensor("v", v, CacheLayout.parse(layouts["v"]))
    return tensors if valid is None else {**tensors, "valid": valid}


def tolerance(workload: Workload, q: Array, keys: Array, expected: Array) -> Tolerance:
    """What the dtype policy may cost, as relative root-mean-square errors of a row of o that add in squares, doubled.

    - Storing o as half: at most 2⁻¹¹ relative, uniform within it.
    - Float arithmetic of the weights and of their sums: 2⁻¹⁵ covers native exponentials and long sums.
    - Half products: 2⁻¹¹ per operation over sums of up to eight terms in weights times values: 8 · 2⁻¹¹; with half
      sums as long as a block of keys allows, 16 · 2⁻¹¹.
    - A logit's own error: it is summed from D products, whose partial sums are at most B = scale · |q| · |k|. Roundings
      of u each, on partial sums that for independent q and k are near B · √(i / D) / √D, add up to 0.4 · u · B; twice
      u · B is granted, u = 2⁻²⁴ or 2⁻¹¹ (half sums of up to eight products, as above: four times that). An error d in
      the logits changes weights by the factor 1 + d, and o by up to as much of its own size.

    The cache is an input as it is stored, so a quantised one adds nothing. Rows differ in size (o of n keys is as large
    as 1 / √n), so both limits weigh each row's errors by its own size; a single output is given 6 standard deviations.
    """
    half = workload.dtypes.compute == "fp16"
    squares = 2.0**-30
    if workload.dtypes.act == "fp16":
        squares += 2.0**-22 / 3
    if half:
        squares += (2.0**-11 * (8 if workload.dtypes.acc == "fp32" else 16)) ** 2
    longest = np.linalg.norm(keys, axis=2).max(axis=0)  # [G]
    per_group = q.shape[1] // len(longest)
    bound = scale_of(workload) * np.linalg.norm(q.astype(np.float64), axis=2) * np.repeat(longest, per_group)
    rows = squares + np.square(np.minimum(1.0, bound * (2.0**-8 if half else 2.0**-23)))  # [M, H]
    power = np.square(expected).mean(axis=2)  # [M, H]
    total = float(power.mean()) or 1.0  # where no key is visible, zeros are expected and any error is too large
    largest = np.abs(expected).max(axis=2)
    return Tolerance(
        nmse=(4 + 24 / expected.size) * max(squares, float((rows * power).mean()) / total),
        max_scaled=2 * 6 * max(squares**0.5, float((np.sqrt(rows) * largest).max()) / total**0.5),
    )


# ---------------------------------------------------------------- cost


def visible_pairs(workload: Workload) -> int:
    """How many (query, key) pairs are visible, padding aside."""
    M, T = workload.dims["M"], workload.dims["T"]
    if not workload.options.get("causal"):
        return M * T
    last = T if (window := workload.options.get("window")) is None else min(T, window)
    # Query i of M sees min(T − M + i + 1, window) keys.
    growing = max(0, min(M, last - (T - M)))  # queries that see fewer keys than `last`, or just as many
    return growing * (T - M) + growing * (growing + 1) // 2 + (M - growing) * last


def keys_read(workload: Workload) -> int:
    """How many keys some query sees."""
    window = workload.options.get("window")
    M, T = workload.dims["M"], workload.dims["T"]
    return T if window is None else min(T, M + window - 1)


def least_cost(workload: Workload) -> Cost:
    """Two multiply-adds per dim of each visible pair; q, o and the keys and values that are seen moved once."""
    M, T, H, G, D = (workload.dims[name] for name in ("M", "T", "H", "G", "D"))
    rows = float(M * H * D * act_bytes(workload))
    cache = 2.0 * keys_read(workload) * G * row_bytes(workload_kind(workload), D)
    flags = T if workload.options.get("padding") else 0
    return Cost(flops=4.0 * D * visible_pairs(workload) * H, bytes=2 * rows + cache + flags, written=rows, cold=cache)


# ---------------------------------------------------------------- as the sources read it


def defines(workload: Workload) -> Mapping[str, int | float]:
    """Cache format, policy and options, as attention.clh reads them. Raises ValueError for an unknown option."""
    if unknown := sorted(set(workload.options) - _OPTIONS):
        raise ValueError(f"attention has no option {', '.join(unknown)}; it has {', '.join(sorted(_OPTIONS))}")
    options = workload.options
    return {
        **cache_defines(workload),
        "CAUSAL": int(bool(options.get("causal"))),
        "WINDOW": int(options.get("window") or 0),
        "PADDING": int(bool(options.get("padding"))),
        "CAPPED": int("softcap" in options),
        "SOFTCAP": float(options.get("softcap", 1.0)),
        "SCALE": scale_of(workload),
    }


def cache_args(workload: Workload) -> tuple[str, ...]:
    """K and V, with scales where the format has them, then the padding mask where there is one."""
    scales = workload_kind(workload) != "fp16"
    tensors = ("k", "ks", "v", "vs") if scales else ("k", "v")
    return (*tensors, "valid") if workload.options.get("padding") else tensors


def heads_per_group(workload: Workload) -> int:
    """Heads that share a kv head."""
    return max(1, workload.dims["H"] // workload.dims["G"])


# ---------------------------------------------------------------- what is refused


def _consistent(config: Any, workload: Workload, sheet: DeviceSheet) -> bool:
    window, causal = workload.options.get("window"), workload.options.get("causal")
    return workload.dims["M"] <= workload.dims["T"] and (window is None or bool(causal and window >= 1))


def _fits(config: Any, workload: Workload, sheet: DeviceSheet) -> bool:
    M, H, G, D, S = (workload.dims[name] for name in ("M", "H", "G", "D", "S"))
    if workload.dtypes.cache is None:
        return True  # another rule refuses it
    # Panels round S up to 64 positions.
    cache = -(-S // 64) * 64 * G * row_bytes(workload_kind(workload), D)
    return max(cache, M * H * D * act_bytes(workload)) <= sheet.max_alloc_bytes


RULES = (
    Rule(
        "the policy has a cache type and products in floating point",
        (),
        lambda c, w, s: w.dtypes.cache is not None and w.dtypes.compute != "int8",
    ),
    Rule(f"head_dim D is one of {', '.join(map(str, HEAD_DIMS))}", (), lambda c, w, s: w.dims["D"] in HEAD_DIMS),
    Rule("heads H are a multiple of the kv heads G", (), lambda c, w, s: w.dims["H"] % w.dims["G"] == 0),
    Rule(
        "queries are the last of the cached positions, M ≤ T, and only causal ones have a window of at least one key",
        (),
        _consistent,
    ),
    Rule("cached positions are within the cache, T ≤ S", (), lambda c, w, s: w.dims["T"] <= w.dims["S"]),
    Rule("each buffer fits one allocation", (), _fits),
)
