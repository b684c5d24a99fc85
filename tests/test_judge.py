"""Judging the cost model: ranks by hand, and journals whose times are known to follow or to contradict it."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_runner import DEVICE

import kernels
from harness.devices import sheet_from
from harness.errors import KilnError
from harness.probe import ProbeResult, Rate
from harness.probe_kernels import ProbeKernel
from harness.records import read, to_json
from kernels.jobs import dtype_policy
from kernels.space import Space
from kernels.spec import Config, Measurement, Stats, Verdict, Workload
from tuner import judge
from tuner.cli import main
from tuner.predict import peaks_of, predict

WORKLOAD = Workload(
    "gemv_decode", {"M": 1, "N": 16384, "K": 2048}, dtype_policy("fp16", "fp32", "int4/g128"), "int4/g128"
)
FAMILY = kernels.families()["gemv_decode"]
SHEET = sheet_from(DEVICE)


def probed() -> ProbeResult:
    kernel = ProbeKernel("read_across")
    rate = Rate(50.0, (49.0, 51.0), kernel)
    madd = {"fp32": Rate(2000.0, (1990.0, 2010.0), kernel)}
    return ProbeResult(rate, rate, madd, 5000.0, 6000.0, 1, 1, True, ())


def ns(config: Config) -> float:
    return predict(FAMILY, WORKLOAD, config, SHEET, peaks_of(probed().rates, SHEET)).ns


def journal(path: Path, time: Callable[[Config], float], count: int = 12) -> Path:
    configs = list(Space(FAMILY, WORKLOAD, SHEET).configs())
    by_time = {round(ns(config)): config for config in configs[:: len(configs) // 60]}
    records: list[dict[str, Any]] = [{"kind": "study", "device": DEVICE, "probe": probed().to_json()}]
    for config in list(by_time.values())[:count]:
        found = Measurement(Verdict.OK, stats=Stats(time(config), (1.0, 2.0), 9), samples_ns=(1.0,))
        records.append(
            {"kind": "trial", "key": str(config), "workload": WORKLOAD.key, "config": config}
            | {"measurement": to_json(found)}
        )
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_ranks_by_hand() -> None:
    assert judge.spearman([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert judge.spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: 4.5 / sqrt(4.5 × 5).
    assert judge.spearman([1, 5, 5, 9], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert math.isnan(judge.spearman([1, 1], [1, 2]))


def test_a_model_that_is_right_has_no_regret(tmp_path: Path) -> None:
    (score,) = judge.judge(read(journal(tmp_path / "a.jsonl", lambda config: 2 * ns(config))).records)
    assert score.trials == 12
    assert score.spearman == pytest.approx(1)
    assert score.regret == 0
    assert score.bias == pytest.approx(0.5)
    assert score.random_regret > 0


def test_a_model_that_is_wrong_is_shown_to_be(tmp_path: Path) -> None:
    (score,) = judge.judge(read(journal(tmp_path / "a.jsonl", lambda config: 1e12 / ns(config))).records)
    assert score.spearman == pytest.approx(-1)
    assert score.regret > 0


def test_too_few_trials_have_no_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = journal(tmp_path / "a.jsonl", ns, count=judge.LEAST_TRIALS - 1)
    assert main(["judge", str(path)]) == 1
    assert "longer journal" in capsys.readouterr().err


def test_the_command_prints_a_row_per_family(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = journal(tmp_path / "a.jsonl", ns)
    assert main(["judge", str(path)]) == 0
    out = capsys.readouterr().out
    assert "gemv_decode" in out
    assert "1.00" in out
    assert main(["judge", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["trials"] == 12


def test_every_key_is_read_back() -> None:
    for family in kernels.families().values():
        for workload in family.cover():
            assert judge.workload_of_key(workload.key) == workload


def test_an_absent_journal_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge", "nothing.jsonl"]) == 2
    assert "nothing.jsonl is not there" in capsys.readouterr().err


def test_a_journal_of_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("hello\n")
    assert main(["judge", str(path)]) == 1
    assert "no study" in capsys.readouterr().err
    with pytest.raises(KilnError, match="names no workload"):
        judge.workload_of_key("what")
