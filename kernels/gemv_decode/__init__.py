"""y [M, N] = x [M, K] · wᵀ for few tokens: decode, speculative decoding, short prompts. Weights are read once."""

from __future__ import annotations

import itertools

from kernels import linear
from kernels.gemv_decode import outputs
from kernels.gemv_decode.int8_dot import INT8_DOT, INT8_MUL
from kernels.gemv_decode.lanes_k import LOCAL_TREE, SUBGROUP
from kernels.gemv_decode.panel import PANEL
from kernels.gemv_decode.split_k import SPLIT_K
from kernels.gemv_decode.waves import IMAGE, WAVE_K
from kernels.jobs import GEMV_ROWS, Ask, Found, Job, Matrix, heaviest, matrices
from kernels.models import ModelSheet
from kernels.spec import Abi, Arg, Config, DeviceSheet, Family, Rule, Workload


def _awkward(workload: Workload) -> tuple[Workload, ...]:
    """Small hard shapes: one output, tails of every panel and tile, one group, a long K."""
    M = workload.dims["M"]
    step = workload.format.group or 8
    shapes = (
        (1, 1, step),
        (M, 131, 3 * step),
        (max(1, M - 1), 67, 8 * step if workload.format.group else 1000),
        (M, 16, 16384),
    )
    distinct = dict.fromkeys(shapes)
    return tuple(workload.with_dims(M=m, N=n, K=k) for m, n, k in distinct)


def _cover() -> tuple[Workload, ...]:
    """Every format and policy, with one token, a few and all that the contract has."""
    rows = itertools.cycle((1, 3, 16))
    return tuple(
        Workload("gemv_decode", {"M": next(rows), "N": 80, "K": 384}, dtypes, form)
        for form, dtypes in itertools.product(linear.ALL_FORMATS, linear.POLICIES)
        if not (form == "fp16" and dtypes.compute == "int8")
    )


def _jobs(sheet: ModelSheet, ask: Ask) -> Found:
    """The projections of every decoder block, lm_head, and the pooled row of a tower, wherever M is at most 16.

    K and V are one call, as their weights are read together; gate and up are two calls of one shape.
    """
    found: list[Job] = []
    notes: list[str] = []
    rows = [m for m in ask.m if m <= GEMV_ROWS]
    many = [str(m) for m in ask.m if m > GEMV_ROWS]
    if many and not ask.overlap:
        notes.append(f"gemv_decode serves up to {GEMV_ROWS} rows: M = {', '.join(many)} is left to a GEMM")
    if sheet.decoder:
        for form in ask.formats:
            for matrix in matrices(sheet.decoder):
                found += [linear.job("gemv_decode", sheet, matrix, m, form, ask, notes) for m in rows]
            most = heaviest(sheet.decoder)
            for m in ask.overlap:
                found.append(linear.job("gemv_decode", sheet, most, m, form, ask, notes, phase="overlap"))
    for tower in sheet.towers:
        if tower.project:
            pooled = Matrix(f"{tower.name} projection", tower.project, tower.hidden, 1)
            phase = f"tower {tower.name}"
            found.append(linear.job("gemv_decode", sheet, pooled, 1, "fp16", ask, notes, phase=phase))
        if tower.tokens > GEMV_ROWS and not ask.overlap:
            notes.append(
                f"{sheet.name} {tower.name} tower: its blocks see {tower.tokens} rows at once, "
                f"more than gemv_decode's {GEMV_ROWS}: left to a GEMM"
            )
    return found, notes


def _default(workload: Workload, sheet: DeviceSheet) -> Config:
    """Moderate in everything a device limits: 128 work-items, under a hundred registers, little local memory."""
    tokens = min(8, outputs.tokens_up(workload))
    if workload.dtypes.compute == "int8":
        if sheet.kind == "cpu":
            return INT8_MUL.config(VEC=8, WG=2, MT=tokens) if tokens == 8 else INT8_MUL.config(MT=tokens)
        dot = sheet.has("cl_khr_integer_dot_product") and sheet.opencl_c >= (3, 0)
        return (INT8_DOT if dot else INT8_MUL).config(P=64, VEC=1, WG=64, MT=tokens)
    if sheet.kind == "cpu":
        vector = 8 if workload.dtypes.compute == "fp16" else 16
        # Four blocks share one reading of x and keep four streams of weights in flight (Zen 5, 16384 × 2048, int4/g128:
        # 1 → 2 → 4 blocks 28 → 78 → 91 % of read bandwidth), as long as every core still has work.
        blocks = 4 if tokens <= 4 and workload.dims["N"] >= 8 * vector * sheet.compute_units else 2
        config = PANEL.config(
            P=linear.default_panel(workload, sheet.kind), VEC=vector, BLOCKS=blocks, WG=1, MT=tokens, UNROLL=1
        )
        if sheet.vector_registers == 16 and workload.dtypes.compute == "fp32" and workload.format.kind != "fp16":
            # Sixteen registers of eight floats hold two blocks of one token, one of several (Zen 3, Intel's runtime,
            # 2048 × 16384, int4/g128: 55 → 68 % of read bandwidth).
            config |= {"BLOCKS": 2, "UNROLL": 2, "DECODE": 0} if tokens == 1 else {"BLOCKS": 1}
        return config
    return WAVE_K.config(MT=tokens)


FAMILY = Family(
    name="gemv_decode",
    about="y = x · wᵀ for 1 to 16 tokens, weights in fp16, int8 or 4-bit groups",
    abi=Abi(
        1,
        (
            Arg("x", "input", "activations [M, K]"),
            Arg("w", "weight", "packed codes, by layout"),
            Arg("sb", "weight", "scale and bias per group, or scale per output; absent for fp16 weights"),
            Arg("y", "output", "[M, N]"),
            Arg("M", "dim", "tokens"),
            Arg("N", "dim", "outputs"),
            Arg("K", "dim", "inputs"),
        ),
    ),
    dims=("M", "N", "K"),
    case=linear.make_case,
    cost=linear.least_cost,
    defines=linear.defines,
    variants=(PANEL, WAVE_K, SUBGROUP, LOCAL_TREE, SPLIT_K, IMAGE, INT8_MUL, INT8_DOT),
    default=_default,
    workload_rules=(*linear.RULES, Rule("M is 1 to 16", (), lambda c, w, s: 1 <= w.dims["M"] <= GEMV_ROWS)),
    awkward=_awkward,
    cover=_cover,
    jobs=_jobs,
    bounds={"M": (1, GEMV_ROWS)},
    shares="weights",
    numpy=linear.numpy_product,
)
