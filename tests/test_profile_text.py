"""harness/profile_text.py and harness/shares.py: made-up stamps give these very figures."""

import json
from dataclasses import replace
from typing import Any

import pytest
from profiles import made_up

from harness import cli, profile_text, shares, verbs
from harness.errors import KilnError
from harness.probe import Limit
from harness.profile_nouns import Profile


def test_rows_add_up_to_the_step() -> None:
    step = made_up().steps[0]
    gemv, norm = shares.rows(step)
    assert (gemv.family, gemv.launches) == ("gemv_decode", 2)
    assert gemv.time_ns.mean == 45_000, "15 + 15 µs in the first repeat, twice that in the second"
    assert gemv.time_ns.sd == pytest.approx(21_213.2, abs=0.1)
    assert gemv.gap_ns.mean == 15_000
    assert (norm.family, norm.launches, norm.time_ns.mean, norm.gap_ns.mean) == ("rmsnorm", 1, 15_000, 0)
    assert (gemv.share, norm.share) == (0.75, 0.25)
    assert gemv.percent == pytest.approx(100 * 6 / 45), "a call of two launches has one limit"
    whole = shares.totals(step)
    assert whole.sum_ns.mean == gemv.time_ns.mean + norm.time_ns.mean
    assert whole.span_ns.mean == whole.sum_ns.mean + whole.gap_ns.mean == 75_000
    assert (whole.wall_ns.mean, whole.launches, whole.calls) == (110_000, 3, 2)
    assert (whole.samples, whole.repeats, whole.overlaps) == (2, 2, 0)


def test_the_table_is_this_one() -> None:
    told = profile_text.text(made_up())
    lines = told.splitlines()
    assert lines[0] == "tiny on paper: Paper tiger (Paper)"
    assert lines[2] == "decode: one token, 32 cached (token-eval): 2 steps in 2 repeats"
    row = next(line for line in lines if line.startswith("gemv_decode"))
    assert row.split() == ["gemv_decode", "2", "45", "µs", "47.1", "%", "75.0", "%", "15", "µs", "13", "%", "bandwidth"]
    row = next(line for line in lines if line.startswith("all"))
    assert row.split()[:10] == ["all", "3", "60", "µs", "47.1", "%", "100", "%", "15", "µs"]
    assert "launches' sum: 60 µs ± 47.1 % = 16667 tokens/s" in told
    assert "first START to last END: 75 µs ± 47.1 % = 13333 tokens/s" in told
    assert "wall, without profiling (2 steps): 110 µs ± 12.9 % = 9091 tokens/s" in told
    assert "decoder: 2 of 3 layers have weights and caches of their own on the device (1 MiB each; the layers" in told
    assert "device stamps lie on the host's clock within ± 500 ns" in told
    assert "note: nothing here was measured" in told
    assert "telemetry: none, it was not asked for: --telemetry" in told


def test_one_repeat_has_no_spread() -> None:
    profile = made_up()
    step = replace(profile.steps[0], samples=profile.steps[0].samples[:1], wall_ns=(100_000,))
    told = profile_text.step_text(step)
    assert "launches' sum: 40 µs = 25000 tokens/s" in told
    assert "0.0 %" not in told


def test_a_result_beyond_the_limit_accuses_the_probe() -> None:
    profile = made_up()
    step = profile.steps[0]
    beyond = {key: Limit(60_000.0, "bandwidth") for key in step.limits}
    assert "note: rmsnorm: 400 % of the probed limit is impossible" in profile_text.step_text(
        replace(step, limits=beyond)
    )


def test_the_json_has_every_stamp() -> None:
    found = json.loads(json.dumps(profile_text.to_json(made_up()), allow_nan=False))
    (step,) = found["steps"]
    assert [len(sample["stamps_ns"]) for sample in step["samples"]] == [3, 3]
    assert [launch["entry"] for launch in step["launches"]] == ["rmsnorm", "gemv_split", "gemv_join"]
    assert step["families"][0]["percent_of_limit"] == pytest.approx(13.33, abs=0.01)
    assert found["telemetry"] is None
    assert found["telemetry_why"]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--model", "nonsense"], 2, 'unknown model "nonsense"; choose one of'),
        (["--weights", "int3"], 2, 'unknown weight format "int3"'),
        (["--prompt", "1"], 2, "--prompt 1: a prefill has 2 to 4096 tokens"),
        (["--prompt", "5000"], 2, "a prefill has 2 to 4096 tokens"),
        (["--context", "0"], 2, "give 129 or more"),
        (["--prompt", "64", "--context", "64"], 2, "give 65 or more"),
        (["--repeats", "0"], 2, "at least one repeat"),
        (["--device", "nonsense"], 2, 'unknown device "nonsense"'),
        (["--trace", "."], 1, "is a folder"),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["profile", *words]) == code
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_a_document_that_is_not_there_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*words: Any, **more: Any) -> Profile:
        raise KilnError("it ran")

    monkeypatch.setattr(verbs.profile, "resolve", lambda name: None)
    monkeypatch.setattr(verbs.profile, "profile", never)
    assert cli.main(["profile", "--config", "build/nowhere.json"]) == 1
    assert "build/nowhere.json" in capsys.readouterr().err
