"""The tuner is killed at random moments, or its disk is full, and goes on: nothing is lost, nothing is done twice.

The runner gives the same answers always (see soak_tuner.py), so that the document can be compared with that of a run
that nobody disturbed.
"""

import contextlib
import json
import os
import random
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.records import read
from tuner.run import journal_path

TUNER = Path(__file__).parent / "soak_tuner.py"
TRIALS = 25  # of each of two workloads


@dataclass(frozen=True)
class Calm:
    """What an undisturbed run leaves."""

    document: dict[str, Any]
    trials: list[str]  # their keys, in order
    journal_bytes: int
    seconds: float


def start(out: Path, ahead: bool = False) -> subprocess.Popen[str]:
    options = [*(["ahead"] if ahead else []), "--trials", str(TRIALS), "--seconds", "1e6", "--out", str(out)]
    root = str(TUNER.parent.parent)
    return subprocess.Popen(
        [sys.executable, str(TUNER), *options],
        cwd=root,
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(out: Path, ahead: bool = False) -> None:
    with start(out, ahead) as process:
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said


def document(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out.read_text())
    del found["provenance"]["started"], found["content_sha256"]  # the second covers the first
    return found


def trials(out: Path) -> list[str]:
    return [record["key"] for record in read(journal_path(out)).records if record["kind"] == "trial"]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Calm:
    out = tmp_path_factory.mktemp("calm") / "a.json"
    begin = time.monotonic()
    finish(out)
    seconds = time.monotonic() - begin
    found = Calm(document(out), trials(out), journal_path(out).stat().st_size, seconds)
    assert len(found.trials) == len(set(found.trials)) == 2 * TRIALS
    verdicts = found.document["provenance"]["verdicts"]
    assert verdicts["build_failed"] >= 1  # the answers are not all alike
    assert verdicts["crashed"] >= 1
    return found


def soak(calm: Calm, folder: Path, kills: int, seed: int, ahead: bool = False) -> int:
    """Kill so often, beginning another study whenever one gets done. Returns how many trials the killed ones did."""
    rng, out, done, before = random.Random(seed), folder / "a.json", 0, []
    for _ in range(kills):
        with start(out, ahead) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                # Beyond a calm run's time: beside other work the same takes longer, and much of it is starting up.
                process.communicate(timeout=rng.uniform(0.0, 1.5 * calm.seconds))
            process.kill()
        after = trials(out)
        assert after[: len(before)] == before
        assert after == calm.trials[: len(after)]  # none twice, and none that a calm run does not ask for
        done, before = done + len(after) - len(before), after
        if process.returncode == 0:
            assert document(out) == calm.document
            folder = folder / "next"
            out, before = folder / "a.json", []
    finish(out, ahead)
    assert trials(out) == calm.trials
    assert document(out) == calm.document
    return done


def test_a_few_kills_lose_nothing(calm: Calm, tmp_path: Path) -> None:
    soak(calm, tmp_path, kills=4, seed=0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="builders are for Linux")
def test_what_is_built_ahead_changes_nothing(calm: Calm, tmp_path: Path) -> None:
    """With builders, some of which die of what they build, and kills: the trials of a run that had none, in order."""
    soak(calm, tmp_path, kills=2, seed=5, ahead=True)
    out = tmp_path / "whole" / "a.json"
    finish(out, ahead=True)
    assert trials(out) == calm.trials
    assert document(out) == calm.document
    (came_to,) = [note for note in read(journal_path(out)).records if note.get("text") == "ahead"]
    assert came_to["built"] > TRIALS / 2
    assert came_to["ready"] + came_to["waited"] > TRIALS / 2
    assert came_to["failed"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_a_hundred_kills_lose_nothing(calm: Calm, tmp_path: Path, seed: int) -> None:
    assert soak(calm, tmp_path, kills=25, seed=seed) > TRIALS  # so many moments in the midst of it


def test_a_full_disk_is_a_sentence_and_the_same_command_goes_on(calm: Calm, tmp_path: Path) -> None:
    """A limit on a file's size stands for the disk: what does not fit is written in part, then refused."""
    out, before = tmp_path / "a.json", 0
    for share in (0.03, 0.3, 0.31, 0.9):  # of the journal's bytes there is room for
        room = round(share * calm.journal_bytes)
        with start(out) as process:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (room, room))  # long before its journal is open
            _, said = process.communicate(timeout=120)
        assert process.returncode == 1, said
        *_, last = said.splitlines()
        assert last.startswith(f"kiln: the journal {journal_path(out)} cannot be written: File too large; ")
        assert "Traceback" not in said
        contents = read(journal_path(out))
        assert not contents.damaged
        assert contents.ends_clean
        done = trials(out)
        assert done == calm.trials[: len(done)]
        assert len(done) >= before
        before = len(done)
    assert before > 0
    assert not out.exists()
    finish(out)
    assert trials(out) == calm.trials
    assert document(out) == calm.document
