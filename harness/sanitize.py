"""Every variant under Oclgrind, on small hard shapes: memory, data races and uninitialised values.

A variant runs as it is, or in the form that emulates the least of what the simulator lacks (`emulation`). It is clean
where no run of it has a finding or a wrong result, and all three checks have watched one at least.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import prod
from typing import Any, Literal

from harness import emulation, halves, oclgrind
from harness.candidate import Candidate
from harness.emulation import Form
from harness.legal import Pick, Picks, covering
from harness.scratch import Scratch
from harness.tables import table
from harness.watch import Watch
from kernels.space import Space
from kernels.spec import Config, DeviceSheet, Family, Variant, Workload, evaluate

JOBS = 2  # runners side by side; each interprets on one core
# What one run may cost; the simulator interprets some 10⁵ multiply-adds a second.
MOST_FLOPS = 1.2e5
MOST_ITEMS = 256
_KINDS: tuple[Literal["gpu", "cpu"], ...] = ("gpu", "cpu")  # what rules may be told that this device is

Status = Literal["clean", "finding", "unsupported"]


@dataclass(frozen=True)
class Outcome:
    """One candidate at one shape."""

    candidate: str
    workload: str  # key
    findings: tuple[str, ...]
    gave_up: str  # why the simulator could not run it with every check, "" = it could


@dataclass(frozen=True)
class Row:
    """One variant."""

    family: str
    variant: str
    status: Status
    form: str  # "native", or what was emulated
    runs: int
    watched: int  # of the runs: those that every check watched
    workloads: int
    outcomes: tuple[Outcome, ...]  # those with something to tell
    why: str = ""  # of an unsupported variant

    @property
    def findings(self) -> dict[str, Outcome]:
        """Each finding once, with the first run that made it."""
        found: dict[str, Outcome] = {}
        for outcome in self.outcomes:
            for text in outcome.findings:
                found.setdefault(text, outcome)
        return found


@dataclass(frozen=True)
class Report:
    """All variants."""

    rows: tuple[Row, ...]

    @property
    def findings(self) -> int:
        """How many different ones."""
        return sum(len(row.findings) for row in self.rows)

    @property
    def unproven(self) -> tuple[Row, ...]:
        """Variants that are clean in no form."""
        return tuple(row for row in self.rows if row.status == "unsupported")

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"rows": [asdict(row) for row in self.rows], "findings": self.findings}


def sanitize(
    families: Sequence[Family], jobs: int = JOBS, tell: Callable[[int, int], None] = lambda done, of: None
) -> Report:
    """Run every variant. `tell` hears how many of how many are done. Raises KilnError when no simulator starts."""
    variants = [(family, variant) for family in families for variant in family.variants]
    rows, stop = [], threading.Event()
    with ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(sanitize_variant, *pair, stop) for pair in variants]
        try:
            for number, future in enumerate(running):
                rows.append(future.result())
                tell(number + 1, len(running))
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return Report(tuple(rows))


def sanitize_variant(family: Family, variant: Variant, stop: threading.Event | None = None) -> Row:
    """One variant in simulators of its own. Once `stop` is set no further candidate is run."""
    with (
        Scratch() as scratch,
        Watch(scratch.path / "strict", uninitialized=True) as strict,
        Watch(scratch.path / "lenient", uninitialized=False) as lenient,
    ):
        sheet = strict.sheet
        form = least_form(family, variant, sheet)
        row = partial(Row, family.name, variant.name, form=str(form))
        readable = replace(variant, source=halves.rewrite(variant.source))
        shown = form.of(readable, sheet, oclgrind.PRELUDE)
        planned = plan(family, shown, form.claim(sheet))
        if not planned:
            return row(
                status="unsupported", runs=0, watched=0, workloads=0, outcomes=(), why=_why(family, variant, sheet)
            )
        only = replace(family, variants=(shown,))
        left = (pick for pick in planned if stop is None or not stop.is_set())
        outcomes = [_run(only, pick, form, strict, lenient) for pick in left]
    told = tuple(outcome for outcome in outcomes if outcome.findings or outcome.gave_up)
    watched = sum(not outcome.gave_up for outcome in outcomes)
    status: Status = "finding" if any(o.findings for o in outcomes) else "clean" if watched else "unsupported"
    return row(
        status=status,
        runs=len(outcomes),
        watched=watched,
        workloads=len({outcome.workload for outcome in outcomes}),
        outcomes=told,
        why=told[0].gave_up if status == "unsupported" else "",
    )


# ---------------------------------------------------------------- what runs


def least_form(family: Family, variant: Variant, sheet: DeviceSheet) -> Form:
    """The form that emulates least, of those in which the variant does all that it does on a phone."""
    only = replace(family, variants=(variant,))

    def served(form: Form) -> set[Workload]:
        picks = Picks(only, variant, _as_kinds(form.claim(sheet)))
        return {workload for workload in family.cover() if picks.any(workload)}

    wanted = served(emulation.EVERYTHING)
    return next(form for form in emulation.forms() if served(form) >= wanted)


def plan(family: Family, variant: Variant, claimed: DeviceSheet) -> list[Pick]:
    """Configurations at small shapes: every format, policy and option of the cover, each at its smallest shape and its
    largest within MOST_FLOPS, and every value of every parameter that is legal on one of them."""
    only = replace(family, variants=(variant,))
    sheets = _as_kinds(claimed)

    def serves(workload: Workload) -> bool:
        return any(next(Space(only, workload, sheet).configs(), None) for sheet in sheets)

    chosen = [shapes for workload in covering(family, serves) if (shapes := small_shapes(family, workload))]
    picks = Picks(only, variant, sheets, lambda workload, config: work_items(variant, config, workload) <= MOST_ITEMS)
    found: list[Pick] = []
    for number, shapes in enumerate(chosen):
        for shape in shapes[:1] + shapes[-1:]:
            pick = picks.any(shape) if number == 0 else picks.other(shape)
            found += [pick] if pick else []
    found += picks.missing([shapes[-1] for shapes in chosen])
    return list({(pick.workload, str(pick.config)): pick for pick in found}.values())


def small_shapes(family: Family, workload: Workload) -> list[Workload]:
    """The workload and the awkward shapes that its build serves, as far as they are affordable, the smallest first."""
    shapes = dict.fromkeys((workload, *family.awkward(workload)))
    flops = {shape: family.cost(shape).flops for shape in shapes}
    return sorted((shape for shape in shapes if flops[shape] <= MOST_FLOPS), key=lambda shape: flops[shape])


def work_items(variant: Variant, config: Config, workload: Workload) -> int:
    """Of all launches together."""
    launches = variant.schedule(config, workload).launches
    return sum(prod(evaluate(size, workload.dims) for size in launch.grid) for launch in launches)


def _as_kinds(sheet: DeviceSheet) -> tuple[DeviceSheet, ...]:
    return tuple(replace(sheet, kind=kind) for kind in _KINDS)


def _why(family: Family, variant: Variant, sheet: DeviceSheet) -> str:
    claimed = emulation.phone(sheet)
    reasons = {Space(family, workload, claimed).reject(variant.config()) for workload in family.cover()}
    return f"no configuration within {MOST_ITEMS} work-items and {MOST_FLOPS:g} operations is legal: " + "; ".join(
        sorted(reason for reason in reasons if reason)
    )


def _run(family: Family, pick: Pick, form: Form, strict: Watch, lenient: Watch) -> Outcome:
    """One candidate; where the check for uninitialised values makes the simulator give up, once more without it."""
    candidate = Candidate(family, pick.workload, pick.config)
    seen = strict.run(candidate, pick.sheet, texels=form.texels)
    findings = seen.findings
    if seen.gave_up:
        again = lenient.run(candidate, pick.sheet, texels=form.texels)
        findings = tuple(dict.fromkeys(findings + again.findings))
    return Outcome(str(candidate), pick.workload.key, findings, seen.gave_up)


# ---------------------------------------------------------------- for people


def text(report: Report) -> str:
    """The table, then each finding with the run that made it."""
    rows = [
        [
            row.family,
            row.variant,
            row.status if row.status != "finding" else f"{len(row.findings)} findings",
            row.form,
            str(row.workloads),
            str(row.runs),
            str(row.watched),
        ]
        for row in report.rows
    ]
    lines = [table(["family", "variant", "verdict", "form", "shapes", "runs", "all checks"], rows)]
    for row in report.rows:
        for finding, outcome in row.findings.items():
            lines.append(
                f"finding: {row.family}/{row.variant}: {finding}\n    {outcome.candidate}\n    {outcome.workload}"
            )
        if row.status == "unsupported":
            lines.append(f"unsupported: {row.family}/{row.variant}: {row.why}")
        elif row.watched < row.runs:
            why = next(outcome.gave_up for outcome in row.outcomes if outcome.gave_up).splitlines()[0]
            count = row.runs - row.watched
            lines.append(f"note: {row.family}/{row.variant}: {count} of {row.runs} runs without every check: {why}")
    lines.append(f"findings {report.findings}, variants clean in no form {len(report.unproven)}")
    return "\n".join(lines)
