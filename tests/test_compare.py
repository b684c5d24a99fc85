"""harness/compare.py: two result files, what keeps a difference from counting, and every way to ask wrongly."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tuned_samples import ONE, SPARE, WIDE, box, config, entry, workload

from harness import compare as verb
from harness.cli import main
from harness.commits import Compared, Report
from harness.compare_files import LEAST_SAME, compare_files
from harness.compare_text import text, to_json
from harness.devices import DeviceChoice
from harness.errors import KilnError, UsageError
from harness.result_files import BENCH, PYTEST, TUNED, ResultFile, Row, load
from harness.verdicts import Change, Effect, Finding
from kernels import tuned

DEVICE = {"name": "GPU", "vendor": "V", "version": "OpenCL 3.0", "driver_version": "1"}


def row(key: str, ns: float, *, half: float = 0.02, program: str | None = "new", limit_ns: float | None = 100.0) -> Row:
    return Row(key, "", key, ns, (ns * (1 - half), ns * (1 + half)), program, limit_ns)


def file(name: str, *rows: Row, device: Mapping[str, Any] = DEVICE, kind: str = TUNED) -> ResultFile:
    return ResultFile(Path(name), kind, {"": device}, {one.key: one for one in rows}, ())


def change(base: Row, other: Row, *more: tuple[Row, Row]) -> tuple[Change, str]:
    pairs = [(base, other), *more]
    report = compare_files(file("a", *(one for one, _ in pairs)), file("b", *(one for _, one in pairs)))
    return report.rows[0].change, report.rows[0].why


def test_disjoint_intervals_of_another_kernel_count() -> None:
    old = row("a", 1000, program="old")
    assert change(old, row("a", 1150)) == (Change.REGRESSED, "")
    assert change(old, row("a", 850)) == (Change.IMPROVED, "")
    assert change(old, row("a", 1030)) == (Change.NOISE, "")
    assert change(old, row("a", 1150, half=0.2)) == (Change.NOISE, "")


def test_what_the_device_did_is_not_the_kernels() -> None:
    old = row("a", 1000, program="old")
    found, why = change(old, row("a", 1150, limit_ns=113.0))
    assert found is Change.NOISE
    assert why == "the device's own limit moved alike (+13.0 %)"
    assert change(old, row("a", 1500, limit_ns=113.0))[0] is Change.REGRESSED
    found, why = change(row("a", 1000), row("a", 1150))
    assert found is Change.NOISE
    assert "the same kernel" in why


def test_kernels_that_are_the_same_tell_what_is_noise_between_files() -> None:
    same = [(row(f"s{i}", 1000), row(f"s{i}", 1000 + 50 * i)) for i in range(LEAST_SAME)]
    old = row("a", 1000, program="old")
    assert change(old, row("a", 1150), *same) == (Change.NOISE, "no more than kernels that are the same in both files")
    assert change(old, row("a", 1250), *same)[0] is Change.REGRESSED
    assert change(old, row("a", 1150), *same[1:])[0] is Change.REGRESSED  # too few to tell


def test_files_that_cannot_be_compared() -> None:
    one = file("a", row("a", 1))
    with pytest.raises(UsageError, match=r"different devices or drivers .driver_version: '1' and '2'"):
        compare_files(one, file("b", row("a", 1), device={**DEVICE, "driver_version": "2"}))
    with pytest.raises(UsageError, match="different devices"):  # a CPU's register width is a part of what it is
        compare_files(
            file("a", row("a", 1), device={**DEVICE, "vector_floats": 8}),
            file("b", row("a", 1), device={**DEVICE, "vector_floats": 16}),
        )
    with pytest.raises(UsageError, match="a is a tuned config and b a pytest-benchmark JSON"):
        compare_files(one, file("b", row("a", 1), kind=PYTEST))
    with pytest.raises(UsageError, match="no measured workload in common"):
        compare_files(one, file("b", row("b", 1)))


def test_the_text_says_what_two_files_cannot_tell() -> None:
    report = compare_files(
        file("a.json", row("x|y", 1000, program="old"), row("gone", 1)),
        file("b.json", row("x|y", 1200), row("new", 1)),
    )
    plain = text(report)
    assert plain.startswith("a.json → b.json: 1 regressed\n")
    assert "+20.0 %" in plain
    assert "two files hold no paired samples" in plain
    assert "in a.json alone, so not compared: gone" in plain
    markdown = text(report, markdown=True)
    assert markdown.startswith("**a.json → b.json: 1 regressed**\n\n")
    assert r"| x\|y" in markdown
    assert json.loads(json.dumps(to_json(report)))["workloads"][0]["verdict"] == "regressed"


# ---------------------------------------------------------------- reading


def test_a_tuned_config_is_read_with_its_limit(tmp_path: Path) -> None:
    predicted = entry("few", box((2, 16), (1, None)), job=workload(m=4), predicted=True)
    tuned.write(tmp_path / "a.json", config(ONE, WIDE, predicted, SPARE))
    found = load(tmp_path / "a.json")
    assert found.kind == TUNED
    assert set(found.rows) == {"gemv_decode one", "gemv_decode wide"}  # neither the alternate nor the prediction
    only = found.rows["gemv_decode one"]
    assert (only.label, only.median_ns, only.interval_ns) == ("gemv_decode one", 123456.5, (120000.0, 125000.25))
    assert only.yardstick_ns == pytest.approx(0.815 * 123456.5)
    assert "1 entries are predictions" in found.notes[0]


def benchmark(ns: float, **more: Any) -> dict[str, Any]:
    info = {
        "workload": "w",
        "label": "w",
        "device": "cpu-pocl",
        "candidate": "k",
        "description": DEVICE,
        "median_ns": ns,
        "interval_ns": [0.99 * ns, 1.01 * ns],
        "anchors_ns": {"read": 10.0, "madd": 20.0},
        "limited_by": "arithmetic",
        **more,
    }
    return {"name": "test", "stats": {"median": ns / 1e9}, "extra_info": info}


def test_what_make_bench_saves_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"benchmarks": [benchmark(1000.0)]}))
    found = load(path)
    assert found.kind == PYTEST
    assert found.rows["cpu-pocl w"] == Row("cpu-pocl w", "cpu-pocl", "cpu-pocl w", 1000.0, (990.0, 1010.0), "k", 20.0)


def test_two_devices_in_one_file_are_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    other = benchmark(7.0, device="cpu-intel", description={**DEVICE, "name": "other"})
    path.write_text(json.dumps({"benchmarks": [benchmark(1000.0), other]}))
    found = load(path)
    assert set(found.rows) == {"cpu-pocl w", "cpu-intel w"}
    assert found.devices["cpu-intel"]["name"] == "other"


def test_what_bench_prints_is_read(tmp_path: Path) -> None:
    times = {"verdict": "ok", "median_ns": 5.0, "interval_ns": [4.0, 6.0], "conditions": {}}
    line = {"workload": "w", "label": "w", "default": times, "tuned": None, "limit_ns": 2.0}
    (tmp_path / "a.json").write_text(json.dumps({"device": "d", "description": DEVICE, "lines": [line]}))
    found = load(tmp_path / "a.json")
    assert (found.kind, found.rows["w (default)"].yardstick_ns) == (BENCH, 2.0)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{", "is not JSON"),
        (b"[]", "is no result file: it holds no JSON object"),
        (b"{}", "is no result file; compare takes"),
        (b'{"benchmarks": []}', "does not say which device it is of"),
        (b'{"benchmarks": 3}', "is damaged or not of this version"),
        (b'{"lines": [{}], "description": {}}', "is damaged or not of this version"),
        (b'{"format": "kiln-tuned-config"}', "a.json"),
    ],
)
def test_files_that_are_none_are_one_sentence(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(KilnError) as error:
        load(tmp_path / "a.json")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(KilnError, match="cannot be read: No such file"):
        load(tmp_path / "missing.json")


# ---------------------------------------------------------------- the verb


def test_exit_codes_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for name, ns, program in (("a", 1000.0, "k"), ("b", 1300.0, "other")):
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps({"benchmarks": [benchmark(ns, candidate=program)]}))
    a, b = map(str, paths)
    assert main(["compare", a, a]) == 0
    assert "1 within noise" in capsys.readouterr().out
    assert main(["compare", a, b, "--json"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["workloads"][0]["ratio"] == 1.3
    assert told.err == "kiln: 1 of 1 workloads got slower or broke: cpu-pocl w\n"
    assert main(["compare", b, a]) == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "two result files, or --commits"),
        (["a.json"], "two result files are compared, not 1"),
        (["a.json", "b.json", "--commits", "HEAD"], "two result files, or --commits"),
        (["a.json", "b.json", "--device", "cpu"], "--device goes with --commits"),
        (["--commits", "a", "b", "c"], "one or two commits, not 3"),
        (["--commits", "HEAD", "--seconds", "0"], "--seconds is more than 0"),
        (["--commits", "HEAD", "--heaviest", "-1"], "--heaviest is more than 0"),
        (["--commits", "HEAD", "--model", "nonsense"], 'unknown model "nonsense"'),
        (["--commits", "HEAD", "--kernels", "nonsense"], 'unknown kernel "nonsense"'),
        (["--commits", "HEAD", "--weights", "int3"], 'unknown weight format "int3"'),
        (["--commits", "HEAD", "--device", "nonsense"], 'unknown device "nonsense"'),
    ],
)
def test_wrong_usage_is_2_and_one_sentence(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *words]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_commits_are_told_and_a_regression_is_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    effect, still = Effect(1.15, (1.1, 1.2), 0.995, 10), Effect(1.0, (0.97, 1.03), 0.995, 10)
    key = "rmsnorm:-:act=fp16:M=1,N=2048"
    findings = {
        key: Finding(Change.REGRESSED, effect, still, 1000.0, 1150.0, "median"),
        key + "8": Finding(Change.NOISE, still, None, 1000.0, 1000.0, "fastest sixth"),
        key + "9": Finding(Change.BROKEN, log="wrong_result at M=1"),
    }
    compared = [Compared(one, "gemma-2b norm", "rmsnorm", ("c", "c"), found, False) for one, found in findings.items()]
    compared.append(Compared("gemv:int4:x:M=1", "gemma-2b q", "gemv_decode", ("c", "c"), None, True))
    device = DeviceChoice("cpu-pocl", (), {"name": "CPU", "platform_name": "PoCL"}, None)  # type: ignore[arg-type]
    report = Report(device, "old", "new", tuple(compared), (), ("fresh",), ("late",), {"read": (0.99, 0.05)}, 12.0)
    monkeypatch.setattr(verb, "compare_commits", lambda *_: report)
    monkeypatch.setattr(verb, "resolve", lambda _: device)
    assert main(["compare", "--commits", "old", "new"]) == 1
    told = capsys.readouterr()
    assert told.err == "kiln: 2 of 3 workloads got slower or broke: gemma-2b norm, gemma-2b norm\n"
    assert told.out.startswith("old → new: 1 regressed, 1 within noise, 1 broken, 1 identical, not measured\n")
    assert "+15.0 %" in told.out
    assert "+10.0 to +20.0 %" in told.out
    assert "-3.0 to +3.0 %" in told.out
    for note in ("1 workloads were not begun in time", "in the other alone, so not compared: fresh", "wrong_result at"):
        assert note in told.out
    assert main(["compare", "--commits", "old", "new", "--markdown"]) == 1
    assert "| rmsnorm norm M=1 N=2048" in capsys.readouterr().out
    found = to_json(dataclasses.replace(report, compared=report.compared[1:2]))
    assert found["workloads"][0]["effect"]["interval"] == [0.97, 1.03]
