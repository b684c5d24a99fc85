"""A slice of a space measured whole, and read back as a search sees it."""

import json

import numpy as np
import pytest
from test_judge import probed

from harness.devices import DeviceChoice
from tuner import opening, record
from tuner.cli import main
from tuner.recorded import load

JOB = ("--kernel", "rmsnorm", "--variant", "rows", "M=2", "N=64")
FIX = ("--fix", "WG=1", "--fix", "PREFETCH=0", "--fix", "ROWS=1")


def words(device: DeviceChoice, out, *more: str) -> list[str]:
    return ["record", "--device", f"ocl:{device.description['platform_name']}", "--out", str(out), *JOB, *more]


def test_a_slice_is_measured_once_and_read_back(device, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(record, "BUDGET_S", 0.01)
    monkeypatch.setattr(opening, "probe", lambda *_: probed())
    out = tmp_path / "norm.npz"
    assert main(words(device, out, *FIX)) == 0
    space = load(out)
    configs = list(space.configs())
    assert len(configs) > 3
    assert {config["ROWS"] for config in configs} == {1}
    assert np.isfinite(space.time_ms).any()
    meta = json.loads(str(np.load(out)["meta"]))
    assert meta["workload"].startswith("rmsnorm:")
    assert meta["device"]["name"] == device.description["name"]
    assert meta["probe"] == json.loads(json.dumps(probed().to_json()))

    before = (tmp_path / "norm.journal.jsonl").read_text()
    assert main(words(device, out, *FIX)) == 0
    after = (tmp_path / "norm.journal.jsonl").read_text()
    assert after.count('"kind":"trial"') == before.count('"kind":"trial"') == len(configs)
    assert sorted(load(out).time_ms) == pytest.approx(sorted(space.time_ms), nan_ok=True)
    assert f"{len(configs)} configurations" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--fix", "SPEED=1"), 'rows has no parameter "SPEED"'),
        (("--fix", "WG=3"), "WG is one of"),
        (("--variant", "columns"), 'unknown variant "columns"'),
        (("--variant", "subgroup", "--weights", "int3"), "int3"),
    ],
)
def test_what_a_family_does_not_have_is_refused_by_name(tmp_path, capsys, more, said):
    assert main(["record", "--device", "cpu", "--out", str(tmp_path / "x.npz"), *JOB, *more]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_file_that_replay_would_not_find_is_refused(tmp_path, capsys):
    assert main(["record", "--out", str(tmp_path / "x.json"), *JOB]) == 2
    assert ".npz" in capsys.readouterr().err
