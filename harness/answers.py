"""What a supervised runner gives back: plain records of its answers, and the two ways in which it gives none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.runner.protocol import Kind
from kernels.spec import Verdict

_VERDICTS = {
    Kind.BUILD_FAILED: Verdict.BUILD_FAILED,
    Kind.LAUNCH_FAILED: Verdict.LAUNCH_FAILED,
    Kind.OUT_OF_RESOURCES: Verdict.OUT_OF_RESOURCES,
    Kind.UNSUPPORTED: Verdict.UNSUPPORTED,
    Kind.INTERNAL: Verdict.WORKER_LOST,
    Kind.CRASHED: Verdict.CRASHED,
    Kind.TIMEOUT: Verdict.TIMEOUT,
}


@dataclass(frozen=True)
class Timeouts:
    """Deadlines of the operations, after which the runner is killed."""

    start_s: float = 60.0  # loading a driver and its compiler from a cold disk takes seconds
    build_s: float = 120.0  # phones' compilers: "seconds, occasionally minutes"
    run_s: float = 60.0
    other_s: float = 30.0
    bytes_per_s: float = 10e6  # the slowest link that a transfer is given time for


class Refused(Exception):
    """The runner did not do what was asked; `verdict` is what that means for the candidate.

    After a refusal that left the device in doubt the next call starts a fresh runner, as after RunnerLost.
    """

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message
        self.verdict = _VERDICTS[kind]


class RunnerLost(Exception):
    """The runner is gone: too slow (TIMEOUT), dead in a build or run (CRASHED), or lost otherwise (WORKER_LOST)."""

    def __init__(self, verdict: Verdict, op: str, log: str) -> None:
        super().__init__(log)
        self.verdict = verdict
        self.op = op  # "start" where it never answered its first hello
        self.log = log


@dataclass(frozen=True)
class Hello:
    """Who is at the other end."""

    runner: str
    device: Mapping[str, Any]  # as harness.runner.describe documents it
    sensors: tuple[str, ...]
    hints: Mapping[str, str] = field(
        default_factory=dict
    )  # what came of each that was asked for: priority, performance
    ops: tuple[str, ...] = ()  # the optional requests that it answers


@dataclass(frozen=True)
class KernelLimits:
    """What the compiler says of one built kernel."""

    work_group: int  # largest work-group it can run with
    local_bytes: int
    private_bytes: int
    multiple: int  # preferred work-group multiple


@dataclass(frozen=True)
class Build:
    """A program that was built, or had been before (then with the first build's figures)."""

    log: str
    build_ms: float
    kernels: Mapping[str, KernelLimits]
    cached: bool = False  # not compiled, but taken from the runner's folder of binaries


@dataclass(frozen=True)
class Rotation:
    """Sample i of a run uses copy (first + i) mod copies of each buffer, so that its content is not in the cache."""

    bufs: tuple[str, ...]
    copies: int  # the buffer itself counted
    first: int = 0  # carry on here in the next run, or its first samples meet what the last ones left in the cache


@dataclass(frozen=True)
class Run:
    """Times of a run. Nothing in them has been judged."""

    samples_ns: tuple[tuple[tuple[int, int, int, int], ...], ...]  # per sample, per launch: queued, submit, start, end
    wall_ns: tuple[int, ...]  # per sample; for a run without profiling one number for all samples
    aborted: bool  # the last sample was above abort_above_ns


@dataclass(frozen=True)
class Sensors:
    """Readings, None where there is none, and then why."""

    values: Mapping[str, float | None]
    why: Mapping[str, str]
