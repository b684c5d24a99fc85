"""Writes loopy_rows.cl: `python -m kernels.rmsnorm.loopy_generate`, with loopy installed (`pip install loopy`).

The norms are told to loopy as they stand in a textbook; it parallelises them and writes OpenCL C. What it generates is
committed, so that kernels import and run where loopy is not installed; a test generates it again and compares.
"""

from __future__ import annotations

import itertools
import warnings
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

LANES = (1, 64, 256)  # work-items of a row; one is a plain loop, which a compiler may vectorise

_SUM_OF_BOTH = "narrow(widen(x[i, j]) + widen(r[i, j]))"
_RMS = """
    <> total = sum(n, s(m, n) * s(m, n)) {id=total}
    <> scale = inverse_root(total / N) {id=scale, dep=total}
    y[m, k] = narrow(s(m, k) * scale * gain(w[k])) {id=y, dep=scale}
"""
_LAYER = """
    <> mean = sum(n, s(m, n)) / N {id=mean}
    <> total = sum(n2, (s(m, n2) - mean) * (s(m, n2) - mean)) {id=total, dep=mean}
    <> scale = inverse_root(total / N) {id=scale, dep=total}
    y[m, k] = narrow((s(m, k) - mean) * scale * gain(w[k]) + widen(b[k])) {id=y, dep=scale}
"""
_HEAD = """\
// RMSNorm and LayerNorm as loopy writes them, one row per work-group. Generated: do not edit, run
// `python -m kernels.rmsnorm.loopy_generate`. Every branch below is one kernel of loopy's.
#ifndef LANES
#define LANES 64   // work-items of a row: 1, 64, 256
#endif
#define VEC 1

#include "norm.clh"

INLINE float gain(act w) { return NORM == 1 ? 1.0f + widen(w) : widen(w); }

#define lid(N) ((int)get_local_id(N))
#define gid(N) ((int)get_group_id(N))
"""


def _loopy() -> Any:
    """Loopy, on first use: it is needed to generate and to count, not to run. Untyped, for it may not be there."""
    return import_module("loopy")


def textbook(*, residual: bool, layer: bool, plain: bool = False) -> Any:
    """The loopy kernel of one norm before any transformation.

    Stored numbers are 16-bit ones that norm.clh's functions widen and narrow, whatever they are; where `plain`, they
    are floats and no function is called, so that loopy can count what is done to them.
    """
    lp = _loopy()
    stored = np.float32 if plain else np.uint16
    tensors = (  # in the order of the ABI
        ("x", "M, N"),
        *((("r", "M, N"),) if residual else ()),
        ("w", "N"),
        *((("b", "N"),) if layer else ()),
        *((("sum", "M, N"),) if residual else ()),
        ("y", "M, N"),
    )
    both = "x[i, j] + r[i, j]" if plain else _SUM_OF_BOTH
    value = (both if residual else "x[i, j]") if plain else f"widen({_SUM_OF_BOTH if residual else 'x[i, j]'})"
    body = _LAYER if layer else _RMS
    if residual:
        body += f"    sum[m, k] = {both.replace('i, j', 'm, k')} {{id=sum}}\n"
    if plain:
        for name in ("narrow", "widen", "gain", "inverse_root"):
            body = body.replace(f"{name}(", "(")
    kernel = lp.make_kernel(
        "{[m, n, n2, k]: 0 <= m < M and 0 <= n, n2, k < N}" if layer else "{[m, n, k]: 0 <= m < M and 0 <= n, k < N}",
        f"s(i, j) := {value}\nfor m\n{body}end\n",
        [
            *(lp.GlobalArg(name, stored, shape=shape) for name, shape in tensors),
            lp.ValueArg("M, N", np.int32),
        ],
        lang_version=(2018, 2),
        target=lp.OpenCLTarget(),
        name="norm",
    )
    for name in ("widen", "narrow", "gain", "inverse_root"):
        kernel = lp.register_callable(kernel, name, _converter(name))
    return lp.assume(kernel, "M >= 1 and N >= 1")


def _converter(name: str) -> Any:
    """One of the functions of norm.clh, with its types, as loopy wants to know it."""
    types, base = import_module("loopy.types"), import_module("loopy.kernel.function_interface").ScalarCallable
    real, stored = types.NumpyType(np.dtype(np.float32)), types.NumpyType(np.dtype(np.uint16))
    takes = stored if name in ("widen", "gain") else real
    gives = stored if name == "narrow" else real

    class Converter(base):  # type: ignore[misc, valid-type]  # loopy is not there for everyone who checks types
        def with_types(self, arg_id_to_dtype: Any, callables_table: Any) -> Any:
            known = {0: takes, -1: gives} if arg_id_to_dtype.get(0) is not None else arg_id_to_dtype
            return self.copy(name_in_target=self.name, arg_id_to_dtype=known), callables_table

        def with_descrs(self, arg_id_to_descr: Any, callables_table: Any) -> Any:
            return self.copy(arg_id_to_descr=arg_id_to_descr), callables_table

    return Converter(name)


def _kernel_text(residual: bool, layer: bool, lanes: int) -> str:
    """One kernel: a row per work-group, its columns over `lanes` work-items, sums joined by loopy's own tree."""
    lp = _loopy()
    kernel = textbook(residual=residual, layer=layer)
    if lanes > 1:
        for iname in ("n", "n2") if layer else ("n",):
            kernel = lp.split_iname(kernel, iname, lanes, inner_tag="l.0")
            kernel = lp.split_reduction_outward(kernel, f"{iname}_inner")
        kernel = lp.split_iname(kernel, "k", lanes, inner_tag="l.0")
        kernel = lp.add_inames_to_insn(kernel, frozenset({"k_inner"}), "id:scale")  # each work-item for itself
        # A tree leaves its sum with the first work-item; loopy does not see by itself that the others wait for it.
        for shared, reader in (("mean", "total"), ("total", "scale")) if layer else (("total", "scale"),):
            kernel = lp.set_temporary_address_space(kernel, shared, lp.AddressSpace.LOCAL)
            kernel = lp.add_barrier(kernel, f"id:{shared}", f"id:{reader}", synchronization_kind="local")
    kernel = lp.tag_inames(kernel, {"m": "g.0"})
    text: str = lp.generate_code_v2(kernel).device_code()
    return text[text.index("__kernel") :].replace("ushort", "act")


def generate() -> str:
    """The text of loopy_rows.cl. Raises ModuleNotFoundError without loopy."""
    lp = _loopy()
    parts = [_HEAD]
    with warnings.catch_warnings(), lp.CacheMode(False):
        warnings.simplefilter("ignore")
        for number, (layer, residual, lanes) in enumerate(itertools.product((False, True), (False, True), LANES)):
            branch = "#elif" if number else "#if"
            parts.append(f"{branch} LAYER == {int(layer)} && RESIDUAL == {int(residual)} && LANES == {lanes}\n")
            parts.append(_kernel_text(residual, layer, lanes))
    return "\n".join((*parts, "#endif\n"))


if __name__ == "__main__":
    Path(str(files("kernels.rmsnorm") / "loopy_rows.cl")).write_text(generate(), encoding="utf-8")
