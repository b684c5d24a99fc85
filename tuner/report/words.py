"""How a report says things: times with intervals, ratios by name, a configuration by what sets it apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import kernels
from harness.tables import MISSING, bytes_text, time_text
from tuner.report.nouns import Check, Kernel, Measured, Pair, Phase, Study

_HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def clean(text: str) -> str:
    """Text from a file as it may be shown: control characters and what turns writing around become a mark."""
    return _HIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)


def span_text(ns: float, interval: Pair | None) -> str:
    """A time with its 95 % interval in the same unit, as `41.3 µs [36.8, 42.9]`."""
    text = time_text(ns)
    if interval is None:
        return text
    unit = text.split(" ")[1]
    scale = {"ns": 1.0, "µs": 1e3, "ms": 1e6, "s": 1e9}[unit]
    ends = [f"{end / scale:#.3g}".rstrip(".") if end / scale < 999.5 else f"{end / scale:.0f}" for end in interval]
    return f"{text} [{ends[0]}, {ends[1]}]"


def ratio_text(ratio: float | None, interval: Pair | None = None) -> str:
    """A ratio whose name stands in the table's head; two digits after the point, three above ten."""
    if ratio is None:
        return MISSING
    text = f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}"
    return text if interval is None else f"{text} [{interval[0]:.2f}, {interval[1]:.2f}]"


def sizes_text(kernel: Kernel) -> str:
    """Its dims, as M=1 N=2048."""
    return " ".join(f"{dim}={size}" for dim, size in kernel.workload.dims.items())


def options_text(kernel: Kernel) -> str:
    """Its options, by name alone where they are simply on."""
    return " ".join(n if v is True else f"{n}={v}" for n, v in kernel.workload.options.items())


def config_words(kernel: Kernel) -> str:
    """The variant, and the parameters in which it differs from that variant's own default."""
    family = kernels.families().get(kernel.workload.family)
    usual = next((v.default for v in family.variants if v.name == kernel.variant), {}) if family else {}
    words = [f"{name}={value}" for name, value in kernel.params.items() if usual.get(name) != value]
    return " ".join([kernel.variant, *words])


def outcome(found: Sequence[Measured]) -> str:
    """How much faster, in one sentence that claims no more than the intervals do."""
    count = len(found)
    if not count:
        return "nothing measured yet"
    kept = [kernel for kernel in found if kernel.is_default]
    sure = [kernel for kernel in found if kernel.standing == "faster"]
    unknown = [kernel for kernel in found if kernel.standing == "unknown"]
    parts = []
    if sure:
        parts.append(f"{len(sure)} of {count} kernels surely faster than their default, {_range(sure)}")
    if unknown:
        parts.append(
            f"{len(unknown)} of {count} kernels run another configuration than their default, {_range(unknown)}, "
            "without intervals (no journal)"
        )
    if undecided := [kernel for kernel in found if kernel.standing == "open"]:
        parts.append(f"{len(undecided)} not told apart from it")
    if slower := [kernel for kernel in found if kernel.standing == "slower"]:
        parts.append(f"{len(slower)} surely slower than it, for the sake of a shared layout or few programs")
    if kept:
        many = f"all {count}" if len(kept) == count else str(len(kept))
        parts.append(f"{many} keep the default: nothing was surely faster")
    return "; ".join(parts)


def _range(found: Sequence[Measured]) -> str:
    ratios = sorted(kernel.ratio for kernel in found if kernel.ratio is not None)
    if not ratios:
        return "default / tuned not known"
    if len(ratios) == 1:
        return f"default / tuned {ratio_text(ratios[0])}"
    middle = (ratios[(len(ratios) - 1) // 2] + ratios[len(ratios) // 2]) / 2
    return f"default / tuned {ratio_text(ratios[0])} to {ratio_text(ratios[-1])} (median {ratio_text(middle)})"


def phase_name(phase: Phase) -> str:
    """What one pass is, for people."""
    return "decode, one token" if phase.name == "decode" else f"{phase.name.replace(' ', ', ')} tokens"


def conditions(study: Study) -> list[tuple[str, str]]:
    """Names and values of what the study was measured under, in a reader's order; what was not told says so."""
    raw, device = study.device.raw, study.device
    told = study.protocol.get("conditions", {})
    why = told.get("why") if isinstance(told.get("why"), dict) else {}
    request = study.provenance.get("request", {})
    found = [
        ("device", f"{raw.get('name', '')} ({device.vendor} {device.model})"),
        ("platform", raw.get("platform_version") or raw.get("platform_name") or ""),
        ("driver", device.driver),
        ("compiler", device.compiler),
        ("compute units", str(device.sheet.compute_units)),
        ("measured", str(study.provenance.get("started") or "")),
        ("request", ", ".join(f"{name} {_value(value)}" for name, value in request.items() if value not in (None, []))),
        ("clock of the times", str(study.protocol.get("clock") or "")),
        ("statistic", str(study.protocol.get("statistic") or "")),
        ("generator", str(study.provenance.get("generator") or "")),
    ]
    for name, value in told.items():
        if name != "why" and value is not None:
            whose = HOST_OR_DEVICE if name in ("clock_mhz", "temperature_c") and device.sheet.kind != "cpu" else ""
            found.append((_plain_name(name), f"{_value(value, _UNITS.get(name, str))}{whose}"))
    found += [(_plain_name(name), f"unavailable: {reason}") for name, reason in why.items()]
    return [(name, value or "not told") for name, value in found]


# A measurement's clock and temperature are the GPU's where the runner can read them, else its host processor's.
HOST_OR_DEVICE = "; the GPU's or its host's: the document does not say"
_UNITS: dict[str, Callable[[Any], str]] = {
    "clock_mhz": lambda mhz: f"{mhz:.0f} MHz",
    "temperature_c": lambda c: f"{c:.0f} °C",
    "rotation_bytes": bytes_text,
}


def _plain_name(name: str) -> str:
    for unit in ("_mhz", "_c", "_j", "_bytes"):
        name = name.removesuffix(unit)
    return name.replace("_", " ")


def _value(value: object, said: Callable[[Any], str] = str) -> str:
    if isinstance(value, list):  # numbers that differed are [least, most]
        return (", " if value and isinstance(value[0], str) else " to ").join(map(said, value))
    return said(value)


def as_json(study: Study, found: Sequence[Check]) -> dict[str, object]:
    """For `--json`: every kernel's figures, times in ns, rates per ns (GB/s, GFLOPS); measured and predicted apart."""
    return {
        "files": list(study.files),
        "device": {"name": study.name, "driver": study.device.driver, "compiler": study.device.compiler},
        "models": list(study.models),
        "notes": list(study.notes),
        "checks": [{"about": check.about, "state": check.state, "text": check.text} for check in found],
        "passes": [
            {
                "model": phase.model,
                "pass": phase.name,
                "weights": phase.weights,
                "families": list(phase.only) or None,
                "missing": phase.missing,
                "default_ns": phase.default_ns,
                "tuned_ns": phase.tuned_ns,
            }
            for phase in study.phases
        ],
        "measured": [
            {
                **_kernel_json(kernel),
                "default_ns": kernel.default_ns,
                "tuned_ns": kernel.ns,
                "tuned_interval_ns": list(kernel.interval_ns),
                "rounds": kernel.rounds,
                "default_over_tuned": kernel.ratio,
                "default_over_tuned_interval": kernel.ratio_interval and list(kernel.ratio_interval),
                "standing": kernel.standing,
                "percent_of_limit": kernel.percent,
                "gflops": kernel.flops / kernel.ns,
                "gb_per_s": kernel.bytes / kernel.ns,
            }
            for kernel in study.measured
        ],
        "predicted": [
            {**_kernel_json(k), "predicted_ns": k.predicted_ns, "model_version": k.model_version}
            for k in study.predicted
        ],
    }


def _kernel_json(kernel: Kernel) -> dict[str, object]:
    return {
        "workload": kernel.workload.key,
        "label": kernel.label,
        "config": {"variant": kernel.variant, **kernel.params},
        "limited_by": kernel.limited_by,
    }
