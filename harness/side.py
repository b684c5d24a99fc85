"""One side of a comparison, as a process: this harness with some commit's kernels, measuring a round when told to.

Started by harness.peer with the commit's `kernels` first on its path; speaks the frames of harness.runner.protocol.

    open {command, description, anchors}  → {}         the device, its runner's command, the anchors (null: choose)
    plan {models, formats, …}             → {items: [{workload, label, family, share, candidate, config}, …]}
    check {workload}                      → {} or {failed: log}
    prepare {workload}                    → {wall_ns} or {failed: log}      in a fresh runner
    turn {warmup, samples}                → {kernel_ns, anchors_ns} or {failed: log}
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

import kernels
from harness import timing
from harness.answers import Refused, RunnerLost
from harness.candidate import Candidate
from harness.check import check
from harness.devices import sheet_from
from harness.errors import KilnError
from harness.measure import Lane, Meter
from harness.probe import anchors
from harness.probe_kernels import ProbeBed, ProbeKernel
from harness.runner.server import Answer, Blobs, Handler, serve
from harness.supervisor import Supervisor
from kernels.plan import Planned, plan
from kernels.space import Space
from kernels.spec import DeviceSheet, Measurement

ANCHOR_SAMPLES = 3


def main() -> None:
    """Serve until the other end closes the pipe."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no frame
    worker = Worker()
    try:
        serve(source, sink, worker.handlers())
    finally:
        worker.close()


class Worker:
    """The state of one side: its plan, its device, the candidate that is ready."""

    def __init__(self) -> None:
        self._candidates: dict[str, Candidate] = {}  # by workload key
        self._anchors: dict[str, ProbeKernel] = {}
        self._lane: Lane | None = None

    def handlers(self) -> Mapping[str, Handler]:
        """The operations by name."""
        return {
            "open": _op(self._open),
            "plan": _op(self._plan),
            "check": _op(self._check),
            "prepare": _op(self._prepare),
            "turn": _op(self._turn),
        }

    def close(self) -> None:
        """End the runner, if there is one."""
        if self._anchors or self._candidates:
            self._supervisor.close()

    def _open(self, frame: Mapping[str, Any]) -> dict[str, Any]:
        self._sheet: DeviceSheet = sheet_from(frame["description"])
        self._supervisor = Supervisor(frame["command"], recycle_after=None)
        self._meter = Meter(self._supervisor, self._sheet)
        self._bed = ProbeBed(self._supervisor)
        told = frame.get("anchors")
        self._anchors = (
            anchors(self._supervisor, self._sheet)
            if told is None
            else {name: ProbeKernel(**fields) for name, fields in told.items()}
        )
        return {"anchors": {name: asdict(kernel) for name, kernel in self._anchors.items()}}

    def _plan(self, frame: Mapping[str, Any]) -> dict[str, Any]:
        wanted = plan(
            frame["models"],
            formats=frame["formats"],
            act=frame["act"],
            compute=frame["compute"],
            cache=frame["cache"],
            families=frame["families"],
        )
        return {"items": [self._item(one) for one in wanted]}

    def _item(self, planned: Planned) -> dict[str, Any]:
        workload = planned.workload
        family = kernels.families()[workload.family]
        item = {"workload": workload.key, "label": workload.label, "family": family.name, "share": planned.share}
        config = family.default(workload, self._sheet)
        if why := Space(family, workload, self._sheet).reject(config):
            return {**item, "candidate": None, "why": str(why)}
        candidate = Candidate(family, workload, config)
        self._candidates[workload.key] = candidate
        return {**item, "candidate": candidate.key, "config": str(candidate)}

    def _check(self, frame: Mapping[str, Any]) -> dict[str, Any]:
        candidate = self._candidates[frame["workload"]]
        built = self._meter.build(candidate)
        found = built if isinstance(built, Measurement) else check(self._meter.bench, candidate)
        return _failed(found) if isinstance(found, Measurement) else {}

    def _prepare(self, frame: Mapping[str, Any]) -> dict[str, Any]:
        """A fresh process with a fresh layout of its memory; the check's buffers are not in it."""
        candidate = self._candidates[frame["workload"]]
        self._supervisor.restart()
        self._meter.bench.store.turn()
        built = self._meter.build(candidate)
        if isinstance(built, Measurement):
            return _failed(built)
        self._lane = self._meter.place(candidate)
        for name in self._anchors:  # their memory is there before the first round
            self._anchor(name)
        self._meter.run(self._lane, warmup=0, samples=1)
        return {"wall_ns": min(self._meter.run(self._lane, warmup=0, samples=2).wall_ns)}

    def _turn(self, frame: Mapping[str, Any]) -> dict[str, Any]:
        """One anchor, the candidate, the other anchor."""
        assert self._lane is not None, "prepare comes first"
        names = list(self._anchors)
        anchors_ns = {name: self._anchor(name) for name in names[:1]}
        run = self._meter.run(self._lane, warmup=frame["warmup"], samples=frame["samples"])
        if why := timing.invalid(run.samples_ns):
            return {"failed": why}
        anchors_ns |= {name: self._anchor(name) for name in names[1:]}
        return {"kernel_ns": float(np.median(timing.durations(run.samples_ns))), "anchors_ns": anchors_ns}

    def _anchor(self, name: str) -> float:
        run = self._bed.run(self._anchors[name], samples=ANCHOR_SAMPLES)
        if why := timing.invalid(run.samples_ns):
            raise KilnError(f"the anchor {name} cannot be timed: {why}")
        return float(np.median(timing.durations(run.samples_ns)))


def _failed(measurement: Measurement) -> dict[str, Any]:
    return {"failed": f"{measurement.verdict} {measurement.log}".strip()[:400]}


def _op(handle: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Handler:
    """A handler without blobs; what the runner refuses or dies of is an answer."""

    def answer(frame: Mapping[str, Any], _: Blobs) -> Answer:
        try:
            return handle(frame), []
        except (Refused, RunnerLost, KilnError) as failure:
            verdict = getattr(failure, "verdict", "")
            return {"failed": f"{verdict} {failure}".strip()[:400]}, []

    return answer
