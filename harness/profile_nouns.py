"""What a profile is made of: kernels, builds, every launch's stamps, and their place in time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.candidate import Candidate
from harness.clocks import Relation
from harness.probe import Limit, Rates
from harness.resident import Layers
from harness.step import Call, Step
from harness.telemetry import Recording
from kernels.select import Level
from kernels.spec import Workload


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
