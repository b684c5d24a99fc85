"""Runs whole steps of a model through the kernels an engine would get, every launch's event stamps kept.

In order: the device's limits are probed; every distinct job is built, and checked against its reference; weights and
caches are loaded; then, repeat by repeat, each step is enqueued as one sequence on a profiling queue, beside fixed
kernels that say what the device was able to do in those minutes, and once more on a queue without profiling.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import kernels
from harness import telemetry
from harness.anchors import Anchors
from harness.answers import Refused, RunnerLost
from harness.bench import of_entry
from harness.candidate import Candidate
from harness.check import check
from harness.clocks import Relation
from harness.devices import DeviceChoice
from harness.errors import KilnError
from harness.measure import CACHES, Meter, cache_bytes
from harness.probe import Rates, limit, probe
from harness.profile_nouns import Chosen, Compile, Launched, Profile, Span, StepProfile
from harness.resident import LAYERS_BYTES, Residence
from harness.step import Call, Step
from harness.stepping import TimedStep, machines
from harness.supervisor import Supervisor
from harness.telemetry import Recorder, Recording
from kernels.identity import identify
from kernels.select import Level, Selection, select
from kernels.space import Space
from kernels.spec import Measurement, Verdict, Workload
from kernels.tuned import TunedConfig

REPEATS = 5
_PLAIN_NS = 20e9  # of steps on the queue without profiling, all repeats together; one in any case
Tell = Callable[[int, int], None]


@dataclass
class _Journal:
    """What is noted along the way."""

    recorder: Recorder | None
    spans: list[Span] = field(default_factory=list)
    compiles: list[Compile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def phase(self, name: str, repeat: int = 0) -> Iterator[None]:
        """Marks a part of the query here and, where there is any, in the telemetry."""
        with self.recorder.phase(name, repeat) if self.recorder else contextlib.nullcontext():
            start_ns = time.monotonic_ns()
            yield
            self.spans.append(Span(name, repeat, start_ns, time.monotonic_ns()))


def profile(
    choice: DeviceChoice,
    model: str,
    steps: Sequence[Step],
    documents: Sequence[TunedConfig],
    *,
    notes: Sequence[str] = (),
    repeats: int = REPEATS,
    record: bool = False,
    tell: Tell = lambda done, of: None,
) -> Profile:
    """Profile the steps on a device, `notes` told with it.

    Raises KilnError where a job cannot run right, where memory is short, or where the runner is lost.
    """
    start_ns = time.monotonic_ns()
    with Supervisor(choice.command, link=choice.link) as supervisor:
        recorder: Recorder | None = None
        why: str | None = "it was not asked for: --telemetry"
        try:
            if record:
                recorder, why = _record(choice, supervisor)
            session = _Session(
                choice, supervisor, _Journal(recorder, notes=list(notes)), steps, documents, repeats, tell
            )
            found = session.run()
        except (Refused, RunnerLost) as failure:
            raise KilnError(f"{model} on {choice.slug}: {failure}") from failure
        finally:
            recording = _no_query(recorder.stop()) if recorder else None
        return Profile(
            device=choice.slug,
            description=dict(choice.description),
            runner=supervisor.hello().runner,
            model=model,
            start_ns=start_ns,
            recording=recording,
            recording_why=why,
            **found,
        )


def _no_query(recording: Recording) -> Recording:
    """A phase here is many steps in a row and no part of one query: it has no query's energy."""
    why = "a profile repeats each step, which is no query: mark an engine's phases (python -m harness telemetry --mark)"
    return recording if recording.energy is None else replace(recording, energy=None, energy_why=why)


def _record(choice: DeviceChoice, supervisor: Supervisor) -> tuple[Recorder | None, str | None]:
    try:
        supervisor.hello()
        return telemetry.start(choice, supervisor), None
    except KilnError as error:
        return None, str(error)


class _Session:
    """One profile being made, on one runner: what is resident dies with it."""

    def __init__(
        self,
        choice: DeviceChoice,
        supervisor: Supervisor,
        journal: _Journal,
        steps: Sequence[Step],
        documents: Sequence[TunedConfig],
        repeats: int,
        tell: Tell,
    ) -> None:
        self._choice = choice
        self._supervisor = supervisor
        self._journal = journal
        self._steps = steps
        self._documents = documents
        self._repeats = repeats
        self._meter = Meter(supervisor, choice.sheet)
        self._residence = Residence(min(LAYERS_BYTES, choice.sheet.global_bytes // 4))
        self._chosen: dict[Workload, Chosen] = {}
        self._registered: set[tuple[str, str, Workload]] = set()
        self._built: set[str] = set()
        distinct = len({call.workload for step in steps for call in step.calls})
        self._done, self._of, self._tell = 0, 1 + distinct + (repeats + 1) * len(steps), tell

    def run(self) -> dict[str, Any]:
        """All of it; fields of a Profile."""
        supervisor = self._supervisor
        probed = probe(supervisor, self._choice.sheet)
        self._advance()
        for step in self._steps:
            for call in step.calls:
                self._prepare(step, call)
        self._meter.bench.store.clear()
        with self._journal.phase("load"):
            resident_bytes = self._load()
            for kernel in (chosen.candidate for chosen in self._chosen.values()):
                # Free, unless a crash while jobs were checked took programs along.
                supervisor.build(kernel.program, kernel.source, kernel.options)
        generation = supervisor.generation
        compute = {call.workload.dtypes.compute for step in self._steps for call in step.calls}
        anchors = Anchors(supervisor, probed, "fp16" if compute == {"fp16"} else "fp32", copy=True)
        timed = [TimedStep(supervisor, step, *self._sequence(step)) for step in self._steps]
        for one in timed:
            begun_ns = time.monotonic_ns()
            one.warm_up()
            self._journal.spans.append(Span(f"warm-up: {one.step.name}", 0, begun_ns, time.monotonic_ns()))
            self._advance()
        for repeat in range(self._repeats):
            for one in timed:
                with self._journal.phase(one.step.phase, repeat):
                    one.sample(repeat)
                while (round_ns := anchors.time()) is None:
                    pass  # held again without the one that failed
                if supervisor.generation != generation:
                    raise KilnError("a fixed kernel took the runner along, and with it what is resident: run it again")
                anchors.keep(round_ns)
                if not repeat or sum(one.wall_ns) + one.wall_ns[-1] < _PLAIN_NS / len(timed):
                    one.plain()
                self._advance()
        rates = anchors.rates()
        anchors.drop()
        runner_clock, told = machines(timed)
        self._journal.notes += self._residence.remarks(CACHES * cache_bytes(self._choice.sheet))
        return {
            "steps": tuple(self._judged(one, rates, runner_clock) for one in timed),
            "chosen": tuple(self._chosen.values()),
            "layers": self._residence.layers,
            "resident_bytes": resident_bytes,
            "compiles": tuple(self._journal.compiles),
            "spans": tuple(self._journal.spans),
            "rates": rates,
            "clock": told,
            "notes": tuple(dict.fromkeys(self._journal.notes)),
        }

    def _load(self) -> int:
        """Weights and caches onto the device; returns their bytes. Raises KilnError where they do not fit."""
        try:
            return self._residence.load(self._supervisor)
        except Refused as failure:
            if failure.verdict is not Verdict.OUT_OF_RESOURCES:
                raise
            each = ", ".join(
                f"{layers.resident} layers of the {part}, {layers.bytes_each >> 20} MiB each"
                for part, layers in self._residence.layers.items()
            )
            raise KilnError(
                f"{self._choice.slug} has no memory for {each}, beside what is not a layer's: try a smaller --context, "
                f"a smaller model or --weights with fewer bits ({failure.message})"
            ) from failure

    def _advance(self) -> None:
        self._done += 1
        self._tell(self._done, self._of)

    # ------------------------------------------------------------ before

    def _prepare(self, step: Step, call: Call) -> None:
        """Choose, build and check a call's kernel, once for each job, and note its tensors."""
        key = step.name, call.name, call.workload
        if key in self._registered:
            return  # as in the layers before
        self._registered.add(key)
        bench = self._meter.bench
        family = kernels.families()[call.workload.family]
        if call.workload not in self._chosen:
            bench.store.turn()
            self._chosen[call.workload] = self._choose(call.workload)
            self._advance()
        candidate = self._chosen[call.workload].candidate
        case = bench.cases.case(family, call.workload)
        blobs = bench.cases.packed(family, call.workload, candidate.layouts)
        self._residence.register(step, call, candidate, case, blobs)

    def _choose(self, workload: Workload) -> Chosen:
        """What an engine would get; the family's default where that does not work here. Raises KilnError."""
        family = kernels.families()[workload.family]
        sheet = self._choice.sheet
        facts = identify(self._choice.description, sheet)
        try:
            selection: Selection = select(self._documents, workload, facts, family)
        except ValueError as error:
            raise KilnError(str(error)) from error
        if selection.level is not Level.BUILT_IN:
            found = Chosen(workload, of_entry(workload, selection.entry), selection.level, selection.entry.id)
            failure = self._proven(found.candidate)
            if failure is None:
                return found
            self._journal.notes.append(
                f"{workload.label}: entry {selection.entry.id} is {failure.verdict} here, its family's default runs: "
                f"{failure.log[:200]}".rstrip()
            )
        default = Candidate(family, workload, family.default(workload, sheet))
        if why := Space(family, workload, sheet).reject(default.config):
            raise KilnError(f"{workload.label} cannot run on {self._choice.slug}: {why}")
        if failure := self._proven(default):
            raise KilnError(f"{workload.label} on {self._choice.slug}: {failure.verdict} {failure.log[:400]}".rstrip())
        return Chosen(workload, default, Level.BUILT_IN, "built-in")

    def _proven(self, candidate: Candidate) -> Measurement | None:
        """Build and check; the failure if there is one."""
        start_ns = time.monotonic_ns()
        try:
            build = self._meter.build(candidate)
            if isinstance(build, Measurement):
                return build
            if candidate.program not in self._built:
                self._built.add(candidate.program)
                self._journal.compiles.append(
                    Compile(str(candidate), candidate.family.name, start_ns, build.build_ms, build.cached)
                )
            errors = check(self._meter.bench, candidate)
        except (Refused, RunnerLost) as failure:
            return self._meter.failed(failure)
        return errors if isinstance(errors, Measurement) else None

    def _sequence(self, step: Step) -> tuple[list[dict[str, Any]], tuple[Launched, ...]]:
        launches: list[dict[str, Any]] = []
        launched: list[Launched] = []
        for call in step.calls:
            candidate = self._chosen[call.workload].candidate
            found = self._residence.launches(step, call, candidate)
            launches += found
            names = candidate.family.name, candidate.variant.name
            launched += [Launched(call, *names, one["entry"], first=i == 0) for i, one in enumerate(found)]
        return launches, tuple(launched)

    # ------------------------------------------------------------ after

    def _judged(self, one: TimedStep, rates: Rates, runner_clock: Relation) -> StepProfile:
        limits = {}
        for launched in one.launched:
            workload = launched.call.workload
            if workload.key not in limits:
                cost = kernels.families()[workload.family].cost(workload)
                limits[workload.key] = limit(cost, rates, workload.dtypes.compute, self._choice.sheet.cache_bytes)
        samples = tuple(sample for took in one.taken for sample in took.samples(runner_clock))
        return StepProfile(one.step, one.launched, limits, samples, tuple(one.wall_ns))
