"""Exports: llama.cpp's string from a document's attention kernels, Kernel Tuner's T4 from a journal's trials."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_absent import CLAIM
from test_judge import WORKLOAD, journal, ns

import kernels
from harness.errors import KilnError, UsageError
from harness.records import read, to_json
from kernels import tuned
from kernels.entry import make_entry
from kernels.jobs import dtype_policy
from kernels.spec import Measurement, Stats, Verdict, Workload
from kernels.tuned import Entry, EntryStats, KernelSection, ProvenOn, TunedConfig, Verification
from tuner.cli import main
from tuner.exports import fa_tune, t4

FAMILY = kernels.families()["flash_attention"]
PROOF = Verification("nmse", 0.0, 1.0, ("M=2",), ProvenOn("nobody", "emulated", None))


def attention(dim: int, variant: str, ns: float, name: str, rows: int = 128, **params: int) -> Entry:
    dims = {"M": rows, "T": 128, "H": 8, "G": 1, "D": dim, "S": 128}
    workload = Workload("flash_attention", dims, dtype_policy("fp16", "fp32", None, "fp16"), None, {"causal": True})
    return make_entry(
        FAMILY,
        workload,
        FAMILY.variant(variant).config(**params),
        CLAIM.sheet,
        id=name,
        bucket={
            "M": (1, 1) if rows == 1 else (2, None),
            "T": (1, None),
            "H": (1, None),
            "G": (1, None),
            "S": (1, None),
        },
        verification=PROOF,
        stats=EntryStats(ns, (ns, ns), ns, None, 50.0, "arithmetic"),
    )


def document(*entries: Entry) -> TunedConfig:
    section = KernelSection(FAMILY.abi, entries, default=entries[0].id)
    return TunedConfig(CLAIM.facts, {}, {}, {}, {"flash_attention": section})


def test_each_head_dim_gets_its_fastest_tile() -> None:
    slow = attention(64, "staged", 9.0, "slow", BLOCK_M=32, BLOCK_N=16, N_SPLIT=2)
    spare = replace(attention(64, "staged", 5.0, "spare", BLOCK_M=64, BLOCK_N=32, N_SPLIT=1), bucket=None)
    best = replace(slow, alternates=("spare",))
    other = attention(128, "staged", 5.0, "other", BLOCK_M=16, BLOCK_N=8, N_SPLIT=4)
    assert fa_tune(document(best, spare, other)) == ("64:64:64:32:1:64,128:128:16:8:4:64", [])


def test_what_llama_cpp_has_no_place_for_is_named() -> None:
    own = attention(72, "staged", 5.0, "own", BLOCK_M=16, BLOCK_N=8, N_SPLIT=2)
    grouped = attention(80, "staged", 5.0, "grouped", BLOCK_M=16, HEADS=8)
    team = attention(96, "group", 5.0, "team")
    decode = attention(256, "staged", 5.0, "decode", rows=1)
    good = attention(128, "staged", 5.0, "good")
    value, notes = fa_tune(document(good, own, grouped, team, decode))
    assert value.startswith("128:128:")
    assert "," not in value
    assert [note.partition(":")[0] for note in notes] == ["head dim 80", "head dim 96", "head dim 72"]
    with pytest.raises(KilnError, match="head dim 96"):
        fa_tune(document(team))


def trial(config: dict[str, Any], measurement: Measurement) -> dict[str, Any]:
    record = {"kind": "trial", "key": str(config), "workload": WORKLOAD.key, "config": config}
    return record | {"measurement": to_json(measurement)}


def test_t4_has_what_its_schema_requires(tmp_path: Path) -> None:
    found = t4(read(journal(tmp_path / "a.jsonl", ns)).records, None)
    assert found["schema_version"] == "1.0.0"
    assert len(found["results"]) == 12
    for result in found["results"]:
        assert {"configuration", "times", "invalidity", "correctness"} <= result.keys()
        assert result["invalidity"] == "correct"
        assert result["correctness"] == 1
        (time, verdict) = result["measurements"]
        assert (time["name"], time["unit"], verdict["value"]) == ("time", "ms", "ok")
        assert time["value"] == pytest.approx(ns(result["configuration"]) / 1e6)
        assert result["times"]["runtimes"] == [1e-6]


@pytest.mark.parametrize(
    ("verdict", "invalidity", "correctness"),
    [
        (Verdict.WRONG_RESULT, "correctness", 0),
        (Verdict.BUILD_FAILED, "compile", 0),
        (Verdict.CRASHED, "runtime", 0),
        (Verdict.OUT_OF_RESOURCES, "constraints", 0),
        (Verdict.ABANDONED, "timeout", 1),
    ],
)
def test_a_failure_is_a_class_and_no_time(verdict: Verdict, invalidity: str, correctness: int) -> None:
    (result,) = t4([trial({"variant": "panel"}, Measurement.failed(verdict, "no"))], None)["results"]
    assert (result["invalidity"], result["correctness"]) == (invalidity, correctness)
    assert [one["name"] for one in result["measurements"]] == ["verdict"]


def test_one_workload_must_be_chosen() -> None:
    ok = Measurement(Verdict.OK, stats=Stats(5.0, (4.0, 6.0), 9), samples_ns=(5.0,))
    other = WORKLOAD.with_dims(N=64)
    records = [trial({"variant": "panel"}, ok), trial({"variant": "panel"}, ok) | {"workload": other.key}]
    with pytest.raises(UsageError, match="choose one with --workload"):
        t4(records, None)
    assert t4(records, "N=64")["metadata"]["workload"] == other.key
    with pytest.raises(UsageError, match="0 of its workloads"):
        t4(records, "N=65")
    with pytest.raises(KilnError, match="no trials"):
        t4([], None)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuned.write(tmp_path / "a.json", document(attention(128, "staged", 5.0, "good", BLOCK_M=16, BLOCK_N=8, N_SPLIT=4)))
    words = ["export", str(tmp_path / "a.json"), "--to"]
    assert main([*words, "llama.cpp"]) == 0
    assert capsys.readouterr().out == "GGML_OPENCL_FA_TUNE=128:128:16:8:4:64\n"
    assert main([*words, "t4"]) == 1
    assert "a.journal.jsonl is not there" in capsys.readouterr().err
    journal(tmp_path / "a.journal.jsonl", ns)
    assert main([*words, "t4"]) == 0
    assert len(json.loads(capsys.readouterr().out)["results"]) == 12
    assert main([*words, "llama.cpp", "--workload", "M=1"]) == 2
    assert main(["export", str(tmp_path / "b.json"), "--to", "t4"]) == 2
