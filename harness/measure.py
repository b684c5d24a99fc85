"""The seam between deciding and running: a candidate goes in, a measurement comes out, whatever the driver does.

Order: build, the compiled kernel's own limits, correctness, time. Weights are read cold: launches rotate through
copies that together exceed four times the last-level cache, since in a model each layer's weights come from DRAM. KV
caches that are only read rotate likewise.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any

from harness import pacing, timing
from harness.ahead import Ahead
from harness.answers import Build, Refused, Rotation, Run, RunnerLost
from harness.binding import Bench, Bound, bind
from harness.buffers import BufferStore
from harness.candidate import Candidate
from harness.case import CaseStore
from harness.check import check
from harness.errors import KilnError
from harness.memory import Watch
from harness.racing import Rival, sample
from harness.supervisor import Supervisor
from kernels.spec import DeviceSheet, Measurement, Verdict

CACHES = 4  # rotate through more than so many last-level caches
COPY_BYTES = 1 << 30  # copies of one candidate's weights never take more
MAX_COPIES = 1024  # binding an argument to more copies costs more than it tells about weights that small
# Taken for the last-level cache of a GPU where more is not reported (drivers tell L1 or nothing), and of any device
# that reports none at all.
UNTOLD_CACHE_BYTES = 64 << 20
KEPT_PROGRAMS = 24  # left resident for other sizes: some megabytes each on a CPU
# Subgroups of 64 take Intel's CPU runtime 20 s (Zen 3); phones' compilers take seconds, occasionally minutes.
_BUILD_TIMEOUT_S = {"cpu": 90.0, "gpu": 120.0, "other": 120.0}
_RUN_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class WallCheck:
    """Time of a launch sequence by events against its share of a batch on a queue without profiling."""

    event_ns: float
    wall_ns: float

    @property
    def gap(self) -> float:
        """By what fraction wall time exceeds event time: launch overhead, or events that do not tell the truth."""
        return self.wall_ns / self.event_ns - 1


@dataclass
class Lane:
    """A candidate that is bound on the present runner, and where its rotation stands."""

    bound: Bound
    copies: int
    cold_bytes: int
    next_copy: int = 0

    def rotation(self, taken: int) -> Rotation | None:
        """The rotation for the next `taken` samples, warm-up counted; carries on where the last run ended."""
        if self.copies == 1:
            return None
        first, self.next_copy = self.next_copy, (self.next_copy + taken) % self.copies
        return Rotation(self.bound.cold, self.copies, first)


class Meter:
    """Measures candidates on one device. Keeps inputs resident; survives its runner. For one thread."""

    def __init__(self, supervisor: Supervisor, sheet: DeviceSheet, ahead: Ahead | None = None) -> None:
        """`ahead` builds beside this one into the folder that both runners use."""
        store = BufferStore(supervisor)
        self.bench = Bench(supervisor, sheet, store, CaseStore())
        self.memory = Watch()
        self.ahead = ahead
        self._kept: OrderedDict[str, None] = OrderedDict()  # programs left resident, the oldest first

    # ------------------------------------------------------------ one candidate

    def measure(self, candidate: Candidate, *, budget_s: float, rival: Rival | None = None) -> Measurement:
        """Build, check and time one candidate. Every failure of it is a verdict.

        `budget_s` bounds the sampling, not the build and the check. A candidate much slower than the incumbent of
        `rival` is abandoned after its first samples; one near it is timed until they are told apart, beside the rival's
        reference: the condition `pace` says how many times slower the device was than when that was measured. Raises
        KilnError when the runner does not even start.
        """
        self.bench.supervisor.recycle_if_due()
        self.bench.store.turn()
        try:
            self._look_at_memory()
            return self._measure(candidate, budget_s, rival)
        except (Refused, RunnerLost) as failure:
            return self.failed(failure)
        finally:
            self.release(candidate)

    def _look_at_memory(self) -> None:
        supervisor = self.bench.supervisor
        rss_bytes = supervisor.sensors().values.get("rss_bytes")
        self.memory.look(supervisor.generation, rss_bytes, self.bench.store.held_bytes)

    def _measure(self, candidate: Candidate, budget_s: float, rival: Rival | None) -> Measurement:
        with self.ahead.beside(candidate) if self.ahead else contextlib.nullcontext():
            build = self.build(candidate)
            if isinstance(build, Measurement):
                return build
            facts = built_facts(build)
            errors = check(self.bench, candidate)
        if isinstance(errors, Measurement):
            return self.recovered(replace(errors, **facts))
        lane = self.place(candidate)
        try:
            with self.ahead.still() if self.ahead else contextlib.nullcontext():
                return self._timed(lane, budget_s, rival, {**facts, "errors": errors})
        finally:
            self.drop(lane)

    def _timed(self, lane: Lane, budget_s: float, rival: Rival | None, facts: Mapping[str, Any]) -> Measurement:
        before = self.conditions(lane)
        with pacing.beside(self, rival, lane) as reference:
            sampled = sample(
                lambda count, above_ns: self.run(lane, warmup=0, samples=count, abort_above_ns=above_ns),
                budget_s,
                reference,
            )
        times, why, pace = sampled.times_ns, sampled.why, sampled.pace
        after_mhz = self.conditions(lane)["clock_mhz"]
        own_bytes = self.memory.growths[-1].last_bytes if self.memory.growths else None
        seen = {"clock_after_mhz": after_mhz, "drift": timing.drift(times), "pace": pace, "runner_own_bytes": own_bytes}
        facts = {**facts, "conditions": {**before, **seen}}
        if isinstance(why, Verdict):
            return Measurement.failed(why, "slower than the incumbent", at_least_ns=min(times), **facts)
        if why:
            return Measurement.failed(Verdict.INVALID_TIMING, why, **facts)
        if timing.throttled(times, before["clock_mhz"], after_mhz):
            log = f"the clock fell from {before['clock_mhz']:.0f} to {after_mhz:.0f} MHz while it was timed"
            return Measurement.failed(Verdict.THROTTLED, log, samples_ns=times, **facts)
        return Measurement(Verdict.OK, stats=timing.stats(times), samples_ns=times, **facts)

    def wall_check(self, candidate: Candidate, event_ns: float, samples: int = 50) -> WallCheck | Measurement:
        """Time a batch on a queue without profiling, which some drivers run differently, against `event_ns`.

        Returns the failure if there is one. A batch holds `samples` repetitions, fewer where they take a second.
        """
        self.bench.store.turn()
        count = max(3, min(samples, round(1e9 / event_ns)))
        try:
            build = self.build(candidate)
            if isinstance(build, Measurement):
                return build
            lane = self.place(candidate)
            run = self.run(lane, warmup=2, samples=count, profile=False)
            self.drop(lane)
            return WallCheck(event_ns, run.wall_ns[0] / count)
        except (Refused, RunnerLost) as failure:
            return self.failed(failure)
        finally:
            self.release(candidate)

    # ------------------------------------------------------------ parts that finals use too

    def build(self, candidate: Candidate, timeout_s: float | None = None) -> Build | Measurement:
        """Compile a candidate, or say why the device cannot run it. Raises Refused and RunnerLost."""
        sheet = self.bench.sheet
        build = self.bench.supervisor.build(
            candidate.program, candidate.source, candidate.options, timeout_s or _BUILD_TIMEOUT_S[sheet.kind]
        )
        if why := beyond_limits(candidate, build, sheet):
            return Measurement.failed(Verdict.OUT_OF_RESOURCES, why, **built_facts(build))
        return build

    def place(self, candidate: Candidate) -> Lane:
        """Put a built candidate's buffers on the device, with room for its rotation."""
        bench = self.bench
        blobs = bench.cases.packed(candidate.family, candidate.workload, candidate.layouts)
        cold_bytes = sum(blobs[name].size for name in candidate.family.abi.cold if name in blobs)
        copies = rotation_copies(cold_bytes, bench.sheet)
        return Lane(bind(bench, candidate, copies), copies, cold_bytes)

    def run(
        self, lane: Lane, *, warmup: int, samples: int, abort_above_ns: int | None = None, profile: bool = True
    ) -> Run:
        """Run a lane, its weights cold and its in-place buffers restored before each sample."""
        return self.bench.supervisor.run(
            lane.bound.program,
            lane.bound.launches,
            warmup=warmup,
            samples=samples,
            rotate=lane.rotation(warmup + samples),
            restore=lane.bound.restore,
            abort_above_ns=abort_above_ns,
            profile=profile,
            timeout_s=_RUN_TIMEOUT_S,
        )

    def drop(self, lane: Lane) -> None:
        """Drop the buffers that a lane alone uses."""
        with contextlib.suppress(Refused, RunnerLost):
            self.bench.supervisor.drop(bufs=lane.bound.buffers)

    def release(self, candidate: Candidate) -> None:
        """Let go of a candidate's program, and drop the oldest one beyond KEPT_PROGRAMS.

        The same build serves other sizes of its format, which are searched next; compiling is most of a trial on a
        CPU. A runner that dies of dropping is replaced at the next call.
        """
        self._kept[candidate.program] = None
        self._kept.move_to_end(candidate.program)
        if len(self._kept) > KEPT_PROGRAMS:
            oldest, _ = self._kept.popitem(last=False)
            with contextlib.suppress(Refused, RunnerLost):
                self.bench.supervisor.drop(programs=[oldest])

    def failed(self, failure: Refused | RunnerLost) -> Measurement:
        """The verdict of a failure. Raises KilnError for a runner that does not start."""
        if isinstance(failure, RunnerLost) and failure.op == "start":
            raise KilnError(f"the runner does not start any more: {failure.log}") from failure
        log = failure.message if isinstance(failure, Refused) else failure.log
        conditions = {"generation": self.bench.supervisor.generation}
        return self.recovered(Measurement.failed(failure.verdict, log, conditions=conditions))

    def recovered(self, failed: Measurement) -> Measurement:
        """The same measurement, with a fresh runner for the next candidate where this one ran out of resources:
        its device may be full, and drivers have been seen not to recover in one process (tvm#1387)."""
        if failed.verdict is Verdict.OUT_OF_RESOURCES:
            self.bench.supervisor.restart()
        return failed

    def conditions(self, lane: Lane) -> dict[str, Any]:
        """Under what a measurement is taken; what cannot be read is None, its reason under `why`."""
        sensors = self.bench.supervisor.sensors()
        clock, temperature = sensor(sensors.values, "clock_mhz"), sensor(sensors.values, "temperature_c")
        rotated = lane.copies * lane.cold_bytes
        return {
            "clock_mhz": clock,
            "temperature_c": temperature,
            "why": dict(sensors.why),
            "queue": "profiling",
            "rotation_copies": lane.copies,
            "rotation_bytes": rotated,
            "cold": rotated > CACHES * cache_bytes(self.bench.sheet),
            "generation": self.bench.supervisor.generation,
            **self.bench.supervisor.hello().hints,
        }


def sensor(values: Mapping[str, float | None], name: str) -> float | None:
    """A reading of the device itself: the GPU's where there is one, else the processor's."""
    for prefix in ("gpu_", "cpu_", ""):
        if values.get(prefix + name) is not None:
            return values[prefix + name]
    return None


def built_facts(build: Build) -> dict[str, Any]:
    """What a build says, as fields of a Measurement."""
    kernel = {entry: asdict(limits) for entry, limits in build.kernels.items()}
    return {"build_ms": build.build_ms, "build_cached": build.cached, "kernel": kernel}


def cache_bytes(sheet: DeviceSheet) -> int:
    """The last-level cache that coldness is judged by."""
    return (
        max(sheet.cache_bytes, UNTOLD_CACHE_BYTES) if sheet.kind == "gpu" else sheet.cache_bytes or UNTOLD_CACHE_BYTES
    )


def rotation_copies(cold_bytes: int, sheet: DeviceSheet) -> int:
    """How many copies of weights and caches, the first counted, exceed the caches within COPY_BYTES and MAX_COPIES."""
    if cold_bytes == 0:
        return 1
    wanted = CACHES * cache_bytes(sheet) // cold_bytes + 1
    room = min(COPY_BYTES, sheet.global_bytes // 4) // cold_bytes
    return max(1, min(wanted, room, MAX_COPIES))


def beyond_limits(candidate: Candidate, build: Build, sheet: DeviceSheet) -> str | None:
    """Why the compiled kernels cannot be launched as the schedule wants, or None: limits are known after the build."""
    for launch in candidate.schedule.launches:
        limits = build.kernels.get(launch.entry)
        if limits is None:
            raise ValueError(f"{candidate}: the source has no kernel {launch.entry}")
        if launch.local is not None and prod(launch.local) > limits.work_group:
            return f"{launch.entry} compiled for work-groups up to {limits.work_group}, {prod(launch.local)} are asked"
        if limits.local_bytes > sheet.local_bytes:
            return f"{launch.entry} needs {limits.local_bytes} bytes of local memory, there are {sheet.local_bytes}"
    return None
