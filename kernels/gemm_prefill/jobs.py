"""What a model asks of the GEMM: every matrix that more rows meet at once than the GEMV takes, with what follows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from kernels import linear
from kernels.jobs import GEMV_ROWS, Ask, Found, Job, Matrix, heaviest, matrices, phase_of
from kernels.models import Decoder, ModelSheet, Projector, Tower

Fused = tuple[Matrix, Mapping[str, Any]]  # a matrix and the options of its product


def jobs(sheet: ModelSheet, ask: Ask) -> Found:
    """Decoder blocks once per format and number of rows, towers and projector in fp16, the overlap with the GEMV.

    There is no lm_head: a prefill needs its last row alone, which is a GEMV's.
    """
    found: list[Job] = []
    notes: list[str] = []

    def add(fused: Iterator[Fused], rows: int, form: str, phase: str) -> None:
        for matrix, options in fused:
            found.append(
                linear.job("gemm_prefill", sheet, matrix, rows, form, ask, notes, phase=phase, options=options)
            )

    for form in ask.formats if sheet.decoder else ():
        assert sheet.decoder is not None
        for rows in ask.m:
            if rows > GEMV_ROWS:
                add(_block(sheet.decoder), rows, form, phase_of(rows))
        for rows in ask.overlap:
            add(iter([(heaviest(sheet.decoder), {})]), rows, form, "overlap")
    for tower in sheet.towers:
        if tower.tokens > GEMV_ROWS:
            add(_tower(tower), tower.tokens, "fp16", f"tower {tower.name}")
    if sheet.projector and sheet.projector.tokens > GEMV_ROWS:
        # It takes what the first tower gives, once for each image.
        add(_projector(sheet.projector), sheet.projector.tokens, "fp16", f"tower {sheet.towers[0].name}")
    return found, notes


def _block(d: Decoder) -> Iterator[Fused]:
    """A decoder's block. Gate and up are one launch; models with LayerNorm have biases in their linear layers too."""
    biases = {"bias": True} if d.norm == "layer" else {}
    after: Mapping[str, Mapping[str, Any]] = {
        "q": {},
        "kv": {},
        "o": {"residual": True},
        "gate/up": {"act": d.act, "gated": True},
        "fc1": {"act": d.act},
        "down": {"residual": True},
        "fc2": {"residual": True},
    }
    for matrix in matrices(d):
        if matrix.name in after:
            yield replace(matrix, count=d.layers), {**after[matrix.name], **biases}


def _tower(t: Tower) -> Iterator[Fused]:
    """A tower's block: every linear layer has a bias, and Q, K and V are one matrix."""
    layers = t.layers - t.skip_last
    yield Matrix(f"{t.name} qkv", 3 * t.hidden, t.hidden, layers), {"bias": True}
    yield Matrix(f"{t.name} o", t.hidden, t.hidden, layers), {"bias": True, "residual": True}
    yield Matrix(f"{t.name} fc1", t.inter, t.hidden, layers), {"bias": True, "act": t.act}
    yield Matrix(f"{t.name} fc2", t.hidden, t.inter, layers), {"bias": True, "residual": True}


def _projector(p: Projector) -> Iterator[Fused]:
    """Linear layers with biases, gelu between them (MobileVLM's and LLaVA's MLP)."""
    for i, (N, K) in enumerate(p.linears):
        last = i == len(p.linears) - 1
        yield Matrix(f"projector {i + 1}", N, K, 1), {"bias": True} if last else {"bias": True, "act": "gelu"}
