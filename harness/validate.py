"""Every variant of every family against the reference on one device: all formats, policies, options, awkward shapes.

What the device cannot run is named with the reason, never passed over.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from typing import Any

from harness.agenda import Plan, plan
from harness.answers import Refused, RunnerLost
from harness.candidate import Candidate
from harness.check import check
from harness.devices import DeviceChoice
from harness.legal import Pick
from harness.measure import Meter
from harness.supervisor import Supervisor
from harness.tables import MISSING, table
from kernels.spec import DeviceSheet, Errors, Family, Measurement, Variant, Verdict, Workload

_MOST_JOBS = 4  # compilers use one core each; a GPU is not shared
# Of a build and of a launch. Nothing is timed here, and compilers are slow beside other work (Zen 3): PoCL, which
# compiles at the first launch, took 62 s for gemv_decode's panel of 16 tokens by 2 blocks from local memory, Intel's
# more than 90 s for its subgroups. A search would not wait so long.
_DEADLINE_S = 600.0

Outcome = Errors | Measurement


@dataclass(frozen=True)
class Failure:
    """A candidate that did not give the right answer."""

    candidate: str
    workload: str  # key
    verdict: Verdict
    log: str


@dataclass(frozen=True)
class Row:
    """One variant."""

    family: str
    variant: str
    candidates: int
    workloads: int  # of the cover, that it was checked on
    of: int  # that it serves on a device with everything
    formats: tuple[str, ...]
    shapes: int
    worst: float | None  # the largest error over its limit
    failures: tuple[Failure, ...]
    unsupported: Mapping[str, int]  # why it was not run here → on how many workloads


@dataclass(frozen=True)
class Report:
    """All variants on one device."""

    device: str
    name: str
    features: Mapping[str, str]
    rows: tuple[Row, ...]

    @property
    def failures(self) -> int:
        """How many candidates failed."""
        return sum(len(row.failures) for row in self.rows)

    @property
    def candidates(self) -> int:
        """How many were run."""
        return sum(row.candidates for row in self.rows)

    @property
    def suspect(self) -> bool:
        """Whether nothing at all came out right: then the reference or the device is in doubt, not the kernels."""
        return 0 < self.candidates == self.failures

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self) | {"failures": self.failures, "candidates": self.candidates}


# ---------------------------------------------------------------- running it


def validate(
    choice: DeviceChoice,
    families: Sequence[Family],
    *,
    quick: bool = False,
    jobs: int | None = None,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> Report:
    """Check every variant on a device. `tell` hears how many candidates of how many are done.

    Several runners work side by side on a CPU, whose compiler uses one core. Raises KilnError when no runner starts.
    """
    planned = plan(families, choice.sheet, quick=quick)
    groups: dict[tuple[str, Workload], list[tuple[Family, Variant, Pick]]] = defaultdict(list)
    for family in families:
        for variant in family.variants:
            for pick in planned.picks[family.name, variant.name]:
                groups[family.name, pick.workload].append((family, variant, pick))
    total = sum(len(group) for group in groups.values())
    outcomes: dict[tuple[str, str], list[tuple[Candidate, Outcome]]] = defaultdict(list)
    waiting = list(groups.values())[::-1]
    lock, stop = threading.Lock(), threading.Event()
    done = 0

    def work() -> None:
        nonlocal done
        with Supervisor(choice.command, link=choice.link) as supervisor:
            meter = Meter(supervisor, choice.sheet)
            while True:
                with lock:
                    if not waiting:
                        return
                    group = waiting.pop()
                for family, variant, pick in group:
                    if stop.is_set():
                        return
                    candidate = Candidate(family, pick.workload, pick.config)
                    outcome = prove(meter, candidate, pick.sheet)
                    with lock:
                        outcomes[family.name, variant.name].append((candidate, outcome))
                        done += 1
                        tell(done, total)

    _side_by_side(work, jobs or _jobs(choice.sheet), stop)
    rows = [
        _row(family.name, variant.name, planned, outcomes[family.name, variant.name])
        for family in families
        for variant in family.variants
    ]
    return Report(choice.slug, str(choice.description["name"]), features(choice.sheet), tuple(rows))


def prove(meter: Meter, candidate: Candidate, sheet: DeviceSheet, *, texels: bool = False) -> Outcome:
    """Build a candidate and check it on its own shape and the awkward ones that are legal on `sheet`.

    With `texels`, buffers stand in for images (`harness.emulation`).
    """
    meter.bench.supervisor.recycle_if_due()
    meter.bench.store.turn()
    try:
        built = meter.build(candidate, _DEADLINE_S)
        if isinstance(built, Measurement):
            return built
        return check(replace(meter.bench, sheet=sheet, texels=texels), candidate, _DEADLINE_S)
    except (Refused, RunnerLost) as failure:
        return meter.failed(failure)
    finally:
        meter.release(candidate)


def _jobs(sheet: DeviceSheet) -> int:
    return min(_MOST_JOBS, os.cpu_count() or 1) if sheet.kind == "cpu" else 1


def _side_by_side(work: Callable[[], None], jobs: int, stop: threading.Event) -> None:
    """Run `work` in so many threads until it returns; an error or Ctrl-C in one of them stops the others soon."""
    with ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(work) for _ in range(jobs)]
        try:
            for future in as_completed(running):
                future.result()
        except BaseException:
            stop.set()
            raise


def _row(family: str, variant: str, planned: Plan, outcomes: Sequence[tuple[Candidate, Outcome]]) -> Row:
    failures, worst, shapes = [], None, set()
    unsupported = Counter(planned.unsupported[family, variant])
    checked: set[Workload] = set()
    for candidate, outcome in outcomes:
        if isinstance(outcome, Errors):
            checked.add(candidate.workload)
            worst = max(worst or 0.0, _of_limit(outcome))
            shapes |= {(candidate.workload, shape) for shape in outcome.shapes}
        elif outcome.verdict is Verdict.OUT_OF_RESOURCES:  # what a compiler makes of it is known after the build alone
            unsupported[outcome.log.splitlines()[0]] += 1
        else:
            failures.append(Failure(str(candidate), candidate.workload.key, outcome.verdict, outcome.log))
    return Row(
        family,
        variant,
        candidates=len(outcomes),
        workloads=len(checked),
        of=planned.served[family, variant],
        formats=tuple(sorted({_format(candidate.workload) for candidate, _ in outcomes})),
        shapes=len(shapes),
        worst=worst,
        failures=tuple(failures),
        unsupported=unsupported,
    )


def _format(workload: Workload) -> str:
    """What a workload stores its numbers as: weights, else the cache, else activations."""
    stored = workload.dtypes.cache
    return workload.weights or (f"cache {stored}" if stored else f"act {workload.dtypes.act}")


def _of_limit(errors: Errors) -> float:
    """How much of what is allowed an error takes; where nothing is allowed there is none."""
    pairs = (errors.nmse, errors.limits.nmse), (errors.max_scaled, errors.limits.max_scaled)
    return max((error / limit for error, limit in pairs if limit), default=0.0)


# ---------------------------------------------------------------- for people


def features(sheet: DeviceSheet) -> dict[str, str]:
    """How the device does what variants differ in, for the head of the report."""
    sizes = ", ".join(map(str, sheet.subgroup_sizes))
    pitch = f"pitch of {sheet.image_pitch_texels} texels" if sheet.image_pitch_texels else ""
    return {
        "half arithmetic": "native" if sheet.has("cl_khr_fp16") else "emulated in float (no cl_khr_fp16)",
        "subgroups": f"of {sizes}" if sizes else "none",
        "images over buffers": pitch or "none",
        "integer dot product": "native" if sheet.has("cl_khr_integer_dot_product") else "none",
    }


def _grouped(formats: Sequence[str]) -> str:
    """`int4/g32, int4/g64` as `int4/g32/g64`."""
    kinds: dict[str, str] = {}
    for form in formats:
        kind, _, group = form.partition("/")
        kinds[kind] = kinds.get(kind, "") + (f"/{group}" if group else "")
    return ", ".join(kind + groups for kind, groups in kinds.items())


def text(report: Report) -> str:
    """The device's features, the table, what was not run and why, the failures, their number."""
    lines = [f"{report.device}: {report.name}"]
    lines += [f"  {name}: {how}" for name, how in report.features.items()]
    rows = [
        [
            row.family,
            row.variant,
            f"{row.workloads}/{row.of}",
            _grouped(row.formats) or MISSING,
            str(row.candidates),
            str(row.shapes),
            MISSING if row.worst is None else f"{row.worst:.2f}",
            str(len(row.failures)) if row.candidates else MISSING,
        ]
        for row in report.rows
    ]
    heads = ["family", "variant", "workloads", "formats", "configs", "shapes", "error/limit", "failures"]
    lines.append(table(heads, rows))
    for row in report.rows:
        for why, count in row.unsupported.items():
            where = "" if not row.workloads else f" (on {count} of its {row.of} workloads)"
            lines.append(f"unsupported: {row.family}/{row.variant}: {why}{where}")
    for row in report.rows:
        for failure in row.failures:
            lines.append(f"failed: {failure.candidate}\n  {failure.workload}\n  {failure.verdict}: {failure.log}")
    if report.suspect:
        lines.append("every candidate failed: the reference or the device is suspect, not the kernels")
    lines.append(f"candidates {report.candidates}, failures {report.failures}")
    return "\n".join(lines)
