"""Residual addition and RMSNorm in one pass; LayerNorm, Gemma's 1 + w and int8 output as options."""

from __future__ import annotations

import itertools

from kernels.jobs import Ask, Found, Job, passes
from kernels.models import NORMS, Decoder, ModelSheet
from kernels.rmsnorm.loopy_rows import LOOPY_ROWS
from kernels.rmsnorm.norm import defines, least_cost, make_case
from kernels.rmsnorm.orientation import numpy_norm
from kernels.rmsnorm.rows import ROWS
from kernels.rmsnorm.split_row import SPLIT_ROW
from kernels.rmsnorm.teams import GROUP_TREE, SUBGROUP
from kernels.spec import Abi, Arg, Config, DeviceSheet, DTypes, Family, Rule, Workload

_LAYER_EPS = 1e-5  # PyTorch's default, which CLIP and Phi-2 keep


def _awkward(workload: Workload) -> tuple[Workload, ...]:
    """One number, tails of every vector, rows shorter than a team and longer than what a team keeps."""
    shapes = ((1, 1), (3, 5), (workload.dims["M"] % 7 + 1, 1003), (2, 16384))
    return tuple(workload.with_dims(M=m, N=n) for m, n in shapes)


def _cover() -> tuple[Workload, ...]:
    """Every norm, residual, output and storage, over rows and widths with tails."""
    shapes = itertools.cycle((m, n) for m, n in itertools.product((1, 3, 17), (8, 100, 1000, 4099)))
    found = []
    policies = (DTypes("fp16", "fp32", "fp32"), DTypes("fp32", "fp32", "fp32"))
    for norm, residual, out, dtypes in itertools.product(NORMS, (False, True), ("act", "int8"), policies):
        m, n = next(shapes)
        options = {"norm": norm, "residual": residual, "out": out}
        chosen = {name: value for name, value in options.items() if value not in ("rms", False, "act")}
        found.append(Workload("rmsnorm", {"M": m, "N": n}, dtypes, options=chosen))
    return (*found, Workload("rmsnorm", {"M": 5, "N": 96}, DTypes("fp16", "fp16", "fp32"), options={"eps": 1e-3}))


def _jobs(sheet: ModelSheet, ask: Ask) -> Found:
    """Two norms a block and one at the end, each behind a residual addition except the first of a pass.

    A tower whose last blocks are skipped gives its features without a last norm. A block that runs attention and
    feed-forward side by side (Phi-2) has one norm; sheets do not tell, so two are counted.
    """
    found: list[Job] = []
    for each in passes(sheet, ask):
        skipped = 0 if isinstance(each.of, Decoder) else each.of.skip_last
        norm = each.of.norm if isinstance(each.of, Decoder) else "layer"
        options = {"norm": norm} | ({"eps": _LAYER_EPS} if norm == "layer" else {})
        dims = {"M": each.rows, "N": each.of.hidden}
        for residual, count, name in ((True, 2 * each.layers - bool(skipped), "norm"), (False, 1, "first norm")):
            workload = Workload(
                "rmsnorm",
                dims,
                ask.dtypes(),
                options=options | ({"residual": True} if residual else {}),
                label=f"{sheet.name} {each.part}{name}",
            )
            found.append(Job(workload, count, each.phase))
    return found, []


def _default(workload: Workload, sheet: DeviceSheet) -> Config:
    """A work-group per row on a GPU, a wide work-item per row on a CPU."""
    if sheet.kind != "cpu":
        plain = GROUP_TREE.config()
        lanes = plain["LANES"] * plain["VEC"]
        # Of a row of 512 (CLIP's text encoder) two vectors a lane are all there is to keep.
        keep = next(n for n in (plain["KEEP"], 2, 1) if n == 1 or n * lanes < 2 * workload.dims["N"])
        return GROUP_TREE.config(KEEP=keep)
    many = workload.dims["M"] >= 16 * sheet.compute_units
    return ROWS.config(VEC=16, UNROLL=4, ROWS=16 if many else 1, PREFETCH=int(not many))


FAMILY = Family(
    name="rmsnorm",
    about="s = x + r, y = s / sqrt(mean(s²) + eps) · w, row by row; LayerNorm and int8 output as options",
    abi=Abi(
        1,
        (
            Arg("x", "input", "activations [M, N]"),
            Arg("r", "input", "what is added to x first [M, N]; absent without option residual"),
            Arg("w", "weight", "[N], stored as the activations are"),
            Arg("b", "weight", "LayerNorm's bias [N]; absent for the others"),
            Arg(
                "sum", "output", "x + r [M, N], rounded as stored, which is what is normalised; absent without residual"
            ),
            Arg("y", "output", "[M, N], activations or int8 codes"),
            Arg("ys", "output", "float scale of each row's codes [M]: max |y| / 127; absent unless y is int8"),
            Arg("M", "dim", "rows"),
            Arg("N", "dim", "elements of a row"),
        ),
    ),
    dims=("M", "N"),
    case=make_case,
    cost=least_cost,
    defines=defines,
    variants=(ROWS, GROUP_TREE, SUBGROUP, SPLIT_ROW, LOOPY_ROWS),
    default=_default,
    workload_rules=(
        Rule("norms have no integer products", (), lambda c, w, s: w.dtypes.compute != "int8"),
        Rule(
            "the rows fit one buffer",
            (),
            lambda c, w, s: w.dims["M"] * w.dims["N"] * (2 if w.dtypes.act == "fp16" else 4) <= s.max_alloc_bytes,
        ),
    ),
    awkward=_awkward,
    cover=_cover,
    numpy=numpy_norm,
    jobs=_jobs,
)
