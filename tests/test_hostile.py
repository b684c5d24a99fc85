"""A study on a driver that does everything wrong: each fault strikes one trial, has its verdict, and no more is lost.

One real study meets all of them, one after the other; then the same command runs again.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import conftest
import pytest
import test_run
from once import once
from small_probe import probe_once

import harness.check
import harness.journal
import harness.measure
import kernels
import tuner.opening
import tuner.run
import tuner.study
from harness.candidate import Candidate
from harness.devices import DeviceChoice, slug
from harness.journal import Journal, trial_key
from harness.records import read
from kernels import tuned
from kernels.plan import Plan
from kernels.space import Space
from kernels.spec import Measurement, Verdict
from tuner.export import latest_study
from tuner.request import Request
from tuner.run import journal_path, tune
from tuner.search import Stop

NATIVE = "slow"
CALM_FIRST = 2  # trials: the default and one more
CALM_LAST = 3
AGAIN = 4  # trials of the second run
DEADLINE_S = 1.0  # of what is made to hang, alone


@dataclass(frozen=True)
class Fault:
    """What goes wrong in one trial, and how the journal must have it."""

    fault: str
    on: str
    verdict: str
    said: str  # in the log
    lasting: bool = False
    quarantined: bool = True  # not tried again


FAULTS = {
    "segfault in build": Fault("segfault", "build", "crashed", "SIGSEGV"),
    "abort in build, with last words": Fault("abort", "build", "crashed", "LLVM ERROR: injected"),
    "segfault in launch": Fault("segfault", "run", "crashed", "SIGSEGV"),
    "endless build": Fault("hang", "build", "timeout", "during build"),
    "endless kernel": Fault("hang", "run", "timeout", "during run"),
    "wrong answer": Fault("wrong_result", "get", "wrong_result", "worst at"),
    "NaN": Fault("nan", "get", "wrong_result", "not finite"),
    "slow drift": Fault("drift", "run", "ok", "", lasting=True),
    "slow drift of the clock": Fault("throttle", "run", "throttled", "the clock fell", lasting=True),
    "clock going backwards": Fault("backwards", "run", "invalid_timing", "before it starts", lasting=True),
    "runner lost in a request": Fault("exit", "run", "crashed", "exit status 7"),
    "runner lost between requests": Fault("leave", "build", "worker_lost", "exit status 0", quarantined=False),
    "garbage on the wire": Fault("garbage", "run", "worker_lost", "not a frame", quarantined=False),
    "half a frame on the wire": Fault("truncate", "run", "crashed", "exit status 0"),
    "a device without memory": Fault("out_of_resources", "run", "out_of_resources", "injected"),
    "a poisoned context": Fault("poisoned", "run", "launch_failed", "injected"),
}


@dataclass
class Studied:
    """What a study left: the trial records of its first run and of the second, the fault that struck each config."""

    first: list[Mapping[str, Any]]
    second: list[Mapping[str, Any]]
    struck: dict[str, str]
    out: Path
    lost: str  # the config that the machine is said to have gone down with
    said: list[str]  # in the second run, whose runner leaks


def named(config: Mapping[str, Any]) -> str:
    return str(sorted(config.items()))


@pytest.fixture
def studied(device: DeviceChoice, tmp_path_factory: pytest.TempPathFactory) -> Studied:
    if device.slug != slug(conftest.attached().devices[-1].description):
        pytest.skip("one device is enough: what is tested is the host")
    name = f"hostile-{Path(device.command[0]).name}"
    return once(tmp_path_factory, name, lambda: study(device, tmp_path_factory.mktemp("hostile") / "a.json"))


def study(device: DeviceChoice, out: Path) -> Studied:
    policy = ("fp16", "fp32", "fp16")
    asked = Request(device.slug, ("small",), ("gemv_decode",), ("int4/g128",), *policy, 3.0, out, 0, "kiln", False)
    faults, struck, calm = iter(FAULTS.items()), {}, CALM_FIRST
    real = harness.measure.Meter.measure

    def hostile(self: harness.measure.Meter, candidate: Candidate, **named_args: Any) -> Measurement:
        nonlocal calm
        calm -= 1
        name, fault = next(faults, ("", None)) if calm < 0 else ("", None)
        if fault is None:
            return real(self, candidate, **named_args)
        struck[named(candidate.config)] = name
        supervisor = self.bench.supervisor
        supervisor.inject(fault.fault, fault.on, lasting=fault.lasting)
        with pytest.MonkeyPatch.context() as brief:
            if fault.fault == "hang" and fault.on == "build":
                brief.setattr(harness.measure, "_BUILD_TIMEOUT_S", {device.sheet.kind: DEADLINE_S})
            elif fault.fault == "hang":
                brief.setattr(harness.check, "_RUN_TIMEOUT_S", DEADLINE_S)
            # Without a rival: drift is to be seen, not given up on, and the fault is to strike the candidate.
            found = real(self, candidate, **{**named_args, "rival": None})
        supervisor.inject(None, "run")
        return found

    def leaking(self: harness.measure.Meter, candidate: Candidate, **named_args: Any) -> Measurement:
        if not self.memory.growths:
            self.bench.supervisor.inject("leak", "sensors", lasting=True)
        return real(self, candidate, **named_args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuner.run, "plan", lambda *_, **__: Plan(test_run.small_plan().items[:1], ()))
        patch.setattr(tuner.run, "resolve", lambda name: device)
        patch.setattr(tuner.opening, "probe", probe_once)
        patch.setattr(tuner.study, "Stop", lambda s: Stop(math.inf, trials=CALM_FIRST + len(FAULTS) + CALM_LAST))
        patch.setattr(harness.measure.Meter, "measure", hostile)
        tune(asked, lambda text: None)
        first = trials(out)
        lost = power_loss(out, device)
        patch.setattr(tuner.study, "Stop", lambda s: Stop(math.inf, trials=AGAIN))
        patch.setattr(harness.measure.Meter, "measure", leaking)
        said: list[str] = []
        tune(replace(asked, sampler="grid"), said.append)
    return Studied(first, trials(out)[len(first) :], struck, out, lost, said)


def trials(out: Path) -> list[Mapping[str, Any]]:
    return [record for record in read(journal_path(out)).records if record["kind"] == "trial"]


def power_loss(out: Path, device: DeviceChoice) -> str:
    """Write ahead what `grid` would try next, and let the machine go down with it. Returns that configuration."""
    job = test_run.small_plan().items[0].workload
    space = Space(kernels.families()[job.family], job, device.sheet)
    tried = {named(record["config"]) for record in trials(out)}
    config = next(config for config in space.configs() if named(config) not in tried)
    candidate = Candidate(space.family, job, config)
    with pytest.MonkeyPatch.context() as patch, Journal(journal_path(out)) as journal:
        patch.setattr(harness.journal, "boot_id", lambda: "an earlier boot")
        journal.begin(trial_key(candidate, device.description), candidate)
    return named(config)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_has_its_verdict_and_its_log(studied: Studied, name: str) -> None:
    fault = FAULTS[name]
    (record,) = (r for r in studied.first if studied.struck.get(named(r["config"])) == name)
    measurement = record["measurement"]
    assert measurement["verdict"] == fault.verdict, measurement
    assert fault.said in measurement.get("log", "")
    assert ("stats" in measurement) == (fault.verdict == "ok")


def test_only_what_was_struck_is_lost(studied: Studied) -> None:
    assert len(studied.first) == CALM_FIRST + len(FAULTS) + CALM_LAST
    assert list(studied.struck.values()) == list(FAULTS)
    for record in studied.first:
        if named(record["config"]) not in studied.struck:
            assert record["measurement"]["verdict"] in ("ok", "abandoned"), record


def test_drift_is_written_down_and_wins_nothing(studied: Studied) -> None:
    drifting = next(r for r in studied.first if studied.struck.get(named(r["config"])) == "slow drift")
    assert drifting["measurement"]["conditions"]["drift"] > 0.1
    calm = [r["measurement"] for r in studied.first if named(r["config"]) not in studied.struck]
    best_ns = min(found["stats"]["median_ns"] for found in calm if "stats" in found)
    assert drifting["measurement"]["stats"]["median_ns"] > best_ns
    throttled = next(r for r in studied.first if r["measurement"]["verdict"] == Verdict.THROTTLED)
    conditions = throttled["measurement"]["conditions"]
    assert conditions["clock_after_mhz"] < 0.8 * conditions["clock_mhz"]


def test_the_search_goes_on_to_a_document(studied: Studied) -> None:
    entries = tuned.load(studied.out).kernels["gemv_decode"].entries
    failed = {config for config, name in studied.struck.items() if FAULTS[name].verdict != "ok"}
    assert entries
    assert not failed & {named({"variant": entry.variant, **entry.params}) for entry in entries}
    _, finals = latest_study(read(journal_path(studied.out)).records)
    assert len(finals) == 1


def test_what_failed_is_not_tried_again_but_a_lost_worker_is(studied: Studied) -> None:
    again = {named(record["config"]) for record in studied.second}
    assert len(again) == len(studied.second) == AGAIN
    blameless = {config for config, name in studied.struck.items() if not FAULTS[name].quarantined}
    assert again & {named(record["config"]) for record in studied.first} <= blameless
    assert studied.lost not in again


def test_a_runner_that_grows_is_reported(studied: Studied) -> None:
    notes = [r for r in read(journal_path(studied.out)).records if r["kind"] == "note" and r["text"] == "memory"]
    calm, leaking = (note["runners"] for note in notes)
    assert len(calm) > 8  # one for each death
    assert sum(runner["candidates"] for runner in calm) == len(studied.first)
    assert leaking[-1]["last_bytes"] > leaking[-1]["first_bytes"] + (2 << 30)
    assert [line for line in studied.said if "grew from" in line and f"over {AGAIN} candidates" in line]
    for record in studied.second:
        if "stats" in record["measurement"]:
            assert record["measurement"]["conditions"]["runner_own_bytes"] > 0
