"""What a report reads: documents and journals into kernels with their times, searches, importance, reasons to doubt."""

import json
from pathlib import Path
from typing import Any

import pytest
from report_samples import (
    DOWN,
    GATE,
    HOSTILE,
    REQUEST,
    default,
    final,
    ok,
    recording,
    records,
    study,
    trial,
    trials,
    write,
)

from harness.errors import KilnError, UsageError
from kernels import tuned
from kernels.spec import Measurement, Verdict
from tuner.export import tuned_config
from tuner.report.importance import CAN, LEAST_TRIALS, importances
from tuner.report.nouns import Study
from tuner.report.searches import failures, slices
from tuner.report.sources import find
from tuner.report.study import study_of
from tuner.report.trust import checks
from tuner.report.words import clean, outcome

RESULTS = Path(__file__).parent.parent / "results"


def read(*paths: Path) -> Study:
    (pair,) = find(paths).pairs
    return study_of(pair)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return write(tmp_path / "a.journal.jsonl", records())


def test_a_journal_gives_ratios_with_intervals(journal: Path) -> None:
    found = read(journal)
    assert [kernel.workload for kernel in found.measured] == [GATE, DOWN]
    gate, down = found.measured
    assert (gate.ns, gate.default_ns) == (400_004.0, 500_004.0)
    assert gate.ratio == pytest.approx(1.25, abs=0.001)
    assert gate.ratio_interval is not None
    assert gate.ratio_interval[0] <= gate.ratio <= gate.ratio_interval[1]
    assert (gate.rounds, gate.standing, gate.is_default) == (9, "faster", False)
    assert gate.parts == {"gemma-2b": "gate/up"}
    assert gate.percent == pytest.approx(25, abs=0.01)
    assert gate.bytes / gate.ns == pytest.approx(44.6, abs=0.2)  # 16384 × 2048 weights of 4.25 bits in 0.4 ms: GB/s
    assert (down.standing, down.ratio_interval) == ("default", None)
    assert "1 of 2 kernels surely faster than their default, default / tuned 1.25; 1 keep the default" in outcome(
        found.measured
    )


def test_a_document_alone_claims_no_interval(tmp_path: Path) -> None:
    tuned.write(tmp_path / "a.json", tuned_config(records(), "0"))
    found = read(tmp_path / "a.json")
    gate, down = found.measured
    assert (gate.ratio_interval, gate.rounds, gate.standing) == (None, None, "unknown")
    assert gate.ratio == pytest.approx(1.25, abs=0.001)
    assert down.is_default
    assert any("no journal beside" in note for note in found.notes)
    assert "without intervals" in outcome(found.measured)
    # With its journal beside it the intervals are back; both names lead to the one study.
    write(tmp_path / "a.journal.jsonl", records())
    (pair,) = find([tmp_path]).pairs
    assert pair == find([tmp_path / "a.journal.jsonl"]).pairs[0] == find([tmp_path / "a.json"]).pairs[0]
    assert study_of(pair).measured[0].ratio_interval is not None


def test_a_journal_of_another_run_lends_no_intervals(tmp_path: Path) -> None:
    tuned.write(tmp_path / "a.json", tuned_config(records(), "0"))
    other = [*records()[:-2], final(GATE, 700_000.0, 600_000.0), records()[-1]]
    write(tmp_path / "a.journal.jsonl", other)
    found = read(tmp_path / "a.json")
    assert found.measured[0].ratio_interval is None
    assert any("1 entries have other times" in note for note in found.notes)


def test_measured_and_predicted_are_never_in_one_list() -> None:
    for path in sorted(RESULTS.glob("*.json")):
        found = read(path)
        document = json.loads(path.read_text())
        entries = [e for section in document["kernels"].values() for e in section["entries"] if e["bucket"]]
        assert len(found.measured) == sum(entry["stats"] is not None for entry in entries)
        assert len(found.predicted) == sum(entry["prediction"] is not None for entry in entries)
        for kernel in (*found.measured, *found.predicted):  # predicted ones were proven at smaller sizes than these
            assert kernel.parts.get("gemma-2b"), kernel.workload.key


def test_passes_are_sums_of_calls_times_medians_and_whole_or_nothing(journal: Path) -> None:
    assert [(p.name, p.missing, p.tuned_ns) for p in read(journal).phases] == [("decode", 3, None)]
    found = read(RESULTS / "nvidia-h200.json")
    decode = next(phase for phase in found.phases if phase.name == "decode")
    # Gemma 2B has 18 blocks: gate and up are 36 calls of one kernel, q and o as many.
    calls = {"gate/up": 36, "down": 18, "kv": 18, "q, o": 36, "lm_head": 1}
    row = [kernel for kernel in found.measured if kernel.workload.dims["M"] == 1]
    total = sum(calls[k.label] * k.ns for k in row if k.workload.family == "gemv_decode")
    total += sum((1 if k.label == "first norm" else 36) * k.ns for k in row if k.workload.family == "rmsnorm")
    total += sum(18 * k.ns for k in row if k.workload.family == "kv_concat")
    total += sum(18 * k.ns for k in row if k.label == "attention" and k.workload.dims["T"] == 1024)
    assert decode.tuned_ns == pytest.approx(total)
    assert decode.only == ()


def test_a_pass_of_some_families_says_so(tmp_path: Path) -> None:
    names = ("q, o", "kv", "gate/up", "down", "lm_head")
    (phase,) = read(write(tmp_path / "a.journal.jsonl", records())).phases
    assert (phase.only, phase.kernels) == (("gemv_decode",), len(names))


def test_searches_keep_their_order_and_their_failures(journal: Path) -> None:
    found = read(journal)
    gate = next(search for search in found.searches if search.workload == GATE)
    assert [attempt.number for attempt in gate.attempts] == list(range(1, len(gate.attempts) + 1))
    assert gate.attempts[0].config == default(GATE)
    assert gate.best is not None
    assert gate.best.ns == 400_000.0
    assert gate.winner == {**default(GATE), "BLOCKS": 8}
    (failure,) = failures([gate])  # the two differ in a number alone
    assert (failure.count, failure.verdict, failure.family) == (2, Verdict.BUILD_FAILED, "gemv_decode")
    assert failure.log.endswith("second line")
    assert len(failures(found.searches)) == 1


def test_a_long_log_is_cut_and_says_by_how_much(tmp_path: Path) -> None:
    failed = Measurement.failed(Verdict.CRASHED, "x" * 10_000)
    path = write(tmp_path / "a.journal.jsonl", [*records(), trial(GATE, {**default(GATE), "BLOCKS": 2}, failed)])
    crash = next(one for one in failures(read(path).searches) if one.verdict is Verdict.CRASHED)
    assert (len(crash.log), crash.cut) == (4000, 6000)


def test_slices_are_trials_that_differ_in_one_parameter(journal: Path) -> None:
    gate = next(search for search in read(journal).searches if search.workload == GATE)
    by_param = {one.param: one for one in slices(gate)}
    blocks = by_param["BLOCKS"]
    assert blocks.centre == 8
    told = {value: attempt.ns or attempt.at_least_ns for value, attempt in blocks.points}
    assert told[8] == 400_000.0
    assert told[2] == 900_000.0
    assert [value for value, _ in blocks.points] == sorted(value for value, _ in blocks.points)
    for one in slices(gate):
        for value, attempt in one.points:
            assert attempt.config == {**gate.winner, one.param: value}  # type: ignore[dict-item]


def test_a_trial_of_another_device_is_not_of_this_study(tmp_path: Path) -> None:
    other = study(device={**study()["device"], "driver_version": "older"})
    found = [other, trial(GATE, default(GATE), ok(1.0)), *records()]
    gate = next(s for s in read(write(tmp_path / "a.journal.jsonl", found)).searches if s.workload == GATE)
    assert gate.best is not None
    assert gate.best.ns == 400_000.0


@pytest.mark.skipif(not CAN, reason="Optuna 5 is not here")
def test_optuna_finds_the_parameter_that_decides(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.journal.jsonl", [study(), *trials(GATE, 60)]))
    assert found.measured == ()
    assert any("no finals yet" in note for note in found.notes)
    (importance,) = importances(found.searches)
    assert importance.why is None
    assert importance.trials >= 60
    assert importance.parts[0][0] == "BLOCKS"
    assert sum(part for _, part in importance.parts) == pytest.approx(1, abs=0.01)


def test_few_trials_have_no_importance(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.journal.jsonl", [study(), *trials(GATE, 3)]))
    (importance,) = importances(found.searches)
    assert importance.parts == ()
    assert importance.why is not None
    assert str(LEAST_TRIALS) in importance.why


# ---------------------------------------------------------------- reasons to doubt


def states(found: Study) -> dict[str, str]:
    return {check.about: check.state for check in checks(found)}


def test_what_is_right_and_what_is_not_told(journal: Path) -> None:
    found = states(read(journal))
    assert found["right results"] == "good"
    assert found["temperature"] == "unknown"  # the journal's conditions have none
    assert found["limits"] == "good"
    assert found["trials"] == "good"


def test_a_kernel_beyond_the_limit_is_doubtful(tmp_path: Path) -> None:
    faster = [*records()[:-2], final(GATE, 500_000.0, 90_000.0), records()[-1]]
    found = read(write(tmp_path / "a.journal.jsonl", faster))
    (limits,) = [check for check in checks(found) if check.about == "limits"]
    assert limits.state == "doubt"
    assert "111 %" in limits.text


def test_a_wrong_result_in_the_search_is_told(tmp_path: Path) -> None:
    wrong = trial(GATE, {**default(GATE), "BLOCKS": 2}, Measurement.failed(Verdict.WRONG_RESULT, "M=1: nmse 1"))
    found = read(write(tmp_path / "a.journal.jsonl", [*records(), wrong]))
    (trials_,) = [check for check in checks(found) if check.about == "trials"]
    assert trials_.state == "doubt"
    assert "1 wrong_result" in trials_.text


def test_predicted_kernels_are_proven_elsewhere_and_say_where() -> None:
    (right,) = [check for check in checks(read(RESULTS / "adreno750.json")) if check.about == "right results"]
    assert right.state == "doubt"
    assert "which is not the device itself (qualcomm adreno-750)" in right.text


def test_a_gpus_clock_is_not_taken_for_its_own() -> None:
    (clock,) = [check for check in checks(read(RESULTS / "nvidia-h200.json")) if check.about == "clock"]
    assert clock.state == "unknown"
    assert "its host's" in clock.text


# ---------------------------------------------------------------- files


def test_a_folder_gives_what_is_ours_in_it(tmp_path: Path, journal: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps(recording()))
    (tmp_path / "other.json").write_text('{"format": "something else"}')
    (tmp_path / "list.json").write_text("[]")
    found = find([tmp_path])
    assert len(found.pairs) == 1
    assert [str(path.name) for path, _ in found.recordings] == ["t.json"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"format": "kiln-tuned-config", '),
        ("a.json", "[]"),
        ("a.journal.jsonl", ""),
        ("a.journal.jsonl", "hello\n"),
        ("a.journal.jsonl", '{"kind": "study", "version": 1}\n'),
        ("a.journal.jsonl", '{"kind": "study", "version": 99}\n'),
        ("t.json", '{"format": "kiln-telemetry", "version": 1}'),
        ("t.json", '{"format": "kiln-telemetry", "version": 7}'),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(KilnError, match=name) as found:
        _ = [study_of(pair) for pair in find([path]).pairs]
    assert found.value.exit_code == 1
    assert "\n" not in str(found.value)


def damaged(change: dict[str, Any], at: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(json.dumps(records()))
    found[at] |= change
    return found


@pytest.mark.parametrize(
    ("change", "at"),
    [
        ({"device": {}}, 0),
        ({"device": None}, 0),
        ({"workload": "nonsense"}, 3),
        ({"config": {}}, 3),
        ({"config": 7}, 3),
        ({"workload": {}}, -1),
        ({"finalists": []}, -1),
        ({"facts": {}}, -1),
    ],
)
def test_a_journal_that_makes_no_sense_is_named(tmp_path: Path, change: dict[str, Any], at: int) -> None:
    path = write(tmp_path / "a.journal.jsonl", damaged(change, at))
    with pytest.raises(KilnError, match=r"a\.journal\.jsonl"):
        study_of(find([path]).pairs[0])


@pytest.mark.parametrize("request_", [{}, {"models": ["no-such-model"], **{k: REQUEST[k] for k in ("weights", "act")}}])
def test_a_request_that_tells_little_costs_labels_alone(tmp_path: Path, request_: dict[str, Any]) -> None:
    found = read(write(tmp_path / "a.journal.jsonl", [study(request=request_), *records()[1:]]))
    assert [kernel.workload for kernel in found.measured] == [GATE, DOWN]
    assert found.phases == ()


def test_a_torn_line_is_passed_over_and_told(tmp_path: Path, journal: Path) -> None:
    journal.write_text(journal.read_text() + '{"kind": "tri')
    assert any("cannot be read and is passed over" in note for note in read(journal).notes)


def test_nothing_to_report_is_wrong_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for named in ([], [tmp_path], [tmp_path / "missing.json"]):
        with pytest.raises(UsageError):
            find(named)


def test_hostile_text_reaches_nobody_raw() -> None:
    assert "\x1b" not in clean(HOSTILE)
    assert "\u202e" not in clean(HOSTILE)
    assert clean("µs → 3 × “ok”\n\tline") == "µs → 3 × “ok”\n\tline"
