"""Tables for a pull request, in the form that reviewers of kernel changes ask for.

Before and after, device and compiler, GFLOPS or GB/s with the interval, how many checks passed, and who must not
regress. Only what was measured comes in: a prediction is no argument.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.tables import time_text
from tuner.report.nouns import Measured, Phase, Study
from tuner.report.rooflines import number
from tuner.report.trust import checks
from tuner.report.words import clean, config_words, options_text, outcome, phase_name, ratio_text, sizes_text, span_text

HEADS = (
    "kernel",
    "stored",
    "before",
    "after [95 %]",
    "n",
    "before / after [95 %]",
    "rate [95 %]",
    "% of limit",
    "with",
)


def markdown(studies: Sequence[Study]) -> str:
    """One part per measured study; a sentence for those that have nothing measured."""
    parts = [_study(study, studies) for study in studies if study.measured]
    left = [study for study in studies if not study.measured]
    if left:
        names = "; ".join(f"{_plain(study.name)} ({', '.join(map(_plain, study.files))})" for study in left)
        parts.append(f"Not measured, and so not in these tables: {names}.")
    return "\n\n".join(parts) + "\n"


def _study(study: Study, every: Sequence[Study]) -> str:
    device = study.device
    lines = [
        f"### {_plain(', '.join(study.models) or 'kernels')} on {_plain(study.name)}",
        "",
        f"Driver `{_code(device.driver or 'not told')}`, compiler `{_code(device.compiler or 'not told')}`, "
        f"{_plain(str(study.provenance.get('started') or 'date not told'))}. Before: the family's default; after: what "
        "is tuned; both interleaved in the same rounds, weights cold, device time.",
        "",
        f"**{_plain(outcome(study.measured))}.**",
        "",
    ]
    if whole := [phase for phase in study.phases if phase.tuned_ns and phase.default_ns]:
        lines += _table(
            ("pass (sum of its kernels)", "weights", "before", "after", "before / after"),
            [
                (
                    f"{phase.model} {phase_name(phase)}{_alone(phase)}",
                    phase.weights or "",
                    time_text(phase.default_ns),
                    span_text(phase.tuned_ns or 0.0, phase.tuned_interval_ns),
                    ratio_text((phase.default_ns or 0.0) / (phase.tuned_ns or 1.0)),
                )
                for phase in whole
            ],
        )
    changed = [kernel for kernel in study.measured if not kernel.is_default]
    lines += _table(HEADS, [_row(kernel) for kernel in changed]) if changed else []
    kept = [kernel for kernel in study.measured if kernel.is_default]
    if kept:
        lines += ["<details><summary>", "", f"{len(kept)} kernels keep the default", "", "</summary>", ""]
        lines += [*_table(HEADS, [_row(kernel) for kernel in kept]), "</details>", ""]
    lines += ["**Checks**", ""]
    lines += [f"- {check.state}: {_plain(check.about)}: {_plain(check.text)}" for check in checks(study)]
    lines += ["", "**Must not regress**", "", *_bystanders(study, every)]
    return "\n".join(lines).rstrip()


def _alone(phase: Phase) -> str:
    return f", {' and '.join(phase.only)} alone" if phase.only else ""


def _bystanders(study: Study, every: Sequence[Study]) -> list[str]:
    """Whom a change of this document could hurt: what was not surely faster here, and other devices."""
    open_ = [kernel for kernel in study.measured if kernel.standing in ("open", "unknown", "slower")]
    kept = sum(kernel.is_default for kernel in study.measured)
    lines = [f"- {kept} of {len(study.measured)} kernels keep the default here: no change for them"]
    if open_:
        names = ", ".join(f"{k.workload.family} {k.label} {k.stored} {sizes_text(k)}" for k in open_[:6])
        more = f" and {len(open_) - 6} more" if len(open_) > 6 else ""
        lines.append(f"- not surely faster by an interval, look at them again: {_plain(names)}{more}")
    others = [other for other in every if other is not study]
    words = "; ".join(_plain(f"{o.name} ({'measured' if o.measured else 'predicted only'})") for o in others)
    told = words or "none is in this report: add their documents"
    model = f"{study.device.vendor} {study.device.model}"
    lines.append(f"- an engine gives this document to {_plain(model)} first; other devices: {told}")
    return lines


def _row(kernel: Measured) -> tuple[str, ...]:
    amount, unit = (kernel.flops, "GFLOPS") if kernel.limited_by == "arithmetic" else (kernel.bytes, "GB/s")
    low, high = (amount / end for end in reversed(kernel.interval_ns))
    name = " ".join(f"{kernel.workload.family} {kernel.label} {sizes_text(kernel)} {options_text(kernel)}".split())
    return (
        name,
        kernel.stored,
        time_text(kernel.default_ns),
        span_text(kernel.ns, kernel.interval_ns),
        "not told" if kernel.rounds is None else str(kernel.rounds),
        "the default" if kernel.is_default else ratio_text(kernel.ratio, kernel.ratio_interval),
        f"{number(amount / kernel.ns)} {unit} [{number(low)}, {number(high)}]",
        "–" if kernel.percent is None else f"{kernel.percent:.0f} {kernel.limited_by}",
        config_words(kernel),
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *([_plain(cell) for cell in row] for row in rows)]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]


def _plain(text: str) -> str:
    """Text from a file that stays text in Markdown: no table cell, no link, no HTML."""
    return re.sub(r"([\\`*<>|#~])", r"\\\1", " ".join(clean(text).split())).replace("](", "]\\(")


def _code(text: str) -> str:
    return clean(text).replace("`", "'").replace("\n", " ").replace("|", "/")
