"""Why to believe a study, or not: each reason a sentence with its figures, and the doubtful ones not left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from harness.tables import time_text
from kernels.spec import Verdict
from tuner.report.nouns import Check, Kernel, Measured, Study
from tuner.report.rooflines import number, roofs
from tuner.report.words import HOST_OR_DEVICE

WIDE = 0.05  # half an interval over its median: what is wider was measured on a restless machine
LONG_NS = 100e3  # below, a launch's own cost on the host decides how long a batch takes
ABOVE = 105.0  # percent of the limit; a kernel at the limit is measured a little above it every other time
GAP = 0.25  # of event time by which a batch may differ before somebody should ask why
PACE = 1.2  # between a probe before the search and the anchors of the finals
_NO_FAULT = {str(Verdict.OK), str(Verdict.ABANDONED)}


def checks(study: Study) -> list[Check]:
    """Every check that the files allow; what they do not tell is `unknown`, with the reason."""
    found = [_right([*study.measured, *study.predicted], study)]
    if study.measured:
        found += [*_limits(study), _intervals(study), *_pace(study), *_gaps(study), *_conditions(study)]
    found += _verdicts(study)
    stale = sum(kernel.stale for kernel in (*study.measured, *study.predicted))
    if stale:
        text = f"{stale} kernels have other sources in this Kiln than those that ran: tune again"
        found.append(Check("doubt", "sources", text))
    if study.document is not None and study.document.edited:
        text = "the document was edited after it was written: its checksum does not fit"
        found.append(Check("doubt", "document", text))
    return found


def _right(found: list[Kernel], study: Study) -> Check:
    about = "right results"
    proofs = [kernel.verification for kernel in found if kernel.verification]
    if not proofs:
        return Check("unknown", about, "the study has not reached its finals, so that no winner is verified")
    worst = max(proof.value / proof.limit for proof in proofs)
    shapes = sum(len(proof.shapes) for proof in proofs)
    where = ", ".join(sorted({proof.proven_on.device for proof in proofs}))
    text = (
        f"{len(proofs)} of {len(found)} winners within tolerance of float64 NumPy on {shapes} shapes, awkward ones "
        f"among them; the nearest to its limit uses {100 * worst:.0f} % of it; executed on {where}"
    )
    here = f"{study.device.vendor} {study.device.model}"
    if where != here:
        text += f", which is not the device itself ({here})"
    return Check("good" if len(proofs) == len(found) and worst <= 1 and where == here else "doubt", about, text)


def _limits(study: Study) -> Iterator[Check]:
    told = [kernel for kernel in study.measured if kernel.percent is not None]
    if not told:
        return
    beyond = [k for k in told if (k.percent_interval or (k.percent or 0.0,))[0] > 100]
    above = [k for k in told if (k.percent or 0.0) > ABOVE]
    top = max(told, key=lambda kernel: kernel.percent or 0.0)
    if above and not beyond:
        text = (
            f"{len(above)} of {len(told)} kernels are measured above their limit, though not surely, the most "
            f"{top.percent:.0f} % ({top.workload.family} {top.label}): the limit was not steady enough to tell"
        )
        yield Check("doubt", "limits", text)
    elif beyond:
        text = (
            f"{len(beyond)} of {len(told)} kernels are beyond what the device was seen to allow, the most "
            f"{top.percent:.0f} % ({top.workload.family} {top.label}): the probe is broken or was disturbed"
        )
        yield Check("doubt", "limits", text)
    else:
        text = f"no kernel is beyond the device's own limit, probed beside it; the nearest reaches {top.percent:.0f} %"
        yield Check("good", "limits", text)


def spread(kernel: Measured) -> float:
    """Half of a time's 95 % interval over its median."""
    return (kernel.interval_ns[1] - kernel.interval_ns[0]) / 2 / kernel.ns


def _intervals(study: Study) -> Check:
    spreads = sorted(spread(kernel) for kernel in study.measured)
    middle, widest = spreads[len(spreads) // 2], max(study.measured, key=spread)
    wide = sum(one > WIDE for one in spreads)
    rounds = [kernel.rounds for kernel in study.measured if kernel.rounds is not None]
    n = f"{min(rounds)} to {max(rounds)} rounds each" if rounds else "how many rounds, the document does not say"
    text = (
        f"95 % intervals of the times are ±{100 * middle:.1f} % in the middle and ±{100 * spreads[-1]:.0f} % at worst "
        f"({widest.workload.family} {widest.label}, {time_text(widest.ns)}); {wide} of {len(spreads)} are wider than "
        f"±{100 * WIDE:.0f} %; {n}"
    )
    return Check("doubt" if wide else "good", "intervals", text)


def _pace(study: Study) -> Iterator[Check]:
    """Whether the device was as fast in the finals as when it was probed."""
    probe = study.protocol.get("probe") or {}
    for roof in roofs(study):
        before = probe.get("read_gb_per_s" if roof.name == "memory" else f"{roof.name}_gflops")
        if not before or not roof.source.startswith("anchors"):
            continue
        unit = "GB/s" if roof.name == "memory" else "GFLOPS"
        moved = max(roof.rate / before, before / roof.rate, roof.most / roof.least)
        text = (
            f"{roof.name}: {number(before)} {unit} before the search, {number(roof.rate)} beside the finalists "
            f"[{number(roof.least)}, {number(roof.most)}]"
        )
        told = f"{text}: the machine's pace moved, so compare ratios rather than times" if moved > PACE else text
        yield Check("doubt" if moved > PACE else "good", "pace", told)


def _gaps(study: Study) -> Iterator[Check]:
    long = [k for k in study.measured if k.wall_gap is not None and k.ns >= LONG_NS]
    if not long:
        return
    worst = max(long, key=lambda kernel: abs(kernel.wall_gap or 0.0))
    far = sum(abs(kernel.wall_gap or 0.0) > GAP for kernel in long)
    text = (
        f"without profiling, {len(long) - far} of {len(long)} kernels of {time_text(LONG_NS)} and more took within "
        f"{100 * GAP:.0f} % of their event time; the farthest {100 * (worst.wall_gap or 0.0):+.0f} % "
        f"({worst.workload.family} {worst.label})"
    )
    yield Check("doubt" if far else "good", "wall clock", text)


def _conditions(study: Study) -> Iterator[Check]:
    told = study.protocol.get("conditions", {})
    why: dict[str, Any] = told.get("why") if isinstance(told.get("why"), dict) else {}
    for name, unit, reason in (("clock_mhz", "MHz", "clock"), ("temperature_c", "°C", "temperature")):
        value = told.get(name)
        if value is None:
            because = "; ".join(f"{text}" for key, text in why.items() if reason in key)
            text = f"unavailable: {because or 'the document does not say why'}"
            yield Check("unknown", reason, text)
        else:
            values = value if isinstance(value, list) else [value]
            if all(isinstance(one, int | float) for one in values):
                moved = max(values) > 1.05 * min(values)
                text = f"{' to '.join(f'{one:g}' for one in values)} {unit} during the finals"
                if study.device.sheet.kind != "cpu":
                    yield Check("unknown", reason, f"{text}{HOST_OR_DEVICE}")
                else:
                    yield Check("doubt" if moved else "good", reason, text)


def _verdicts(study: Study) -> Iterator[Check]:
    counts = Counter({str(name): int(n) for name, n in study.provenance.get("verdicts", {}).items()})
    if not counts:
        counts = Counter(str(attempt.verdict) for search in study.searches for attempt in search.attempts)
    if not counts:
        return
    failed = {name: n for name, n in counts.items() if name not in _NO_FAULT}
    words = ", ".join(f"{n} {name}" for name, n in sorted(counts.items(), key=lambda item: -item[1]))
    wrong = counts.get(str(Verdict.WRONG_RESULT), 0)
    text = f"{sum(counts.values())} trials: {words}"
    text += "; what was wrong or failed never got a time" if failed else ""
    yield Check("doubt" if wrong else "good", "trials", text)
