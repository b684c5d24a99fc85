"""Runs whole steps of a model through the kernels an engine would get, every launch's event stamps kept.

In order: the device's limits are probed; every distinct job is built, and checked against its reference; weights and
caches are loaded; then, repeat by repeat, each step is enqueued as one sequence on a profiling queue, beside fixed
kernels that say what the device was able to do in those minutes, and once more on a queue without profiling.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import kernels
from harness import clocks, telemetry, timing
from harness.anchors import Anchors
from harness.answers import Refused, Run, RunnerLost
from harness.bench import of_entry
from harness.candidate import Candidate
from harness.check import check
from harness.clocks import Relation
from harness.devices import DeviceChoice
from harness.errors import KilnError
from harness.measure import CACHES, Meter, cache_bytes
from harness.probe import Limit, Rates, limit, probe
from harness.resident import LAYERS_BYTES, Layers, Residence
from harness.step import Call, Step
from harness.supervisor import Supervisor
from harness.telemetry import Recorder, Recording
from kernels.identity import identify
from kernels.select import Level, Selection, select
from kernels.space import Space
from kernels.spec import Measurement, Verdict, Workload
from kernels.tuned import TunedConfig

REPEATS = 5
# Steps of one repeat: sensors that refresh ten times a second see little of one token.
_REPEAT_NS, _MOST_STEPS = 1e9, 16
_PLAIN_NS = 20e9  # of steps on the queue without profiling, all repeats together; one in any case
_RUN_TIMEOUT_S = 600.0
Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Chosen:
    """The kernel of one job: what an engine would get, proven right."""

    workload: Workload
    candidate: Candidate
    level: Level
    entry: str  # its id in the tuned config, or "built-in"


@dataclass(frozen=True)
class Compile:
    """A program that was built."""

    what: str
    family: str
    start_ns: int  # when it was asked for, CLOCK_MONOTONIC of the host
    build_ms: float  # as the runner measured it
    cached: bool  # taken from a folder of binaries


@dataclass(frozen=True)
class Span:
    """A part of the query, CLOCK_MONOTONIC of the host."""

    name: str
    repeat: int
    start_ns: int
    end_ns: int


@dataclass(frozen=True)
class Launched:
    """One launch of a step."""

    call: Call
    family: str
    variant: str
    entry: str
    first: bool  # of its call's launches


@dataclass(frozen=True)
class Sample:
    """One step that ran: per launch its stamps (queued, submit, start, end) on the device's clock."""

    repeat: int
    stamps_ns: tuple[tuple[int, int, int, int], ...]
    clock: Relation  # from those stamps to CLOCK_MONOTONIC of the host
    enqueued_ns: tuple[tuple[int, int], ...] = ()  # host's clock: before and after each enqueue; () where not told


@dataclass(frozen=True)
class StepProfile:
    """A step and what its launches took."""

    step: Step
    launched: tuple[Launched, ...]
    limits: Mapping[str, Limit]  # by workload key: the least that one call can take
    samples: tuple[Sample, ...]
    wall_ns: tuple[int, ...]  # of steps on the queue without profiling, enqueue to finish


@dataclass(frozen=True)
class Profile:
    """Everything that was seen."""

    device: str
    description: Mapping[str, Any]
    runner: str
    model: str
    steps: tuple[StepProfile, ...]
    chosen: tuple[Chosen, ...]
    layers: Mapping[str, Layers]  # by part of the model
    resident_bytes: int
    compiles: tuple[Compile, ...]
    spans: tuple[Span, ...]
    rates: Rates
    clock: Mapping[str, Any]  # method and uncertainty of the stamps' place on the host's clock
    notes: tuple[str, ...]
    start_ns: int
    recording: Recording | None  # telemetry
    recording_why: str | None  # there is none


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
    with Supervisor(choice.command) as supervisor:
        recorder, why = _record(choice, supervisor) if record else (None, "it was not asked for: --telemetry")
        try:
            session = _Session(
                choice, supervisor, _Journal(recorder, notes=list(notes)), steps, documents, repeats, tell
            )
            found = session.run()
        except (Refused, RunnerLost) as failure:
            raise KilnError(f"{model} on {choice.slug}: {failure}") from failure
        finally:
            recording = recorder.stop() if recorder else None
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
        timed = [_Timed(supervisor, step, *self._sequence(step)) for step in self._steps]
        for one in timed:
            begun_ns = time.monotonic_ns()
            one.plain()
            one.wall_ns.clear()  # it compiled what a driver leaves for the first launch, and touched fresh memory
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
        runner_clock, told = _machines(timed)
        self._note_layers()
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

    def _note_layers(self) -> None:
        sheet = self._choice.sheet
        for part, layers in self._residence.layers.items():
            held = layers.resident * layers.bytes_each
            if layers.resident < layers.of and held <= CACHES * cache_bytes(sheet):
                self._journal.notes.append(
                    f"the {layers.resident} layers of the {part} that fit may stay in the caches: weights are not cold"
                )

    def _judged(self, one: _Timed, rates: Rates, runner_clock: Relation) -> StepProfile:
        limits = {}
        for launched in one.launched:
            workload = launched.call.workload
            if workload.key not in limits:
                cost = kernels.families()[workload.family].cost(workload)
                limits[workload.key] = limit(cost, rates, workload.dtypes.compute, self._choice.sheet.cache_bytes)
        samples = tuple(sample for took in one.taken for sample in took.samples(runner_clock))
        return StepProfile(one.step, one.launched, limits, samples, tuple(one.wall_ns))


# ---------------------------------------------------------------- one step, again and again


@dataclass(frozen=True)
class _Taken:
    """An answer of the runner, and when it was asked and had answered."""

    repeat: int
    run: Run
    asked_ns: int
    answered_ns: int

    def samples(self, runner: Relation) -> Iterator[Sample]:
        """Each step with its place on the host's clock, given the runner's clock against the host's."""
        run = self.run
        for number, stamps in enumerate(run.samples_ns):
            queued, end = [stamp[0] for stamp in stamps], stamps[-1][3]
            if not run.host_ns:
                last = run.samples_ns[-1][-1][3]
                clock = clocks.of_request(run.samples_ns[0][0][0], last, self.asked_ns, self.answered_ns)
                yield Sample(self.repeat, stamps, clock)
                continue
            found = clocks.of_enqueues(queued, run.host_ns[number], end, run.finished_ns[number])
            clock = Relation(
                found.offset_ns + runner.offset_ns,
                found.uncertainty_ns + runner.uncertainty_ns,
                found.agrees and runner.agrees,
            )
            enqueued = tuple(
                (before - runner.offset_ns, after - runner.offset_ns) for before, after in run.host_ns[number]
            )
            yield Sample(self.repeat, stamps, clock, enqueued)


class _Timed:
    """A step that is bound and ready."""

    def __init__(
        self,
        supervisor: Supervisor,
        step: Step,
        launches: Sequence[Mapping[str, Any]],
        launched: tuple[Launched, ...],
    ) -> None:
        self.step = step
        self.launched = launched
        self.taken: list[_Taken] = []
        self.wall_ns: list[int] = []
        self._supervisor = supervisor
        self._launches = launches
        self._steps = 1  # that one repeat holds

    def plain(self) -> None:
        """One step on the queue without profiling."""
        run = self._supervisor.run(None, self._launches, profile=False, timeout_s=_RUN_TIMEOUT_S)
        self.wall_ns.append(run.wall_ns[0])
        self._steps = max(1, min(_MOST_STEPS, int(_REPEAT_NS / max(1, run.wall_ns[0]))))

    def sample(self, repeat: int) -> None:
        """The steps of one repeat. Raises KilnError for stamps that cannot be believed."""
        asked_ns = time.monotonic_ns()
        run = self._supervisor.run(
            None, self._launches, samples=self._steps, clock=True, timeout_s=_RUN_TIMEOUT_S * self._steps
        )
        self.taken.append(_Taken(repeat, run, asked_ns, time.monotonic_ns()))
        if why := timing.invalid(run.samples_ns):
            raise KilnError(f"the event stamps of the {self.step.name} step cannot be believed: {why}")


def _machines(timed: Sequence[_Timed]) -> tuple[Relation, dict[str, Any]]:
    """The runner's clock against the host's, and how stamps came to their places, for the reader."""
    taken = [one for step in timed for one in step.taken]
    told: dict[str, Any] = {"clock": "CLOCK_MONOTONIC of the host"}
    if not all(one.run.host_ns for one in taken):
        return Relation(0, 0, True), told | {"method": clocks.REQUEST}
    spans = [((one.run.host_ns[0][0][0], one.run.finished_ns[-1]), (one.asked_ns, one.answered_ns)) for one in taken]
    found = clocks.machines(spans)
    return found, told | {"method": clocks.ENQUEUES, "runner_uncertainty_ns": found.uncertainty_ns}
