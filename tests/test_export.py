"""A journal's records become a document; the same records give the same one, on any machine."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import kernels
from harness.candidate import Candidate
from harness.devices import sheet_from
from harness.errors import KilnError
from kernels import tuned
from kernels.explain import explain
from kernels.select import Level, select
from kernels.sheet import load_sheet
from kernels.space import Space
from kernels.spec import DTypes, Errors, Tolerance, Workload
from tuner.decisions import final_record, latest_study, workload_of, workload_record
from tuner.export import entry_id, tuned_config
from tuner.finals import Finalist

FAMILY = kernels.families()["gemv_decode"]
DESCRIPTION: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "pocl-device.json").read_text())
FACTS = {
    "limit": {"ns": 100_000.0, "limited_by": "bandwidth"},
    "conditions": {"cold": True},
}


def workload(n: int, k: int, weights: str = "int4/g128") -> Workload:
    return Workload("gemv_decode", {"M": 1, "N": n, "K": k}, DTypes("fp16", "fp32", "fp32"), weights, label=f"{n}×{k}")


def final(
    job: Workload, calls: float, default_ns: float, faster: Mapping[str, Any], faster_ns: float
) -> dict[str, Any]:
    default = FAMILY.default(job, sheet_from(DESCRIPTION))
    config = {**default, **faster}
    assert Space(FAMILY, job, sheet_from(DESCRIPTION)).reject(config) is None
    errors = Errors(1e-8, 1e-4, Tolerance(1e-6, 1e-2), ("M=1",))

    def finalist(candidate: Candidate, ns: float) -> Finalist:
        return Finalist(candidate, tuple(ns + i for i in range(9)), errors, (ns,))

    found = [
        finalist(Candidate(FAMILY, job, default), default_ns),
        finalist(Candidate(FAMILY, job, default, driver_local=True), default_ns + 500),
        finalist(Candidate(FAMILY, job, config), faster_ns),
    ]
    return {"kind": "final", **final_record(calls, found, FACTS)}


STUDY = {
    "kind": "study",
    "request": {"device": "cpu"},
    "device": DESCRIPTION,
    "rates": {"read_gb_per_s": 40.0},
    "protocol": "kiln-1",
    "started": "2026-11-21T00:00:00+00:00",
}
RECORDS = [
    STUDY,
    final(workload(16384, 2048), 36, 500_000.0, {"BLOCKS": 8}, 400_000.0),
    final(workload(2048, 16384), 18, 500_000.0, {"BLOCKS": 8}, 600_000.0),
]


def test_document_is_valid_and_rebuilt_alike(tmp_path: Path) -> None:
    text = tuned.dumps(tuned_config(RECORDS, "0"))
    assert tuned.dumps(tuned_config(json.loads(json.dumps(RECORDS)), "0")) == text
    config = tuned.loads(text)
    assert not config.edited
    assert config.evidence == "measured"
    entries = {entry.id: entry for entry in config.kernels["gemv_decode"].entries}
    first, second = (entries.pop(f"int4-g128-fp32-m1-{sizes}") for sizes in ("n16384-k2048", "n2048-k16384"))
    assert first.params["BLOCKS"] == 8
    assert first.stats is not None
    assert first.stats.default_ns == pytest.approx(500_004)
    assert first.stats.driver_local_ns == pytest.approx(500_504)
    assert first.stats.percent_of_limit == pytest.approx(25.0, rel=0.01)
    assert second.config == FAMILY.default(workload(2048, 16384), config.device.sheet)  # its challenger was slower
    assert {entry.bucket is None for entry in entries.values()} == {True}


def test_a_document_holds_the_traps_of_its_devices_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tuned_config(RECORDS, "0").kernels["gemv_decode"].deny == ()
    monkeypatch.setattr("tuner.export.known_sheet", lambda description: load_sheet("adreno640"))
    config = tuned.loads(tuned.dumps(tuned_config(RECORDS, "0")))
    (rule,) = config.kernels["gemv_decode"].deny
    assert (rule.params, rule.compiler) == ({"variant": "subgroup"}, ("<E031.38.11",))


def test_an_engine_finds_the_tuned_entry_again() -> None:
    config = tuned_config(RECORDS, "0")
    chosen = select([config], workload(16384, 2048), config.device, FAMILY)
    assert chosen.level is Level.EXACT
    assert chosen.entry.params["BLOCKS"] == 8
    # A size between the two is served by one of them; more rows are another regime, which nobody tuned.
    assert select([config], workload(11008, 4096), config.device, FAMILY).level is Level.EXACT
    rows = select([config], workload(16384, 2048).with_dims(M=16), config.device, FAMILY)
    assert rows.level is Level.BUILT_IN
    assert any("level exact" in line for line in explain([config], workload(16384, 2048), config.device, FAMILY))


def test_a_driver_local_winner_leaves_the_work_group_to_the_driver() -> None:
    record = final(workload(16384, 2048), 36, 500_000.0, {"BLOCKS": 8}, 600_000.0)
    record["finalists"][1]["samples_ns"] = [300_000 + i for i in range(9)]
    (entry, *_) = tuned_config([STUDY, record], "0").kernels["gemv_decode"].entries
    assert all(launch.local is None for launch in entry.launches)
    assert entry.needs.work_group == 1


def test_the_last_finished_study_counts() -> None:
    later = {**STUDY, "started": "2026-11-22T00:00:00+00:00"}
    assert latest_study([*RECORDS, later])[0]["started"] == STUDY["started"]
    with pytest.raises(KilnError, match="no finals yet"):
        latest_study([STUDY])


def test_a_gap_of_an_earlier_study_is_not_this_ones() -> None:
    wall = {"kind": "note", "text": "wall", "workload": workload(16384, 2048).key, "gap": 0.5}
    assert tuned_config([*RECORDS, wall], "0").protocol["wall_gap"] == {"int4-g128-fp32-m1-n16384-k2048": 0.5}
    assert tuned_config([*RECORDS, wall, *RECORDS], "0").protocol["wall_gap"] == {}


def test_a_bound_on_launches_stands_in_the_protocol_and_leaves_out_what_breaks_it() -> None:
    study = {**STUDY, "request": {"device": "cpu", "max_dispatch_ms": 0.45}}
    records = [study, *(json.loads(json.dumps(record)) for record in RECORDS[1:])]
    for record in records[1:]:
        record["facts"] = {**FACTS, "max_dispatch_ns": 450_000.0}
    config = tuned.loads(tuned.dumps(tuned_config(records, "0")))
    assert config.protocol["max_dispatch_ms"] == 0.45
    (entry,) = config.kernels["gemv_decode"].entries  # the other size has nothing within 450 µs, this one no alternate
    assert entry.params["BLOCKS"] == 8
    assert "max_dispatch_ms" not in tuned_config(RECORDS, "0").protocol
    records[1]["facts"]["max_dispatch_ns"] = 1.0
    with pytest.raises(KilnError, match="no candidate of any workload keeps its launches within --max-dispatch-ms"):
        tuned_config(records, "0")


def test_a_bucket_ends_before_the_rows_that_launch_for_too_long() -> None:
    few, many = (workload(16384, 2048).with_dims(M=rows) for rows in (2, 8))
    records = [final(few, 36, 500_000.0, {}, 500_000.0), final(many, 36, 900_000.0, {}, 900_000.0)]

    def rows() -> list[tuple[int, int | None]]:
        entries = tuned_config([STUDY, *records], "0").kernels["gemv_decode"].entries
        return [entry.bucket["M"] for entry in entries if entry.bucket]

    assert rows() == [(2, 4), (5, 16)]
    for record in records:
        record["facts"] = {**FACTS, "max_dispatch_ns": 600_000.0}
    assert rows() == [(2, 7)]


def test_ids_tell_options_and_caches_apart() -> None:
    plain = Workload("f", {"M": 2}, DTypes("fp16", "fp32", "fp32"), "int4/g128")
    gated = replace(plain, options={"act": "silu", "gated": True})
    cache = replace(plain, weights=None, dtypes=DTypes("fp16", "fp32", "fp32", "int8"))
    ids = ["int4-g128-fp32-m2", "int4-g128-fp32-m2-act-silu-gated", "int8-fp32-m2"]
    assert [entry_id(workload) for workload in (plain, gated, cache)] == ids


def test_workloads_survive_the_journal() -> None:
    job = workload(16384, 2048)
    assert workload_of(json.loads(json.dumps(workload_record(job)))).key == job.key
