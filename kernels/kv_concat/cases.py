"""The cases of kv_concat: new rows, a cache with content, what must be at the written positions and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernels import cache
from kernels.cache import CacheLayout, CacheTensor
from kernels.spec import Case, Cost, Tolerance, Workload
from reference.rope import angles, rope, table

Array = np.ndarray[Any, Any]

_ACT: dict[str, Any] = {"fp16": np.float16, "fp32": np.float32}
_SHORT = 256  # positions; a cache as short as that is a test's
_TENSORS = ("k", "v")


def rotary(workload: Workload) -> int:
    """Dims of a head that are turned; 0 without RoPE."""
    return int(workload.options["rotary"]) if workload.options.get("rope") else 0


def make_case(workload: Workload, seed: int) -> Case:
    """New K and V (and Q), with outliers, for a cache that is full of other numbers.

    Rows go to positions T−M … T−1, as a model's do. In a short cache with room on both sides (M < T < S ≤ 256) they
    are scattered instead, in any order, and one of several has a position beyond the cache: nothing may come of it.
    """
    rng = np.random.default_rng(seed)
    G, H, D, S = (workload.dims[name] for name in ("G", "H", "D", "S"))
    kind = cache.workload_kind(workload)
    positions = _positions(rng, workload)
    new = {f"{name}_new": _activations(rng, workload, G) for name in _TENSORS}
    before = {name: cache.draw_cache(rng, kind, S, G, D) for name in _TENSORS}
    written = np.flatnonzero((positions >= 0) & (positions < S))
    expected: dict[str, Array] = {name: new[f"{name}_new"][written].astype(np.float64) for name in _TENSORS}
    inputs: dict[str, Array] = {**new, "positions": positions}
    turns = rotary(workload)
    if turns:
        turned = angles(positions[written], turns)
        expected["k"] = rope(expected["k"], turned, workload.options["rope"])
        inputs["rope"] = table(S, turns)
        if workload.options.get("q"):
            q = _activations(rng, workload, H)
            inputs["q"] = q
            expected["q"] = q.astype(np.float64)
            expected["q"][written] = rope(expected["q"][written], turned, workload.options["rope"])
    judged = _Judge(inputs, before, positions[written])
    return Case(
        pack=judged.pack,
        outputs={},
        expected={**expected, "k untouched": np.zeros(1), "v untouched": np.zeros(1)},
        tolerance=tolerance(workload, expected),
        read=judged.read,
        exact=frozenset({"k untouched", "v untouched"}),
    )


def _positions(rng: np.random.Generator, workload: Workload) -> Array:
    M, T, S = (workload.dims[name] for name in ("M", "T", "S"))
    if not M < T < S <= _SHORT:
        return np.arange(T - M, T, dtype=np.int32)
    positions = rng.permutation(S)[:M].astype(np.int32)
    if M > 1:
        positions[rng.integers(M)] = rng.choice([-1, S, S + 7, -(2**31), 2**31 - 1])
    return positions


def _activations(rng: np.random.Generator, workload: Workload, heads: int) -> Array:
    """Rows [M, heads, D]; every third has an outlier, as the keys of transformers have."""
    M, D = workload.dims["M"], workload.dims["D"]
    x = rng.standard_normal((M, heads, D), np.float32)
    flat = x.reshape(-1, D)
    flat[::3, rng.integers(D)] *= 30
    return x.astype(_ACT[workload.dtypes.act])


@dataclass(frozen=True, eq=False)
class _Judge:
    """Packs a case's tensors, and reads what a kernel made of the cache."""

    inputs: Mapping[str, Array]
    before: Mapping[str, CacheTensor]
    written: Array  # positions that rows went to, in the rows' order

    def pack(self, layouts: Mapping[str, str]) -> Mapping[str, Array]:
        packed = dict(self.inputs)
        for name, tensor in self.before.items():
            packed |= cache.pack_tensor(name, tensor, CacheLayout.parse(layouts[name]))
        return packed

    def read(self, raw: Mapping[str, Array], layouts: Mapping[str, str]) -> Mapping[str, Array]:
        """Values at the written positions, and how many bytes differ in all the rest, scales and padding included."""
        values = {"q": raw["q"]} if "q" in raw else {}
        for name, tensor in self.before.items():
            layout = CacheLayout.parse(layouts[name])
            pristine = cache.pack_tensor(name, tensor, layout)
            values[name] = cache.take_positions(name, raw, layout, self.written).values
            changed = 0
            for part, array in pristine.items():
                here = cache.at_positions(array, layout, self.written)
                array[here] = raw[part][here]
                changed += int(np.count_nonzero(_bytes(array) != _bytes(raw[part])))
            values[f"{name} untouched"] = np.array([float(changed)])
        return values


def _bytes(array: Array) -> Array:
    return np.ascontiguousarray(array).view(np.uint8)


def tolerance(workload: Workload, expected: Mapping[str, Array]) -> Tolerance:
    """The most that storing can cost, for these very rows; a bound, so that no right kernel exceeds it.

    - A half is within 2⁻¹¹ of its number; halves that are only copied are exact, but for those below 2⁻¹⁴, which a
      device without subnormals makes 0.
    - RoPE in float: the table's two roundings, two products and a sum, each 2⁻²⁴ of the pair's length, within 2⁻²¹.
    - A code is within half a step of its number. The step is the row's largest magnitude / 127 or its range / 15,
      widened by rounding the scale up (2⁻¹⁰) and the bias down (2⁻¹⁰ of the minimum). Another per cent is for the
      kernel's own float operations.

    The errors of a tensor are held against its own mean square; the limits are those of the worst tensor.
    """
    nmse, max_scaled = 2.0**-30, 2.0**-13
    for name, values in expected.items():
        power = float(np.square(values).mean())
        relative = 0.0
        if rotary(workload) and name != "v":
            relative += 2.0**-21
        if name == "q" or workload.dtypes.cache == "fp16":
            half = workload.dtypes.act == "fp16" if name == "q" else True
            copied = name == "v" or not rotary(workload)
            relative += 2.0**-11 if half and not (copied and workload.dtypes.act == "fp16") else 0.0
            step = np.zeros(1)
        else:
            step = _steps(values, workload.dtypes.cache)
        largest = float(np.abs(values).max()) * relative + 0.505 * float(step.max()) + 2.0**-25 * (relative > 0)
        squares = power * relative**2 * 2 + (0.505**2) * float(np.square(step).mean()) * 2
        nmse = max(nmse, squares / power)
        max_scaled = max(max_scaled, 1.5 * largest / power**0.5)
    return Tolerance(nmse, max_scaled)


def _steps(values: Array, kind: str | None) -> Array:
    """The quantisation step of each head row."""
    low, high = values.min(axis=-1), values.max(axis=-1)
    steps: Array = (high - low + 2.0**-10 * np.abs(low)) / 15
    if kind == "int8":
        steps = np.maximum(high, -low) / 127
    return steps * (1 + 2.0**-10)


def least_cost(workload: Workload) -> Cost:
    """New rows read and written once, the turned part of Q both, positions and the rows of the table that they name.

    Nothing depends on T or S: what is cached already is not touched. Three operations per turned dim, two per number
    that becomes a code.
    """
    M, G, H, D = (workload.dims[name] for name in ("M", "G", "H", "D"))
    kind = cache.workload_kind(workload)
    act_bytes = np.dtype(_ACT[workload.dtypes.act]).itemsize
    turns, with_q = rotary(workload), bool(workload.options.get("q"))
    q_bytes = M * H * turns * act_bytes if with_q else 0
    read = 2 * M * G * D * act_bytes + q_bytes + 4 * M + 4 * M * turns
    written = 2 * M * G * cache.row_bytes(kind, D) + q_bytes
    flops = 3.0 * M * turns * (G + (H if with_q else 0)) + (0 if kind == "fp16" else 4.0 * M * G * D)
    return Cost(flops=flops, bytes=float(read + written), written=float(written))


def in_numpy(workload: Workload) -> Callable[[], object]:
    """The job in NumPy: halves by its own casts, float32 in between, an fp16 cache of whole rows."""
    M, T, G, H, D, S = (workload.dims[name] for name in ("M", "T", "G", "H", "D", "S"))
    rng = np.random.default_rng(0)
    k_new, v_new = _activations(rng, workload, G), _activations(rng, workload, G)
    q = _activations(rng, workload, H)
    k, v = np.zeros((S, G, D), np.float16), np.zeros((S, G, D), np.float16)
    positions, turns = np.arange(T - M, T), rotary(workload) // 2
    both = table(S, 2 * turns)[positions][:, None] if turns else np.zeros((M, 1, 0, 2), np.float32)
    cos, sin = both[..., 0], both[..., 1]
    interleaved = workload.options.get("rope") == "interleaved"
    first = slice(0, 2 * turns, 2) if interleaved else slice(0, turns)
    second = slice(1, 2 * turns, 2) if interleaved else slice(turns, 2 * turns)

    def turned(x: Array) -> Array:
        a, b = x[..., first].astype(np.float32), x[..., second].astype(np.float32)
        x = x.copy()
        x[..., first], x[..., second] = a * cos - b * sin, b * cos + a * sin
        return x

    def concat() -> None:
        k[positions] = turned(k_new) if turns else k_new
        v[positions] = v_new
        if turns and workload.options.get("q"):
            turned(q)

    return concat
