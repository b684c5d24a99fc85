"""harness/journal.py: what is on disk survives torn lines, a second writer, a full disk and a power loss."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy_family import FAMILY, PLAIN, workload

import harness.journal
from harness.candidate import Candidate
from harness.errors import KilnError
from harness.journal import Journal, trial_key
from harness.records import from_json, read, to_json
from kernels.spec import Errors, Measurement, Stats, Tolerance, Verdict
from tuner.run import may_build_ahead

DEVICE = {"name": "toy", "driver_version": "1", "platform_name": "P", "max_clock_mhz": 3000}
GOOD = Measurement(
    Verdict.OK,
    stats=Stats(100.0, (99.0, 101.0), 3),
    samples_ns=(99.0, 100.0, 101.0),
    errors=Errors(1e-7, 1e-4, Tolerance(1e-6, 1e-3), ("N=1",)),
    conditions={"clock_mhz": None, "why": {"clock_mhz": "no sensor"}},
    build_ms=12.5,
    kernel={"add": {"work_group": 64}},
)
CRASH = Measurement.failed(Verdict.CRASHED, "signal 11")


def candidate(**params: int) -> Candidate:
    return Candidate(FAMILY, workload(), PLAIN.config(**params))


KEY = trial_key(candidate(), DEVICE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study.jsonl"


def test_a_measurement_survives_json() -> None:
    for measurement in (GOOD, replace(GOOD, build_cached=True), CRASH, Measurement(Verdict.ABANDONED, at_least_ns=5.0)):
        assert from_json(json.loads(json.dumps(to_json(measurement)))) == measurement


def test_the_key_follows_what_decides_the_time_and_nothing_else() -> None:
    assert trial_key(candidate(), {**DEVICE, "max_clock_mhz": 1}) == KEY
    others = [
        trial_key(candidate(WG=64), DEVICE),
        trial_key(Candidate(FAMILY, workload(7), PLAIN.config()), DEVICE),
        trial_key(Candidate(FAMILY, workload(), PLAIN.config(), driver_local=True), DEVICE),
        trial_key(candidate(), {**DEVICE, "driver_version": "2"}),
    ]
    assert len({KEY, *others}) == 5


def test_finished_trials_are_found_again(path: Path) -> None:
    with Journal(path) as journal:
        assert journal.lookup(KEY) is None
        journal.study(request={"seconds": 3}, device=DEVICE)
        journal.begin(KEY, candidate())
        journal.trial(KEY, candidate(), GOOD)
        assert journal.lookup(KEY) == GOOD
    with Journal(path) as journal:
        assert journal.lookup(KEY) == GOOD
        assert journal.lost == ()
        assert [record["kind"] for record in journal.records] == ["study", "begin", "trial"]


def test_a_candidate_that_the_machine_went_down_with_crashed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(path) as journal:
        journal.begin(KEY, candidate())
        assert journal.lookup(KEY) is None  # it is running
    monkeypatch.setattr(harness.journal, "boot_id", lambda: "the next boot")
    with Journal(path) as journal:
        found = journal.lookup(KEY)
        assert found is not None
        assert found.verdict is Verdict.CRASHED
        assert [record["key"] for record in journal.lost] == [KEY]
    with Journal(path, retry_crashed=True) as journal:
        assert journal.lookup(KEY) is None
        journal.begin(KEY, candidate())
        journal.trial(KEY, candidate(), GOOD)
        assert journal.lost == ()
    with Journal(path) as journal:
        assert journal.lookup(KEY) == GOOD


def test_nobody_is_blamed_where_others_were_built_beside_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(path) as journal:
        journal.begin(KEY, candidate(), ahead=True)
    with Journal(path) as journal:
        assert not journal.doubted  # only this program was killed
        assert may_build_ahead(journal, None, lambda text: None)
    monkeypatch.setattr(harness.journal, "boot_id", lambda: "the next boot")
    with Journal(path) as journal:
        assert journal.doubted
        assert journal.lookup(KEY) is None
        assert journal.lost == ()
        said: list[str] = []
        assert not may_build_ahead(journal, None, said.append)
        assert len(said) == 1
        journal.begin(KEY, candidate(), ahead=False)
        journal.trial(KEY, candidate(), GOOD)
    with Journal(path) as journal:  # whoever it was is still to be met alone
        assert not journal.doubted
        assert not may_build_ahead(journal, None, said.append)
        assert len(said) == 1


def test_where_boots_cannot_be_told_apart_the_worst_is_taken(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness.journal, "boot_id", lambda: None)
    with Journal(path) as journal:
        journal.begin(KEY, candidate())
    with Journal(path) as journal:
        assert journal.lookup(KEY) is not None


def test_a_killed_tuner_does_not_blame_the_candidate(path: Path) -> None:
    with Journal(path) as journal:
        journal.begin(KEY, candidate())
    with Journal(path) as journal:
        assert journal.lookup(KEY) is None
        assert journal.lost == ()


def test_an_interrupted_candidate_is_not_to_blame(path: Path) -> None:
    with Journal(path) as journal:
        journal.begin(KEY, candidate())
        journal.interrupted(KEY)
    with Journal(path) as journal:
        assert journal.lookup(KEY) is None
        assert journal.lost == ()


def test_crashes_stay_unless_asked_and_a_lost_worker_never_counts(path: Path) -> None:
    other = trial_key(candidate(WG=64), DEVICE)
    with Journal(path) as journal:
        journal.trial(KEY, candidate(), CRASH)
        journal.trial(other, candidate(WG=64), Measurement.failed(Verdict.WORKER_LOST, "cable"))
    with Journal(path) as journal:
        assert journal.lookup(KEY) == CRASH
        assert journal.lookup(other) is None
    with Journal(path, retry_crashed=True) as journal:
        assert journal.lookup(KEY) is None


@pytest.mark.parametrize("cut", [1, 2, 20, 60])
def test_a_torn_last_line_is_dropped_reported_and_written_past(path: Path, cut: int) -> None:
    other = trial_key(candidate(WG=64), DEVICE)
    with Journal(path) as journal:
        journal.trial(KEY, candidate(), GOOD)
        journal.trial(other, candidate(WG=64), GOOD)
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(path) as journal:
        assert journal.lookup(KEY) == GOOD
        whole = cut == 1  # only the newline is missing: the record itself is there
        assert journal.damaged == (() if whole else (2,))
        assert journal.lookup(other) == (GOOD if whole else None)
        journal.note("resumed")
    contents = read(path)
    assert contents.ends_clean
    assert contents.records[-1]["text"] == "resumed"
    assert len(contents.records) == (3 if whole else 2)


def test_garbage_lines_are_passed_over(path: Path) -> None:
    lines = [b"\xff\xfe", b"[1]", b'{"kind":"trial","key":"k","measurement":{"verdict":"ok"}}']
    lines += [b'{"kind":"trial","key":"k","measurement":[]}', b'{"kind":"study","version":"new"}', b'{"kind":"note"}']
    path.write_bytes(b"\n".join([*lines, b"", b""]))
    contents = read(path)
    assert contents.damaged == (1, 2, 3, 4, 5)
    assert [record["kind"] for record in contents.records] == ["note"]


def test_two_writers_are_refused_and_the_lock_ends_with_its_holder(path: Path) -> None:
    with Journal(path), pytest.raises(KilnError, match="another run is writing"):
        Journal(path)
    Journal(path).close()


def test_a_file_system_without_locks_is_a_sentence(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(fd: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("harness.journal.fcntl.flock", no_locks)
    with pytest.raises(KilnError, match="cannot be locked: No locks available"):
        Journal(path)


def test_a_newer_journal_is_refused(path: Path) -> None:
    path.write_text('{"kind":"study","version":99}\n')
    with pytest.raises(KilnError, match="newer version"):
        Journal(path)


def test_a_full_disk_is_a_sentence_and_leaves_no_torn_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) > 10:
            return real(fd, bytes(data)[:10])  # a short write first, as disks do
        raise OSError(errno.ENOSPC, "No space left on device")

    with Journal(path) as journal:
        journal.note("before")
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(KilnError, match="No space left on device; what is finished is kept"):
            journal.note("too much of it" * 3)
        monkeypatch.undo()
        journal.note("after")
    assert [record["text"] for record in read(path).records] == ["before", "after"]


def test_an_unwritable_place_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KilnError, match="cannot be opened"):
        Journal(tmp_path / "file" / "study.jsonl")


def test_numpy_scalars_are_written_as_numbers(path: Path) -> None:
    with Journal(path) as journal:
        journal.final(ns=np.float64(1.5), count=np.int64(2), dims=workload().dims)
    assert read(path).records[0] == {"kind": "final", "ns": 1.5, "count": 2, "dims": {"N": 1000}}


def test_every_record_is_synced_before_the_call_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append(fd)
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    with Journal(path) as journal:
        before = len(synced)
        journal.note("one")
        journal.note("two")
        assert len(synced) == before + 2
