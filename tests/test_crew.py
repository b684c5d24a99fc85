"""Three tuner processes on one storage, one killed in the middle of a trial, and a stranger with another device.

The same body runs on a journal file (`make test`), on PostgreSQL and on Optuna's proxy before it (`make test-scale`).
"""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from postgres import Postgres
from test_export import DESCRIPTION

import kernels
from harness.devices import sheet_from
from harness.journal import Journal
from harness.records import read
from kernels import tuned
from kernels.space import Space
from kernels.spec import DTypes, Workload
from tuner.crew import Crew, study_facts
from tuner.run import journal_path

TESTS = Path(__file__).parent
STALLS_AT = 9  # norms built before the first worker is stuck with one
SECONDS = "90"  # all spaces are exhausted long before


def start(out: Path, storage: str, device: str, *stall: object, seconds: str = SECONDS) -> subprocess.Popen[str]:
    """A tuner of one workload family of one model on a GPU on paper."""
    runner = shlex.join([sys.executable, str(TESTS / "paper_gpu.py"), device, *map(str, stall)])
    command = [sys.executable, str(TESTS / "paper_worker.py"), "--device", f"exec:{runner}", "--storage", storage]
    command += ["--model", "clip-vit-b-32", "--kernels", "rmsnorm", "--seconds", seconds, "--out", str(out)]
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    with out.with_suffix(".log").open("w") as log:
        return subprocess.Popen(
            command, cwd=out.parent, env={**os.environ, "PYTHONPATH": paths}, stdout=log, stderr=log, text=True
        )


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


@contextlib.contextmanager
def ending(processes: list[subprocess.Popen[str]]) -> Iterator[None]:
    """None of them outlives a test that fails."""
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


Told = tuple[str, str]  # workload, configuration


def trials(out: Path) -> list[dict[str, Any]]:
    return [dict(record) for record in read(journal_path(out)).records if record["kind"] == "trial"]


def told(record: dict[str, Any]) -> Told:
    return record["workload"], json.dumps(record["config"], sort_keys=True)


def measured(out: Path) -> list[Told]:
    """What the worker with this journal measured itself."""
    return [told(record) for record in trials(out) if "worker" not in record]


def in_flight(out: Path) -> Told:
    last = read(journal_path(out)).records[-1]
    assert last["kind"] == "begin"
    return told(dict(last))


def exit_code(process: subprocess.Popen[str], out: Path) -> int:
    code = process.wait(timeout=120)
    assert code == 0, out.with_suffix(".log").read_text()
    return code


def crew_of_three_and_a_stranger(folder: Path, storage: str) -> None:
    outs = [folder / f"{name}.json" for name in ("killed", "second", "third")]
    mark, strange = folder / "stuck", folder / "stranger.json"
    processes = [
        start(outs[0], storage, "Paper tiger", "--stall", STALLS_AT, mark),
        start(outs[1], storage, "Paper tiger"),
        start(outs[2], storage, "Paper tiger"),
        start(strange, storage, "Glass tiger", seconds="3"),
    ]
    with ending(processes):
        wait_for(mark.exists)
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        for process, out in zip(processes[1:], (*outs[1:], strange), strict=True):
            exit_code(process, out)

        own = [measured(out) for out in outs]
        counts = Counter(one for each in own for one in each)
        assert all(own), "everybody took part"
        assert set(counts.values()) == {1}, "nothing is measured twice"
        stuck = in_flight(outs[0])
        assert stuck not in own[0]
        assert stuck in counts, "the killed worker's trial is taken over"
        everything = {(workload, config) for workload, configs in spaces(outs[1]).items() for config in configs}
        assert set(counts) == everything, "and nothing is left out"

        second, third = (
            {told(r): (r["measurement"]["verdict"], r["measurement"].get("stats")) for r in trials(out)}
            for out in outs[1:]
        )
        assert second == third
        assert set(second) == everything
        documents = [tuned.load(out) for out in outs[1:]]
        assert documents[0].provenance["verdicts"] == documents[1].provenance["verdicts"]
        assert documents[0].kernels == documents[1].kernels  # a device that never tires measures alike

        assert all("worker" not in record for record in trials(strange)), "strangers share nothing"
        assert set(measured(strange)) & set(counts), "though they measure the same configurations"

        # The killed worker comes back: it hears of everything and has nothing left to do.
        before = len(own[0])
        processes.append(start(outs[0], storage, "Paper tiger"))
        exit_code(processes[-1], outs[0])
        assert len(measured(outs[0])) == before
        assert {told(record) for record in trials(outs[0])} == everything
        assert tuned.load(outs[0]).kernels == documents[0].kernels


def spaces(out: Path) -> dict[str, set[str]]:
    """Every legal configuration of every workload in a journal."""
    records = read(journal_path(out)).records
    device = next(record["device"] for record in records if record["kind"] == "study")
    found = {}
    for record in records:
        if record["kind"] == "final":
            workload = Workload(**{**record["workload"], "dtypes": DTypes(**record["workload"]["dtypes"])})
            space = Space(kernels.families()[workload.family], workload, sheet_from(device))
            found[workload.key] = {json.dumps(config, sort_keys=True) for config in space.configs()}
    return found


def test_through_a_journal_file(tmp_path: Path) -> None:
    crew_of_three_and_a_stranger(tmp_path, f"journal:{tmp_path / 'shared.log'}")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.mark.scale
def test_through_postgresql(postgres: Postgres, tmp_path: Path) -> None:
    crew_of_three_and_a_stranger(tmp_path, postgres.database("crew"))


@pytest.mark.scale
def test_through_the_proxy(postgres: Postgres, tmp_path: Path) -> None:
    with postgres.proxy("proxied") as url:
        crew_of_three_and_a_stranger(tmp_path, url)


@pytest.mark.scale
def test_a_server_that_goes_away_is_a_sentence_and_loses_nothing(postgres: Postgres, tmp_path: Path) -> None:
    out = tmp_path / "a.json"
    with Postgres() as short_lived:
        process = start(out, short_lived.database("crew"), "Paper tiger")
        with ending([process]):
            wait_for(lambda: journal_path(out).exists() and len(measured(out)) > 5)
            short_lived.stop()
            assert process.wait(timeout=60) == 1
    said = out.with_suffix(".log").read_text()
    assert "Traceback" not in said
    assert "what is finished is in the journal" in said
    before = measured(out)
    process = start(out, postgres.database("later"), "Paper tiger")
    with ending([process]):
        exit_code(process, out)
    assert measured(out)[: len(before)] == before
    assert max(Counter(measured(out)).values()) == 1


def test_a_study_follows_what_decides_the_time() -> None:
    workload = Workload("rmsnorm", {"M": 1, "N": 64}, DTypes("fp16", "fp32", "fp32"), label="a label")
    space = Space(kernels.families()["rmsnorm"], workload, sheet_from(DESCRIPTION))
    facts = study_facts(space, DESCRIPTION)
    relabelled = Space(space.family, Workload("rmsnorm", workload.dims, workload.dtypes, label="other"), space.sheet)
    assert study_facts(relabelled, {**DESCRIPTION, "max_clock_mhz": 1}) == facts
    assert study_facts(space, {**DESCRIPTION, "driver_version": "another"}) != facts
    assert json.loads(json.dumps(facts)) == facts


def test_a_worker_remembers_who_wrote_its_journal(tmp_path: Path) -> None:
    seen = []
    for _ in range(2):
        with Journal(tmp_path / "a.jsonl") as journal, Crew(f"journal:{tmp_path / 's.log'}", journal) as crew:
            seen.append((crew.worker, crew._member.gone))
    (first, gone_before), (second, gone_after) = seen
    assert first != second
    assert not gone_before
    assert gone_after == {first}
