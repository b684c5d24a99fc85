"""What a person sees who types something wrong: one sentence, the right exit code, never a traceback."""

import json
from pathlib import Path

import pytest
from test_export import RECORDS

from kernels import tuned
from tuner.cli import main
from tuner.export import tuned_config


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "a.json"
    tuned.write(path, tuned_config(RECORDS, "0"))
    return path


EXPLAIN = ["--kernel", "gemv_decode", "--weights", "int4/g128", "M=1", "N=16384", "K=2048"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--model", "nonsense"], "gemma-2b"),
        (["--kernels", "nonsense"], "gemv_decode"),
        (["--kernels", ""], "at least one name"),
        (["--weights", "int3"], "int4/gN"),
        (["--seconds", "0"], "positive"),
        (["--seconds", "nan"], "positive"),
        (["--seed", "-1"], "at least 0"),
        (["--max-programs", "0"], "--max-programs must be at least 1, not 0"),
        (["--max-dispatch-ms", "0"], "--max-dispatch-ms must be a positive number, not 0"),
        (["--max-dispatch-ms", "nan"], "--max-dispatch-ms must be a positive number, not nan"),
        (["--objectives", "time,beauty"], "time, dispatch, programs, energy"),
        (["pareto", "missing.json"], "missing.journal.jsonl is not there"),
        (["pareto", "missing.json", "--objectives", ","], "at least one of time"),
        (["--out", "results"], "must name a .json file"),
        (["--device", "nonsense"], "adreno750"),
        (["explain", "missing.json", *EXPLAIN], "is not there"),
        (["explain", "x.json", "--kernel", "nonsense", "M=1"], "gemv_decode"),
        (["explain", "x.json", "--kernel", "gemv_decode", "--weights", "int4/g128", "M=0"], "M=N, N=N, K=N"),
        (["explain", "x.json", "--kernel", "gemv_decode", "--weights", "int4/g128", "M=1", "N=2"], "K is missing"),
        (["explain", "x.json", "--kernel", "gemv_decode", "M=1", "N=2", "K=3"], "--weights"),
        (["explain", "x.json", "--kernel", "gemv_decode", "M=²"], '"M=²" is no size'),
        (["explain", "x.json", "--kernel", "gemv_decode", f"M={2**31}"], "from 1 to 2147483647"),
        (["explain", "x.json", "--kernel", "gemv_decode", f"M={'9' * 5000}"], "is no size"),
        (["explain", "x.json", "--kernel", "gemv_decode", "M=1", "M=2"], "given twice"),
        (["--trials", "0"], "--trials must be at least 1"),
    ],
)
def test_wrong_usage_is_a_sentence_and_exit_2(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert says in err
    assert err.startswith("kiln: ")
    assert err.count("\n") == 1
    assert not out


@pytest.mark.parametrize("words", [["--seconds", "never"], ["--act", "int8"], ["--nonsense"], ["explain"]])
def test_what_argparse_refuses_is_exit_2(words: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)


def test_an_absent_gpu_is_exit_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "adreno750", "--require-device"]) == 3
    assert "no Adreno 750 is attached" in capsys.readouterr().err


def test_explain_tells_the_entry(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(document), *EXPLAIN]) == 0
    out = capsys.readouterr().out
    assert "level exact" in out
    assert "entry int4-g128-fp32-m1-n16384-k2048" in out
    assert main(["explain", str(document), *EXPLAIN, "--json"]) == 0
    assert "\n".join(json.loads(capsys.readouterr().out)) + "\n" == out


def test_explain_falls_back_for_what_was_not_tuned(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(document), *EXPLAIN, "--act", "fp32"]) == 0
    assert "level built-in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda text: text[: len(text) // 2], "ends in the middle"),
        (lambda text: text.replace('"kiln-tuned-config"', '"another"'), "format"),
        (lambda text: text.replace('"min_reader": "1.0"', '"min_reader": "2.0"'), "2.0"),
        (lambda text: text.replace('"default"', '"defualt"', 1), "def"),
        (lambda text: "\0", "not JSON"),
    ],
)
def test_a_broken_document_is_refused_with_a_sentence(
    document: Path, spoil: object, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    document.write_text(spoil(document.read_text()))  # type: ignore[operator]
    assert main(["explain", str(document), *EXPLAIN]) == 1
    err = capsys.readouterr().err
    assert says in err
    assert str(document) in err
    assert err.count("\n") == 1


def test_a_hand_edited_or_foreign_document_is_demoted(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = document.read_text()
    document.write_text(text.replace('"median_ns": 400004.0', '"median_ns": 4.0'))
    assert main(["explain", str(document), *EXPLAIN]) == 0
    assert "level stale" in capsys.readouterr().out
    (sha,) = {entry["source_sha256"] for entry in json.loads(text)["kernels"]["gemv_decode"]["entries"]}
    document.write_text(text.replace(sha, "0" * 64))
    assert main(["explain", str(document), *EXPLAIN]) == 0
    out = capsys.readouterr().out
    assert "another source" in out
    assert "level built-in" in out
