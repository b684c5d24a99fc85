"""New K and V go in place to their positions in the KV cache (Transformer-Lite §2.3), turned by RoPE on the way."""

from __future__ import annotations

import itertools

from kernels import cache
from kernels.jobs import Ask, Found, Job, dtype_policy, passes
from kernels.kv_concat import shared
from kernels.kv_concat.cases import in_numpy, least_cost, make_case, rotary
from kernels.kv_concat.codes import CODES_SUBGROUP, CODES_TREE
from kernels.kv_concat.heads import HEADS
from kernels.kv_concat.pairs import PAIRS
from kernels.models import Decoder, ModelSheet
from kernels.spec import Abi, Arg, Config, DeviceSheet, DTypes, Family, Rule, Workload

_ROPES = {None: 0, "half": 1, "interleaved": 2}
_POLICIES = (("fp16", "fp32", "fp32"), ("fp32", "fp32", "fp32"), ("fp16", "fp16", "fp32"))


def _defines(workload: Workload) -> dict[str, int | float]:
    """What cache.clh reads, and the options. Arithmetic is in float under every policy: it is a few operations a number
    beside the bytes that move, and halves would cost the angles of far positions their accuracy."""
    return {
        **cache.cache_defines(workload),
        "ROPE": _ROPES[workload.options.get("rope")],
        "ROTARY": rotary(workload),
        "TURN_Q": int(bool(workload.options.get("q"))),
    }


def _turns(config: Config, workload: Workload, sheet: DeviceSheet) -> bool:
    if workload.options.get("rope") is None:
        return not workload.options.get("q") and "rotary" not in workload.options
    return workload.options["rope"] in _ROPES and rotary(workload) % 2 == 0 < rotary(workload) <= workload.dims["D"]


def _tensor_bytes(workload: Workload) -> float:
    """Of one cache tensor, positions padded to the widest panel."""
    positions = -(-workload.dims["S"] // max(cache.PANELS)) * max(cache.PANELS)
    return positions * workload.dims["G"] * cache.row_bytes(cache.workload_kind(workload), workload.dims["D"])


_RULES = (
    Rule("the arithmetic is in floating point", (), lambda c, w, s: w.dtypes.compute != "int8"),
    Rule(
        f"head_dim is one of {', '.join(map(str, cache.HEAD_DIMS))}",
        (),
        lambda c, w, s: w.dims["D"] in cache.HEAD_DIMS,
    ),
    Rule("query heads are a multiple of kv heads", (), lambda c, w, s: w.dims["H"] % w.dims["G"] == 0),
    Rule("the last position lies within the cache: T ≤ S", (), lambda c, w, s: w.dims["T"] <= w.dims["S"]),
    Rule("the new rows are among the cached ones: M ≤ T", (), lambda c, w, s: w.dims["M"] <= w.dims["T"]),
    Rule("RoPE turns an even number of a head's dims, and Q only beside K", (), _turns),
    Rule("each of K and V fits one buffer", (), lambda c, w, s: _tensor_bytes(w) <= s.max_alloc_bytes),
)


def _awkward(workload: Workload) -> tuple[Workload, ...]:
    """Small hard shapes: one position, scattered rows, a cache that ends within a panel, whole panels in order."""
    shapes = (
        (1, 1, 1, 1, 1),
        (5, 13, 2, 6, 29),
        (21, 40, 3, 3, 83),
        (37, 37, 1, 4, 37),
        (64, 72, 2, 2, 72),
    )
    return tuple(workload.with_dims(M=m, T=t, G=g, H=h, S=s) for m, t, g, h, s in shapes)


def _cover() -> tuple[Workload, ...]:
    """Every cache with every kind of RoPE, on a quarter, half and all of a head; Q beside K in half of them."""
    ropes = (None, *itertools.product(("half", "interleaved"), (4, 2, 1)))
    policies = itertools.cycle(_POLICIES)
    found = []
    for i, ((M, q), kind, how) in enumerate(itertools.product(((5, True), (1, False)), cache.CACHES, ropes)):
        D = cache.HEAD_DIMS[(i + i // len(ropes)) % len(cache.HEAD_DIMS)]
        act, compute, acc = next(policies)
        options = {} if how is None else {"rope": how[0], "rotary": D // how[1], **({"q": True} if q else {})}
        dims = {"M": M, "T": 19, "G": 2, "H": 4, "D": D, "S": 43}
        found.append(Workload("kv_concat", dims, DTypes(act, compute, acc, kind), options=options))  # type: ignore[arg-type]
    return tuple(found)


def _jobs(sheet: ModelSheet, ask: Ask) -> Found:
    """One call a block: its rows' K and V into the cache, Q turned beside them where the model has RoPE."""
    found = []
    for one in passes(sheet, ask):
        decoder = one.of if isinstance(one.of, Decoder) else None
        cached = ask.context if decoder and one.rows == 1 else one.rows
        dims = {
            "M": one.rows,
            "T": cached,
            "G": decoder.kv_heads if decoder else one.of.heads,
            "H": one.of.heads,
            "D": one.of.head_dim,
            "S": max(ask.context, cached) if decoder else cached,
        }
        turned = decoder is not None and decoder.rotary > 0
        options = {"rope": decoder.rope, "rotary": decoder.rotary, "q": True} if decoder and turned else {}
        dtypes = ask.cache_dtypes() if decoder else dtype_policy(ask.act, ask.compute, None, "fp16")
        workload = Workload("kv_concat", dims, dtypes, options=options, label=f"{sheet.name} {one.part}kv")
        found.append(Job(workload, one.layers, one.phase))
    return found, []


def _default(workload: Workload, sheet: DeviceSheet) -> Config:
    """Wide vectors in one work-item a row on a CPU, lanes along a head row on a GPU.

    Where a GPU cannot have two dims of an int4 byte in one work-item (an odd number of half-split pairs), it takes the
    CPU's variant too.
    """
    layouts = cache.default_params(sheet.kind)
    vector = shared.widest(workload)
    if sheet.kind == "cpu":
        many = workload.dims["M"] >= 16 * sheet.compute_units
        return HEADS.config(VEC=vector, WG=1, HEADS=8, ROWS=16 if many else 1, AHEAD=int(many), **layouts)
    if workload.dtypes.cache == "fp16":
        return PAIRS.config(VEC=min(2, vector), **layouts)
    if vector == 1 and workload.dtypes.cache == "int4" and workload.options.get("rope") == "half":
        return HEADS.config(VEC=1, **layouts)
    return CODES_TREE.config(VEC=min(2, vector), LANES=16 if workload.dims["D"] >= 64 else 8, **layouts)


FAMILY = Family(
    name="kv_concat",
    about="new K and V into the cache at their positions, RoPE on K and Q",
    abi=Abi(
        1,
        (
            Arg("k_new", "input", "new keys [M, G, D]"),
            Arg("v_new", "input", "new values [M, G, D]"),
            Arg("q", "inout", "queries [M, H, D], turned in place; absent without option q"),
            Arg("positions", "input", "int32 [M]: where each new row goes; outside 0 … S−1 it goes nowhere"),
            Arg("rope", "input", "float (cos, sin) of each position and pair [S, rotary / 2, 2]; absent without RoPE"),
            Arg("k", "inout", "cached keys, by layout"),
            Arg("v", "inout", "cached values, by layout"),
            Arg("ks", "inout", "scale (and bias) of each head row of K, beside its layout; absent for fp16 caches"),
            Arg("vs", "inout", "of V, likewise"),
            Arg("M", "dim", "new rows"),
            Arg("T", "dim", "positions that are cached afterwards; the launches do not need it"),
            Arg("G", "dim", "kv heads"),
            Arg("H", "dim", "query heads"),
            Arg("D", "dim", "dims of a head"),
            Arg("S", "dim", "positions that the cache has room for"),
        ),
    ),
    dims=("M", "T", "G", "H", "D", "S"),
    case=make_case,
    cost=least_cost,
    defines=_defines,
    variants=(HEADS, PAIRS, CODES_TREE, CODES_SUBGROUP),
    default=_default,
    workload_rules=_RULES,
    awkward=_awkward,
    cover=_cover,
    jobs=_jobs,
    fixed=("H", "G", "D"),
    shares="cache",
    numpy=in_numpy,
)
