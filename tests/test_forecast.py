"""Forecasts of whole models: rooflines by hand, a replay that returns what it was fitted on, columns kept apart."""

import json
from dataclasses import replace

import pytest

import kernels
from kernels.jobs import Ask, dtype_policy
from kernels.models import load_model
from kernels.peaks import Peaks
from kernels.published import FIGURES, TABLE_1
from kernels.spec import Workload
from tuner import forecast_text
from tuner.absent import Claim
from tuner.cli import main
from tuner.forecast import ask_like_the_paper, fit, kiln_times, phases, roofline_ns

CLAIM = Claim.of("adreno750")
PEAKS = Peaks(50.0, None, {"fp32": 1000.0, "fp16": 2000.0}, 0, 0, None, None, 4)
GEMMA = load_model("gemma-2b")


def test_a_roofline_by_hand() -> None:
    gemv = Workload(
        "gemv_decode", {"M": 1, "N": 4096, "K": 4096}, dtype_policy("fp16", "fp16", "int4/g128"), "int4/g128"
    )
    # 4 bits a weight, and 32 for each group of 128; both vectors in halves.
    size = 4096 * 4096 * 4.25 / 8 + 2 * 2 * 4096
    assert roofline_ns(gemv, PEAKS) == pytest.approx(size / 50.0)
    assert roofline_ns(gemv, replace(PEAKS, read_per_ns=1e9)) == pytest.approx(2 * 4096 * 4096 / 2000.0)
    small = replace(PEAKS, last_level_cache_bytes=1 << 20)  # the vectors fit
    assert roofline_ns(gemv, small) == pytest.approx(4096 * 4096 * 4.25 / 8 / 50.0)


def test_phases_count_what_a_model_does() -> None:
    prefill, decode = phases(GEMMA, ask_like_the_paper(128), PEAKS)
    assert (prefill.name, prefill.tokens) == ("prefill", 128)
    assert (decode.name, decode.tokens) == ("decode", 1)
    d = GEMMA.decoder
    assert d is not None
    weights = d.layers * (d.hidden * d.head_dim * (2 * d.heads + 2 * d.kv_heads) + 3 * d.hidden * d.inter)
    matmul = next(part for part in prefill.parts if part.family == "gemm_prefill")
    assert matmul.flops == pytest.approx(2 * 128 * weights, rel=0.01)
    assert decode.tokens_per_s(1e9) == 1
    assert prefill.tokens_per_s(1e9) == 128
    assert prefill.kiln_ns is None  # nobody predicted it


def test_towers_are_phases_of_their_own() -> None:
    names = [phase.name for phase in phases(load_model("llava-1.5-7b"), ask_like_the_paper(605), PEAKS)]
    assert names[:2] == ["prefill", "decode"]
    assert "image" in names


def test_the_replay_returns_what_it_was_fitted_on() -> None:
    replay = fit("adreno750", CLAIM.peaks)
    prefill, decode = phases(GEMMA, ask_like_the_paper(), CLAIM.peaks)
    assert prefill.tokens_per_s(replay.ns(prefill)) == pytest.approx(330)
    assert decode.tokens_per_s(replay.ns(decode)) == pytest.approx(30)
    mali = fit("mali-g720", Claim.of("mali-g720").peaks)
    assert mali.decode is None  # only its prefill was published
    assert mali.many_rows is not None
    assert fit("adreno830", PEAKS).device == "adreno750"


def test_the_judgement_has_every_published_figure_and_its_deviation() -> None:
    found = {one.what: one for one in forecast_text.judged(fit("adreno750", CLAIM.peaks))}
    assert len(found) == 6 + sum(row.device == "adreno750" for row in TABLE_1)
    chat = found["chatglm2-6b decode, 128 tokens"]
    assert chat.published_ns == pytest.approx(1e9 / 14)
    assert chat.replay_ns is not None
    assert chat.deviation == pytest.approx(chat.replay_ns / chat.published_ns - 1)
    assert all(one.why for one in found.values())
    gemv = found["GEMV 4096×4096, table 1"]
    assert gemv.kiln_ns is not None
    assert gemv.roofline_ns < gemv.kiln_ns
    assert all(one.roofline_ns < one.published_ns for one in found.values())  # else peaks or paper are wrong


def test_kilns_times_are_never_below_the_roofline() -> None:
    ask = Ask(("int4/g128",), "fp16", "fp16", "fp16", (1,), 128)
    times = kiln_times(GEMMA, ask, CLAIM)
    assert times
    for workload, ns in times.items():
        assert ns is not None
        assert ns > roofline_ns(workload, CLAIM.peaks)
    (decode,) = phases(GEMMA, ask, CLAIM.peaks, times)
    assert decode.kiln_ns == pytest.approx(
        sum(
            job.count * (times[job.workload] or 0)
            for family in kernels.families().values()
            for job in family.jobs(GEMMA, ask)[0]
        )
    )


def test_published_speeds_are_kept_as_times() -> None:
    gemma = next(f for f in FIGURES if (f.model, f.phase, f.engine) == ("gemma-2b", "prefill", "MLC-LLM"))
    assert gemma.tokens_per_s == pytest.approx(25)
    assert gemma.ns == pytest.approx(128 / 25 * 1e9)
    assert {f.model for f in FIGURES} <= set(kernels.models.model_names())


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (["--device", "nonsense", "--model", "gemma-2b"], "adreno750"),
        (["--device", "adreno750", "--model", "nonsense"], "gemma-2b"),
        (["--device", "adreno750", "--model", "gemma-2b", "--prompt", "3"], "--prompt"),
        (["--device", "adreno750", "--model", "gemma-2b", "--context", "0"], "--context"),
        (["--device", "adreno750", "--model", "gemma-2b", "--weights", "int3"], "int4/gN"),
    ],
)
def test_wrong_usage_is_one_sentence(more: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", *more]) == 2
    err = capsys.readouterr().err
    assert word in err
    assert err.count("\n") == 1


def test_the_command_prints_three_columns_and_the_papers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(forecast_text, "kiln_times", lambda sheet, ask, claim: {})
    words = ["predict", "--device", "adreno750", "--model", "gemma-2b", "--prompt", "128"]
    assert main(words) == 0
    out = capsys.readouterr().out
    for text in ("roofline limit", "Kiln, predicted", "Transformer-Lite, replayed", "330 tokens/s", "arXiv 2403.20041"):
        assert text in out
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [phase["name"] for phase in found["phases"]] == ["prefill", "decode"]
    assert found["phases"][0]["kiln_ns"] is None
