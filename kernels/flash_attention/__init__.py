"""o [M, H, D] = softmax(scale · q · kᵀ + mask) · v over a KV cache: prefill and decode, no score matrix in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kernels.cache import CACHES, default_params
from kernels.flash_attention import problem
from kernels.flash_attention.orientation import numpy_attention
from kernels.flash_attention.split import SPLIT
from kernels.flash_attention.staged import STAGED
from kernels.flash_attention.team import GROUP, SUBGROUP
from kernels.flash_attention.tile import TILE
from kernels.jobs import Ask, Found, Job, passes
from kernels.models import Decoder, ModelSheet
from kernels.spec import Abi, Arg, Config, DeviceSheet, DTypes, Family, Workload

FEW = 4  # queries up to which keys are split rather than queries tiled, where nothing was measured


def _awkward(workload: Workload) -> tuple[Workload, ...]:
    """Small hard shapes: one key, tails of every tile, block and panel, room behind the last key."""
    per_group = problem.heads_per_group(workload)
    shapes = (
        (1, 1, 1, 1),
        (1, 130, 2, 150),
        (5, 37, 2, 41),
        (33, 97, 1, 97),
    )
    return tuple(workload.with_dims(M=m, T=t, H=per_group * g, G=g, S=s) for m, t, g, s in shapes)


_FLOAT, _HALF, _HALVES = DTypes("fp32", "fp32", "fp32"), DTypes("fp16", "fp16", "fp32"), DTypes("fp16", "fp16", "fp16")
_STORED = DTypes("fp16", "fp32", "fp32")


def _cover() -> tuple[Workload, ...]:
    """Every head size, cache type, option and policy, a token, a few and a tile's tail, MHA, GQA and MQA."""
    causal = {"causal": True}
    shapes: tuple[tuple[int, int, int, int, int, int, dict[str, Any]], ...] = (
        # D, H, G, M, T, S, options
        (64, 4, 4, 33, 33, 40, {}),
        (128, 8, 1, 1, 200, 210, causal),
        (256, 4, 2, 5, 50, 50, causal),
        (72, 3, 3, 33, 65, 65, {"padding": True}),
        (80, 4, 4, 1, 100, 128, causal),
        (96, 8, 2, 5, 90, 96, causal | {"window": 20}),
        (32, 6, 3, 33, 33, 33, {"padding": True}),
        (128, 2, 2, 33, 80, 80, causal | {"softcap": 20.0}),
        (64, 7, 1, 5, 64, 64, causal | {"scale": 0.2}),
        (64, 8, 1, 33, 70, 80, causal | {"window": 7, "softcap": 30.0, "padding": True}),
        (256, 8, 1, 1, 300, 300, causal | {"window": 100}),
    )
    found = []
    for i, (D, H, G, M, T, S, options) in enumerate(shapes):
        dims = {"M": M, "T": T, "H": H, "G": G, "D": D, "S": S}
        policies = [replace(_STORED, cache=cache) for cache in CACHES]
        policies.append(replace((_FLOAT, _HALF, _HALVES)[i % 3], cache=CACHES[i // 3 % 3]))
        found += [Workload("flash_attention", dims, policy, options=options) for policy in policies]
    return tuple(found)


def _jobs(sheet: ModelSheet, ask: Ask) -> Found:
    """One call per layer: a decoder's prompt attends to itself, its next token to `context` positions.

    That token is tuned at other lengths too, once each, so that buckets along the length can have kernels of their own.
    A tower attends to its own tokens, in fp16 as its weights.
    """
    found = []
    for run in passes(sheet, ask):
        dtypes, options, kv_heads = ask.cache_dtypes(), {"causal": True}, run.of.heads
        lengths = [(run.rows, run.layers, run.phase)]
        if isinstance(run.of, Decoder):
            kv_heads = run.of.kv_heads
            if run.rows == 1:
                lengths = [(ask.context, run.layers, run.phase), *((length, 1, "lengths") for length in ask.lengths)]
        else:
            dtypes = replace(dtypes, cache="fp16")
            options = {"causal": True} if run.of.causal else {}
        label = f"{sheet.name} {run.part}attention"
        for positions, count, phase in lengths:
            dims = {"M": run.rows, "T": positions, "H": run.of.heads, "G": kv_heads, "D": run.of.head_dim}
            workload = Workload("flash_attention", {**dims, "S": positions}, dtypes, options=options, label=label)
            found.append(Job(workload, count, phase))
    return found, []


def _default(workload: Workload, sheet: DeviceSheet) -> Config:
    """Head-major rows of K and V; what few queries need on one side, what many need on the other."""
    return _cpu_default(workload, sheet) if sheet.kind == "cpu" else _gpu_default(workload, sheet)


def _cpu_default(workload: Workload, sheet: DeviceSheet) -> Config:
    M, T, D = (workload.dims[name] for name in ("M", "T", "D"))
    per_group = problem.heads_per_group(workload)
    heads = max(n for n in (1, 2, 4, 8) if per_group % n == 0)
    layouts = default_params(sheet.kind)
    few = sheet.vector_registers == 16  # of eight floats
    if M > FEW:
        vectors = 2 if M * heads > 16 and not few else 1
        # Four tiles share a conversion of K and V, as long as every core has work: 1,024 causal queries of 256 dims,
        # Zen 5, Intel's runtime: 1 → 4 tiles 73 → 83 % of the multiply-add probe.
        waves = min(M * workload.dims["H"] // (4 * sheet.compute_units), M * heads) // (16 * vectors)
        tiles, sums = 4 if waves >= 4 else 2 if waves >= 2 else 1, 4 if few else 8
        return TILE.config(**layouts, HEADS=heads, RV=vectors, TILES=tiles, KC=sums, DC=sums)
    planes = 2 if workload.dtypes.cache == "int4" else 1
    heads = min(heads, 8 // planes if few else 8)
    units = D // planes
    vector = max(n for n in ((4, 8) if few else (4, 8, 16)) if units % n == 0)
    pairs = units % (2 * vector) == 0 and 2 * heads * planes <= sheet.vector_registers * 3 // 4
    # Where heads alone keep every core busy, ranges would only add their joining; and the second launch costs what a
    # second core saves up to 1,024 positions of wide vectors (8 heads of 256 dims on one kv head, Zen 5, PoCL: 45 µs
    # whole, 54 in halves), but not of narrow ones (Zen 3: 230 µs whole, 170 in halves).
    whole = workload.dims["H"] // heads >= 2 * sheet.compute_units or (512 if few else 1024) >= T
    return SPLIT.config(
        **layouts,
        HEADS=heads,
        VEC=vector,
        NV=2 if pairs else 1,
        BN=32,
        PREFETCH=1,
        SPLIT=0 if whole else 512,
    )


def _gpu_default(workload: Workload, sheet: DeviceSheet) -> Config:
    """Moderate in everything a device limits: 128 work-items, under a hundred registers, little local memory."""
    layouts = default_params(sheet.kind)
    if workload.dims["M"] > FEW:
        parts = min(n for n in (1, 2, 4, 8) if workload.dims["D"] // n <= 40)
        config = STAGED.config(**layouts, BLOCK_M=32 if parts == 1 else 16, N_SPLIT=max(2, parts))
        if all(rule.holds(config, workload, sheet) for rule in STAGED.rules):
            return config
    split = 256 if workload.dims["M"] <= FEW and workload.dims["T"] > 256 else 0
    return GROUP.config(**layouts, SPLIT=split)


FAMILY = Family(
    name="flash_attention",
    about="o = softmax(scale · q · kᵀ + mask) · v over an fp16, int8 or int4 KV cache: prefill and decode",
    abi=Abi(
        1,
        (
            Arg("q", "input", "queries [M, H, D], the last of the cached positions"),
            Arg("k", "cache", "keys of S positions, by layout"),
            Arg("ks", "cache", "scale (int4: and bias) of each key's head row; absent for fp16"),
            Arg("v", "cache", "values, by layout"),
            Arg("vs", "cache", "scale (int4: and bias) of each value's head row; absent for fp16"),
            Arg("valid", "input", "uint8 [T], 0 where a key is padding; absent without option padding"),
            Arg("o", "output", "[M, H, D]"),
            Arg("M", "dim", "queries"),
            Arg("T", "dim", "cached positions, the queries' own included"),
            Arg("H", "dim", "heads"),
            Arg("G", "dim", "kv heads"),
            Arg("D", "dim", "dims of a head"),
            Arg("S", "dim", "positions that the cache has room for"),
        ),
    ),
    dims=("M", "T", "H", "G", "D", "S"),
    case=problem.make_case,
    cost=problem.least_cost,
    defines=problem.defines,
    variants=(TILE, SPLIT, STAGED, SUBGROUP, GROUP),
    default=_default,
    workload_rules=problem.RULES,
    awkward=_awkward,
    cover=_cover,
    numpy=numpy_attention,
    fixed=("H", "G", "D"),
    jobs=_jobs,
    shares="cache",
)
