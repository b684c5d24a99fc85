"""A document after a driver update: kept, changed or suspicious, on a GPU on paper whose every time is known."""

import json
import math
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import kernels
import tuner.closing
import tuner.run
import tuner.study
from harness.devices import resolve
from harness.probe_kernels import ProbeKernel
from harness.records import read
from kernels import tuned
from kernels.identity import identify
from kernels.select import Level, select
from kernels.spec import Verdict
from tuner.cli import main
from tuner.run import journal_path
from tuner.search import Stop
from tuner.veterans import Veteran, veterans

GPU = Path(__file__).parent / "paper_gpu.py"
TRIALS = 14


def device(*words: object, name: str = "Paper tiger") -> str:
    return "exec:" + shlex.join([sys.executable, str(GPU), name, *map(str, words)])


def two_entries(patch: pytest.MonkeyPatch) -> None:
    """Tuning CLIP's norms, without those of the text encoder's 77 tokens, in few trials."""
    real = tuner.run.planned_of
    patch.setattr(tuner.run, "planned_of", lambda *asked: [i for i in real(*asked) if i.workload.dims["M"] != 77])
    patch.setattr(tuner.study, "Stop", lambda seconds: Stop(seconds, trials=TRIALS))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A document with two entries, tuned with the old driver, and its journal."""
    out = tmp_path_factory.mktemp("made") / "a.json"
    with pytest.MonkeyPatch.context() as patch:
        two_entries(patch)
        words = ["--model", "clip-vit-b-32", "--kernels", "rmsnorm", "--seconds", "60", "--out", str(out)]
        assert main(["--device", device(), *words]) == 0
    return out


@pytest.fixture
def file(made: Path, tmp_path: Path) -> Path:
    for path in (made, journal_path(made)):
        shutil.copy(path, tmp_path)
    return tmp_path / made.name


def old(file: Path, top: int = 2) -> list[Veteran]:
    document = tuned.load(file)
    return veterans(document, read(journal_path(file)).records, document.device.sheet, top)


def updated(file: Path, programs: Mapping[str, Any], capsys: pytest.CaptureFixture[str], *more: str) -> Any:
    """Exit code, table and document after an update that treats some programs in another way."""
    behaviour = file.with_name("programs.json")
    behaviour.write_text(json.dumps(programs))
    capsys.readouterr()
    words = ["--device", device("--driver", "2", "--programs", behaviour), "--json", *more]
    code = main(["retune", str(file), "--delta", *words])
    out, err = capsys.readouterr()
    made = file.with_suffix(".retuned.json")
    return code, json.loads(out) if out else err, tuned.load(made) if made.exists() else None


def test_what_is_as_it_was_is_kept_and_stands_for_the_new_driver(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tuned.load(file)
    code, rows, after = updated(file, {}, capsys)
    assert code == 0
    assert [row["state"] for row in rows] == ["keep", "keep"]
    assert all(row["was_ns"] == row["now_ns"] for row in rows)
    assert after.device.driver == "2"
    assert after.provenance["retuned"]["driver_before"] == "1"
    assert after.provenance["verdicts"] == before.provenance["verdicts"]
    assert [e.config for e in after.kernels["rmsnorm"].entries if e.bucket] == [
        e.config for e in before.kernels["rmsnorm"].entries if e.bucket
    ]
    choice = resolve(device("--driver", "2"))
    live = identify(choice.description, choice.sheet)
    workload = old(file)[0].workload
    assert select([before], workload, live, kernels.families()["rmsnorm"]).level is Level.STALE
    assert select([after], workload, live, kernels.families()["rmsnorm"]).level is Level.EXACT


def test_a_runner_up_that_wins_now_changes_the_entry(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = old(file)
    code, rows, after = updated(file, {first.rivals[1].program: 0.5}, capsys)
    assert code == 0
    assert [row["state"] for row in rows if row["entry"] == first.entry.id] == ["changed"]
    (entry,) = (e for e in after.kernels["rmsnorm"].entries if e.id == first.entry.id)
    assert entry.config == first.rivals[1].config
    assert after.provenance["retuned"]["states"][second.entry.id] == "keep"


@pytest.mark.parametrize(
    ("strange", "why"),
    [
        (3.0, " times as long as before"),
        (0.5, " times as long as before"),
        ("build", "build_failed: internal compiler error"),
        ("wrong", "wrong_result"),
    ],
)
def test_a_winner_that_is_no_longer_itself_is_suspicious(
    strange: object, why: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = old(file)
    assert first.winner != first.default
    code, rows, after = updated(file, {first.winner.program: strange}, capsys)
    assert code == 1
    states = {row["entry"]: row for row in rows}
    assert states[first.entry.id]["state"] == "suspicious"
    assert why in states[first.entry.id]["why"]
    assert states[second.entry.id]["state"] == "keep"
    (entry,) = (e for e in after.kernels["rmsnorm"].entries if e.id == first.entry.id)
    assert (entry.config == first.winner.config) == (strange == 0.5)


def test_a_device_that_is_slower_all_over_is_not_suspicious(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The anchors take twice as long too: that is a clock, not a compiler. An empty kernel has no anchor."""
    records = read(journal_path(file)).records
    probe = next(record["probe"] for record in records if record["kind"] == "study")
    anchors = [probe["read"]["kernel"], probe["copy"]["kernel"], probe["madd"]["fp32"]["kernel"]]
    programs = {ProbeKernel(**kernel).program: 2.0 for kernel in anchors}
    for veteran in old(file, 99):
        programs |= {candidate.program: 2.0 for candidate in veteran.candidates}
    code, rows, after = updated(file, programs, capsys)
    assert code == 0
    assert {row["state"] for row in rows} == {"keep"}
    assert all(row["now_ns"] == pytest.approx(2 * row["was_ns"], rel=1e-3) for row in rows)
    before = tuned.load(file).protocol["probe"]
    for name in ("read_gb_per_s", "fp32_gflops"):  # the document quotes what it saw
        assert after.protocol["probe"][name] == pytest.approx(before[name] / 2, rel=1e-3)


def test_few_programs_stay_few_and_measured_edges_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "few.json"
    two_entries(monkeypatch)
    words = ["--model", "clip-vit-b-32", "--kernels", "rmsnorm", "--seconds", "60", "--max-programs", "1"]
    assert main(["--device", device(), *words, "--out", str(file)]) == 0
    # An edge between the two sizes that no mean of theirs would give.
    document = tuned.load(file)
    section = document.kernels["rmsnorm"]
    low, high = sorted((e for e in section.entries if e.bucket), key=lambda entry: entry.bucket["N"][1] or math.inf)
    edge = (low.bucket["N"][1] or 0) + 1
    moved = {
        low.id: replace(low, bucket={**low.bucket, "N": (low.bucket["N"][0], edge)}),
        high.id: replace(high, bucket={**high.bucket, "N": (edge + 1, high.bucket["N"][1])}),
    }
    entries = tuple(moved.get(entry.id, entry) for entry in section.entries)
    tuned.write(file, replace(document, kernels={"rmsnorm": replace(section, entries=entries)}))

    code, rows, after = updated(file, {}, capsys)
    assert code == 0
    assert {row["state"] for row in rows} == {"keep"}
    now = after.kernels["rmsnorm"]
    assert {entry.id: entry.bucket for entry in now.entries} == {entry.id: entry.bucket for entry in entries}
    programs = [{e.id: (e.source_sha256, e.build_options) for e in each} for each in (now.entries, entries)]
    assert programs[0] == programs[1]
    assert now.programs == section.programs is not None


def test_a_default_that_fails_is_left_out_and_said(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = old(file)
    code, rows, after = updated(file, {first.default.program: "build"}, capsys)
    assert code == 1
    assert {row["entry"]: row["state"] for row in rows}[first.entry.id] == "suspicious"
    assert [e.id for e in after.kernels["rmsnorm"].entries if e.bucket] == [second.entry.id]
    both = {veteran.default.program: "build" for veteran in (first, second)}
    shutil.rmtree(file.parent / "none", ignore_errors=True)
    again = file.with_name("none.json")
    code, err, _ = updated(file, both, capsys, "--out", str(again))
    assert code == 1
    assert "suspect the device before the document" in err
    assert not again.exists()


def test_an_interrupted_one_goes_on_where_it_stopped(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, held = tuner.closing.compete, []

    def interrupted(*args: Any, **named: Any) -> Any:
        held.append(args[1])
        if len(held) == 2:
            raise KeyboardInterrupt
        return real(*args, **named)

    monkeypatch.setattr(tuner.closing, "compete", interrupted)
    code, _, after = updated(file, {}, capsys)
    assert (code, after) == (130, None)
    code, rows, after = updated(file, {}, capsys)
    assert code == 0
    assert len(held) == 3  # the first entry's finals are not held again
    assert [row["state"] for row in rows] == ["keep", "keep"]
    # After the end the same command measures anew.
    assert updated(file, {}, capsys)[0] == 0
    assert len(held) == 5


def test_the_document_alone_is_enough_and_may_be_replaced(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal_path(file).unlink()
    alone = old(file)
    assert [veteran.winner.config for veteran in alone]
    assert all(len(veteran.rivals) <= 2 for veteran in alone)
    code, rows, after = updated(file, {}, capsys, "--out", str(file))
    assert code == 0
    assert after is None
    assert [row["state"] for row in rows] == ["keep", "keep"]
    assert tuned.load(file).device.driver == "2"


def test_more_runners_up_come_from_the_journal(file: Path) -> None:
    few, many = old(file, 1), old(file, 9)
    assert [len(veteran.rivals) for veteran in few] == [1, 1]
    for one, other in zip(few, many, strict=True):
        assert len(other.rivals) == 9
        assert other.rivals[0] == one.rivals[0]
        assert not {other.winner, other.default} & set(other.rivals)
        assert len(set(other.candidates)) == len(other.candidates)


def test_a_kernel_that_was_rewritten_since_is_suspicious(file: Path) -> None:
    document = json.loads(file.read_text())
    (sha,) = {e["source_sha256"] for e in document["kernels"]["rmsnorm"]["entries"] if e["variant"] == "group_tree"}
    file.write_text(file.read_text().replace(sha, "0" * 64))
    why = {v.entry.variant: v.why_not for v in old(file)}
    assert why.pop("group_tree") == "this Kiln has another source of its kernel"
    assert set(why.values()) <= {""}


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["missing.json", "--delta"], 2, "is not there"),
        (["FILE"], 2, "--delta"),
        (["FILE", "--delta", "--top", "-1"], 2, "at least 0"),
        (["FILE", "--delta", "--out", "x.txt"], 2, "must name a .json file"),
        (["FILE", "--delta", "--device", device(name="Glass tiger")], 1, "tune it with python -m tuner"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(
    words: list[str], code: int, says: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["retune", *(str(file) if word == "FILE" else word for word in words)]) == code
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


def test_the_verdicts_of_the_paper_gpu_are_what_they_seem(file: Path) -> None:
    """Or the tests above would show less than they say."""
    trials = [r for r in read(journal_path(file)).records if r["kind"] == "trial"]
    assert {record["measurement"]["verdict"] for record in trials} <= {Verdict.OK, Verdict.ABANDONED}
