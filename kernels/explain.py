"""Tells in lines of text why a workload gets the entry it gets, and what an engine would launch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kernels.select import Selection, select, words
from kernels.spec import Dims, Family, ImageView, Launch, Workload, evaluate
from kernels.tuned import DeviceFacts, Entry, TunedConfig


def explain(
    configs: Sequence[TunedConfig],
    workload: Workload,
    device: DeviceFacts,
    family: Family,
    *,
    predicted: bool = False,
) -> list[str]:
    """The steps of `select`, the choice, and its launches with every size worked out. Raises as `select` does."""
    chosen = select(configs, workload, device, family, predicted=predicted)
    sizes = " ".join(f"{dim}={size}" for dim, size in workload.dims.items())
    return [
        f"{family.name} {chosen.entry.match} {sizes}",
        f"on {device.vendor} {device.model}, driver {device.driver or 'unknown'}, "
        f"compiler {device.compiler or 'unknown'}",
        *(f"  {number}. {note}" for number, note in enumerate(chosen.notes, 1)),
        f"level {chosen.level}: {words(chosen.level, chosen.entry.evidence)}",
        *_entry_lines(chosen, workload.dims),
        *_program_lines(configs, family, chosen.entry),
    ]


def _program_lines(configs: Sequence[TunedConfig], family: Family, entry: Entry) -> Iterator[str]:
    """What it costs that few programs serve many sizes, where that was asked for."""
    for config in configs:
        section = config.kernels.get(family.name)
        if section and section.programs and entry in section.entries and entry.stats:
            few = section.programs
            here = "the fastest here" if not entry.stats.regret else f"{100 * entry.stats.regret:.1f} % behind here"
            yield (
                f"  {here}: {few.count} programs serve all sizes (at most {few.most} were asked for), at worst "
                f"{100 * few.worst_regret:.1f} % and on average {100 * few.mean_regret:.1f} % behind the fastest"
            )


def _entry_lines(chosen: Selection, dims: Dims) -> Iterator[str]:
    entry = chosen.entry
    params = " ".join(f"{name}={value}" for name, value in entry.params.items())
    yield f"entry {entry.id}: variant {entry.variant}{' ' + params if params else ''}"
    yield f"  layout {', '.join(f'{tensor} in {name}' for tensor, name in entry.layout.items()) or 'none'}"
    yield f"  build {' '.join(entry.build_options)}"
    for scratch in entry.scratch:
        yield f"  scratch {scratch.name}: {evaluate(scratch.bytes, dims)} bytes"
    for launch in entry.launches:
        yield f"  launch {_launch_text(launch, dims)}"
    needs = entry.needs
    yield (
        f"  needs work-groups of {needs.work_group}, {needs.local_bytes} bytes of local memory"
        + (f", {', '.join(needs.extensions)}" if needs.extensions else "")
    )
    yield f"  {_evidence_text(entry)}"
    if v := entry.verification:
        half = f"{v.proven_on.half} half" + (f", subgroups of {v.proven_on.subgroup}" if v.proven_on.subgroup else "")
        yield f"  proven on {v.proven_on.device} ({half}): {v.metric} {v.value:.3g}, limit {v.limit:.3g}"


def _launch_text(launch: Launch, dims: Dims) -> str:
    grid = "×".join(str(evaluate(size, dims)) for size in launch.grid)
    local = "chosen by the driver" if launch.local is None else "×".join(map(str, launch.local))
    return (
        f"{launch.entry}: global {grid}, local {local}, arguments {', '.join(_arg_text(a, dims) for a in launch.args)}"
    )


def _arg_text(arg: str | ImageView, dims: Dims) -> str:
    if isinstance(arg, str):
        return f"{arg}={dims[arg]}" if arg in dims else arg
    width, height = evaluate(arg.width, dims), evaluate(arg.height, dims)
    return f"image {width}×{height} of {arg.channels} {arg.type} over {arg.of}"


def _evidence_text(entry: Entry) -> str:
    if s := entry.stats:
        low, high = s.interval_ns
        # An entry serves a range of sizes, so the time need not be that of the sizes asked about.
        text = f"measured where it was tuned: {_us(s.median_ns)} µs (95 % between {_us(low)} and {_us(high)})"
        if s.default_ns:
            text += f", the default takes {_us(s.default_ns)}"
        if s.driver_local_ns:
            text += f", with the driver's work-group {_us(s.driver_local_ns)}"
        if s.percent_of_limit is not None:
            text += f"; {s.percent_of_limit:.0f} % of the limit" + (f" ({s.limited_by})" if s.limited_by else "")
        return text
    if p := entry.prediction:
        return f"predicted {_us(p.ns)} µs, limited by {p.limited_by} (model {p.model_version}); nobody measured it"
    return "not measured"


def _us(ns: float) -> str:
    return f"{ns / 1000:.4g}"
