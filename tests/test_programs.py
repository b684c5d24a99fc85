"""tuner/programs.py: few programs for many buckets, chosen from what was measured, and what that costs is told."""

import itertools
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_export import DESCRIPTION, FAMILY, STUDY, final, workload

from harness.devices import sheet_from
from kernels import tuned
from kernels.explain import explain
from kernels.plan import Planned
from kernels.spec import DTypes, Workload
from tuner import programs
from tuner.decisions import decisions
from tuner.export import tuned_config
from tuner.summary import rows, summary

SHEET = sheet_from(DESCRIPTION)


# ---------------------------------------------------------------- choosing

REGRETS = st.lists(
    st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 2), min_size=1, max_size=6), min_size=1, max_size=6
)


def badness(regrets: programs.Regrets, chosen: tuple[str, ...]) -> tuple[float, float]:
    best = [min((bucket[p] for p in chosen if p in bucket), default=math.inf) for bucket in regrets]
    return max(best), sum(best) / len(best)


@given(REGRETS, st.integers(1, 6))
def test_the_choice_is_the_best_of_all(regrets: list[dict[str, float]], most: int) -> None:
    found = programs.choose(regrets, most)
    every = sorted({p for bucket in regrets for p in bucket})
    sets = [c for n in range(1, most + 1) for c in itertools.combinations(every, n)]
    worst, mean = min((badness(regrets, chosen) for chosen in sets), default=(math.inf, math.inf))
    if math.isfinite(worst):
        assert len(found.programs) <= most
        assert found.worst == worst
        assert found.mean == pytest.approx(mean)
    else:  # as few more as it takes
        fewer = itertools.combinations(every, len(found.programs) - 1)
        assert all(badness(regrets, chosen)[0] == math.inf for chosen in fewer)
    for bucket, program in zip(regrets, found.serves, strict=True):
        assert bucket[program] == min(bucket[p] for p in found.programs if p in bucket)


@given(REGRETS, st.integers(1, 4))
def test_beyond_what_can_be_tried_it_serves_all_and_is_seldom_worse(regrets: list[dict[str, float]], most: int) -> None:
    exact = programs.choose(regrets, most)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, "EXACT", 0)
        found = programs.choose(regrets, most)
    assert len(found.programs) >= len(exact.programs) or found.worst >= exact.worst
    assert all(program in bucket for program, bucket in zip(found.serves, regrets, strict=True))
    assert found.worst >= exact.worst or len(found.programs) > len(exact.programs)


def test_the_worst_bucket_counts_before_the_mean() -> None:
    regrets = [{"a": 0.0, "b": 0.2}, {"a": 0.0, "b": 0.2}, {"a": 0.5, "b": 0.2, "c": 0.0}]
    assert programs.choose(regrets, 1) == programs.Selection(("b", "b", "b"), 0.2, pytest.approx(0.2))
    assert programs.choose(regrets, 2).serves == ("a", "a", "c")
    with pytest.raises(ValueError, match="no program at all"):
        programs.choose([{"a": 0.0}, {}], 3)


def test_exchanges_mend_what_greed_spoilt(monkeypatch: pytest.MonkeyPatch) -> None:
    # Greed takes "b", the best alone; the best pair is without it.
    regrets = [{"a": 0.0, "b": 0.1, "c": 0.9}, {"a": 0.9, "b": 0.1, "c": 0.0}, {"a": 0.0, "b": 0.1, "c": 0.9}]
    monkeypatch.setattr(programs, "EXACT", 0)
    assert programs.choose(regrets, 2).programs == {"a", "c"}


# ---------------------------------------------------------------- from a journal

ROWS, COLUMNS = workload(16384, 2048), workload(2048, 16384)
WIDE, TALL = {"BLOCKS": 8}, {"BLOCKS": 2}


def note(job: Workload, default_ns: float, configs: dict[int, float]) -> dict[str, Any]:
    """A contest at `job` of the default and of kernels that differ in BLOCKS."""
    first, *others = [final(job, 36, default_ns, {"BLOCKS": blocks}, ns) for blocks, ns in configs.items()]
    first["finalists"] += [other["finalists"][2] for other in others]
    return {**first, "kind": "note", "text": programs.NOTE}


def records(most: int | None) -> list[dict[str, Any]]:
    """BLOCKS=8 wins one size, BLOCKS=2 the other; either was then measured where the other won, both medium."""
    return [
        {**STUDY, "request": {"device": "cpu", "max_programs": most}},
        final(ROWS, 36, 500_000.0, WIDE, 400_000.0),
        final(COLUMNS, 18, 500_000.0, TALL, 400_000.0),
        note(ROWS, 500_000.0, {8: 400_000.0, 2: 480_000.0}),
        note(COLUMNS, 500_000.0, {2: 400_000.0, 8: 440_000.0}),
    ]


def test_without_the_option_each_size_has_its_fastest() -> None:
    found = programs.decided(records(None), SHEET)
    assert [d.winner.finalist.candidate.config["BLOCKS"] for d in found] == [8, 2]
    assert [d.regret for d in found] == [None, None]
    assert programs.decided(records(None)[:3], SHEET)[0].winner.finalist.candidate.config["BLOCKS"] == 8


def test_one_program_is_the_one_whose_worst_is_least() -> None:
    first, second = programs.decided(records(1), SHEET)
    assert [d.winner.finalist.candidate.config["BLOCKS"] for d in (first, second)] == [8, 8]
    assert first.regret == 0.0
    assert second.regret == pytest.approx(0.1, rel=1e-3)
    # What won there is the first alternate, and times are of the contest in which the program ran.
    assert second.winner.ranking[0].candidate.config["BLOCKS"] == 2
    assert second.winner.speedup.ratio == pytest.approx(500 / 440, rel=1e-3)


def test_the_document_tells_what_few_programs_cost() -> None:
    config = tuned_config(records(1), "0")
    section = config.kernels["gemv_decode"]
    assert section.programs == tuned.Programs(1, 1, pytest.approx(0.1, rel=1e-3), pytest.approx(0.05, rel=1e-3))
    served = {e.id: e for e in section.entries if e.bucket}
    assert {e.params["BLOCKS"] for e in served.values()} == {8}
    assert {e.source_sha256 for e in served.values()} == {section.entries[0].source_sha256}
    assert len({e.build_options for e in served.values()}) == 1
    regrets = sorted(e.stats.regret for e in served.values() if e.stats and e.stats.regret is not None)
    assert regrets == [0.0, pytest.approx(0.1, rel=1e-3)]
    assert tuned.loads(tuned.dumps(config)).kernels["gemv_decode"].programs == section.programs
    plain = json.loads(tuned.dumps(tuned_config(records(None), "0")))["kernels"]["gemv_decode"]
    assert "programs" not in plain
    assert all("regret" not in entry["stats"] for entry in plain["entries"])


def test_explain_and_the_table_tell_the_regret() -> None:
    config = tuned_config(records(1), "0")
    lines = explain([config], COLUMNS, config.device, FAMILY)
    assert any("10.0 % behind here: 1 programs serve all sizes (at most 1 were asked for)" in line for line in lines)
    assert any("the fastest here" in line for line in explain([config], ROWS, config.device, FAMILY))
    found = programs.decided(records(1), SHEET)
    said = "1 program for 2 workloads: behind the fastest by at worst 10.0 % (2048×16384 1×2048×16384 int4/g128)"
    assert said in summary(found)
    assert rows(found)[1]["regret"] == pytest.approx(0.1, rel=1e-3)
    assert len({row["program"] for row in rows(found)}) == 1
    assert "behind the fastest" not in summary(programs.decided(records(None), SHEET))


def test_what_a_size_has_not_measured_is_asked_of_the_others_once_and_in_the_chosen_layout() -> None:
    found = decisions(records(1)[1:3], SHEET)
    (other,) = programs.missing(found[0], found, SHEET)
    assert other.candidate.workload == ROWS
    assert other.candidate.config["BLOCKS"] == 2
    assert other.layout == found[0].winner.finalist.layout
    assert programs.missing(found[0], found[:1], SHEET) == []
    # Another format is another program: it serves nothing here.
    foreign = decisions([final(workload(2048, 16384, "int4/g64"), 1, 500_000.0, TALL, 400_000.0)], SHEET)
    assert programs.missing(found[0], [found[0], *foreign], SHEET) == []


def test_a_pair_that_was_never_measured_is_not_chosen() -> None:
    first, second = programs.decided(records(1)[:4], SHEET)  # at the second size only its own and the default ran
    programs_of = {d.winner.finalist.candidate.program for d in (first, second)}
    assert len(programs_of) == 1
    assert second.winner.finalist.candidate in [f.candidate for f in second.final.finalists]


def test_kinds_of_job_that_cannot_share_are_said_before_the_search() -> None:
    jobs = [workload(512, 2048, weights) for weights in ("int4/g128", "int4/g64", "fp16")] + [workload(2048, 512)]
    planned = [Planned(job, 1, 1.0, 0.25) for job in jobs]
    (sentence,) = programs.too_few(2, planned)
    assert "gemv_decode has 3 kinds of job" in sentence
    assert "--max-programs 2 leaves it 3" in sentence
    assert programs.too_few(3, planned) == []
    assert programs.too_few(None, planned) == []
    norm = Workload("rmsnorm", {"M": 1, "N": 8}, DTypes("fp16", "fp32", "fp32"))
    assert programs.kind(norm) == programs.kind(norm.with_dims(N=9)) != programs.kind(jobs[0])
