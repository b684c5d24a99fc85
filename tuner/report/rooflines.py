"""The roofline of a device with every kernel on it: what its memory and its arithmetic allow, and what was reached.

The roofs are the rates that anchor kernels reached in the same rounds as the kernels, as the limits of the finals tell;
a probe that ran minutes before would put kernels above a roof that has moved since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.tables import time_text
from tuner.report.drawing import FAMILY, INK, PAPER, RULE, figure, svg
from tuner.report.nouns import Kernel, Measured, Predicted, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = {"bandwidth": "o", "arithmetic": "s", "launch": "D"}
FAMILIES = ("gemv_decode", "gemm_prefill", "flash_attention", "kv_concat", "rmsnorm")  # each keeps its colour


@dataclass(frozen=True)
class Roof:
    """One limit: a rate in GB/s or GFLOPS, and how far it moved while the kernels ran."""

    name: str  # "memory", "fp32"
    rate: float
    least: float
    most: float
    source: str

    @property
    def memory(self) -> bool:
        """Whether it is bandwidth, not arithmetic."""
        return self.name == "memory"

    @property
    def text(self) -> str:
        """For people."""
        unit = "GB/s" if self.memory else "GFLOPS"
        spread = f" [{number(self.least)}, {number(self.most)}]" if self.most > 1.01 * self.least else ""
        return f"{self.name} {number(self.rate)} {unit}{spread}"


def roofs(study: Study) -> list[Roof]:
    """Memory's roof and one per compute type: from the anchors, else from the probe, else from the sheet's peaks."""
    found: dict[str, list[float]] = {}
    for kernel in study.measured:
        if not kernel.limit_ns:
            continue
        if kernel.limited_by == "bandwidth" and kernel.bandwidth_bytes:
            found.setdefault("memory", []).append(kernel.bandwidth_bytes / kernel.limit_ns)
        elif kernel.limited_by == "arithmetic":
            found.setdefault(kernel.workload.dtypes.compute, []).append(kernel.flops / kernel.limit_ns)
    made = [
        Roof(name, float(np.median(rates)), min(rates), max(rates), "anchors beside the kernels")
        for name, rates in found.items()
    ]
    probe, peaks = study.protocol.get("probe") or {}, study.protocol.get("peaks") or {}
    told = {"memory": probe.get("read_gb_per_s")} | {
        name.removesuffix("_gflops"): rate for name, rate in probe.items() if name.endswith("_gflops")
    }
    claimed = {"memory": peaks.get("read_gb_per_s"), **peaks.get("gflops", {})}
    for rates, source in ((told, "the probe before the search"), (claimed, "the device's sheet: published peaks")):
        names = {roof.name for roof in made}
        made += [Roof(n, rate, rate, rate, source) for n, rate in rates.items() if rate and n not in names]
    return sorted(made, key=lambda roof: (roof.name != "memory", roof.name))


def number(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def rate_text(kernel: Kernel, ns: float) -> str:
    """What a time means: GFLOPS where arithmetic is the limit, else GB/s."""
    if kernel.limited_by == "arithmetic":
        return f"{number(kernel.flops / ns)} GFLOPS"
    return f"{number(kernel.bytes / ns)} GB/s"


def colour(family: str) -> str:
    """A family's colour, the same in every figure."""
    return FAMILY[FAMILIES.index(family) if family in FAMILIES else len(FAMILIES)]


def roofline(study: Study, name: str, found: Sequence[Measured] | Sequence[Predicted]) -> str:
    """The figure; "" where no kernel computes anything, as a KV concat without RoPE.

    Measured and predicted kernels never come together: `found` is one kind, and looks its own way.
    """
    shown = [kernel for kernel in found if kernel.flops > 0]
    if not shown:
        return ""
    predicted = isinstance(shown[0], Predicted)
    limits = roofs(study)
    made, (axes,) = figure(8.6, 4.6)
    left = min(kernel.intensity for kernel in shown) / 2
    memory = next((roof for roof in limits if roof.name == "memory"), None)
    used = {kernel.workload.dtypes.compute for kernel in shown}
    rates = [roof for roof in limits if roof.name != "memory" and (roof.name in used or roof.name == "fp32")]
    ridges = [roof.rate / memory.rate for roof in rates] if memory else []
    right = 3 * max([*ridges, *(kernel.intensity for kernel in shown)])
    x = np.geomspace(left, right, 400)
    for roof in rates:
        bound = np.minimum(memory.rate * x, roof.rate) if memory else np.full_like(x, roof.rate)
        axes.plot(x, bound, color=INK, linewidth=1.2, linestyle="--" if predicted else "-", zorder=1)
        axes.annotate(roof.text, (right, roof.rate), (0, 4), textcoords="offset points", ha="right", color=INK)
    if memory:
        top = max((roof.rate for roof in rates), default=memory.rate * right)
        axes.fill_between(
            x, np.minimum(memory.least * x, top), np.minimum(memory.most * x, top), color=RULE, linewidth=0, zorder=0
        )
        axes.annotate(memory.text, (left, memory.rate * left), (2, 10), textcoords="offset points", color=INK)
    tips: dict[str, str] = {}
    for place, kernel in enumerate(shown):
        tips |= _mark(axes, kernel, f"k{place}")
    axes.set(xscale="log", yscale="log", xlim=(left, right))
    axes.set_xlabel("FLOP per byte, every tensor touched once")
    axes.set_ylabel("predicted GFLOPS" if predicted else "GFLOPS")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: number(value))
        axis.set_minor_formatter(lambda value, _: "")
    axes.grid(color=RULE, linewidth=0.5)
    _name_families(axes, shown, left)
    what = "predicted" if predicted else "measured"
    about = f"{len(shown)} {what} kernels; " + "; ".join(f"{roof.text} ({roof.source})" for roof in limits)
    return svg(made, name, f"Roofline of {study.name}, {what}", about, tips)


def _gflops(kernel: Kernel) -> float:
    return kernel.flops / (kernel.ns if isinstance(kernel, Measured) else kernel.predicted_ns)  # type: ignore[attr-defined]


def _mark(axes: Axes, kernel: Kernel, gid: str) -> dict[str, str]:
    """One kernel: where it is, and for a measured one a line from where its default is."""
    shape, tint = MARKERS.get(kernel.limited_by or "", "o"), colour(kernel.workload.family)
    x, y = kernel.intensity, _gflops(kernel)
    sizes = " ".join(f"{dim}={size}" for dim, size in kernel.workload.dims.items())
    said = f"{kernel.workload.family} {kernel.label} {kernel.stored} {sizes}: "
    draw = axes.plot
    if isinstance(kernel, Predicted):
        draw([x], [y], shape, color=tint, markerfacecolor="none", markersize=5, markeredgewidth=1, gid=gid, zorder=3)
        return {gid: f"{said}predicted {time_text(kernel.predicted_ns)}, limited by {kernel.limited_by}"}
    assert isinstance(kernel, Measured)
    if kernel.default_ns and not kernel.is_default:
        draw([x, x], [kernel.flops / kernel.default_ns, y], color=tint, linewidth=0.8, zorder=2)
        draw([x], [kernel.flops / kernel.default_ns], "_", color=tint, markersize=5, markeredgewidth=1, zorder=2)
    draw([x], [y], shape, color=tint, markeredgecolor=PAPER, markersize=5.5, markeredgewidth=0.6, gid=gid, zorder=3)
    of = "" if kernel.percent is None else f", {kernel.percent:.0f} % of its limit ({kernel.limited_by})"
    return {gid: f"{said}{time_text(kernel.ns)}, {rate_text(kernel, kernel.ns)}{of}"}


def _name_families(axes: Axes, shown: Sequence[Kernel], left: float) -> None:
    """Each family's name beside its lowest point, moved down where another name is there: no legend to look up."""
    taken: list[tuple[float, float]] = []  # in decades
    lows = [
        min((kernel for kernel in shown if kernel.workload.family == family), key=_gflops)
        for family in dict.fromkeys(kernel.workload.family for kernel in shown)
    ]
    low_y, high_y = axes.get_ylim()
    line = 0.04 * np.log10(high_y / low_y)
    across = 0.2 * np.log10(axes.get_xlim()[1] / left)
    for kernel in sorted(lows, key=_gflops, reverse=True):
        x, y = float(np.log10(kernel.intensity)), float(np.log10(_gflops(kernel)))
        while any(abs(x - other_x) < across and abs(y - other_y) < line for other_x, other_y in taken):
            y -= line
        taken.append((x, y))
        axes.annotate(
            kernel.workload.family,
            (kernel.intensity, 10**y),
            (6, -3),
            textcoords="offset points",
            color=colour(kernel.workload.family),
            weight="bold",
        )
    axes.set_ylim(min(low_y, 10 ** (min(y for _, y in taken) - line)), high_y)
