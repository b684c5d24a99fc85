"""The search on a device itself, judged by a record of its space; the record's times are made up here."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_judge import probed

import kernels
from harness.devices import DeviceChoice
from kernels.jobs import dtype_policy
from kernels.space import Space
from kernels.spec import Workload
from tuner import live
from tuner.cli import main
from tuner.record import Slice

FIXED = {"WG": 1, "PREFETCH": 0, "ROWS": 1}
NORM = Workload("rmsnorm", {"M": 2, "N": 64}, dtype_policy("fp16", "fp32", None), None, {"norm": "rms"})


def recorded(path: Path, device: DeviceChoice, **meta: Any) -> Path:
    part = Slice(Space(kernels.families()["rmsnorm"], NORM, device.sheet), "rows", FIXED)
    configs = list(part.configs())
    params = {name: sorted({config[name] for config in configs}) for name in configs[0] if name != "variant"}
    np.savez(
        path,
        meta=json.dumps({"params": params, "variant": "rows", "workload": NORM.key} | meta),
        index=np.array([[params[name].index(config[name]) for name in params] for config in configs], np.uint16),
        time_ms=np.arange(1.0, 1.0 + len(configs)),
    )
    return path


def test_a_search_on_the_device_is_judged_by_the_record(
    device: DeviceChoice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(live, "TRIAL_BUDGET_S", 0.01)
    monkeypatch.setattr(live, "ROUNDS", 7)
    monkeypatch.setattr(live, "probe", lambda *_: probed())
    path = recorded(tmp_path / "norm.npz", device)
    name = f"ocl:{device.description['platform_name']}"
    assert main(["replay", str(path), "--live", name, "--budget", "3", "--repeats", "2", "--seed", "3", "--json"]) == 0
    searches = json.loads(capsys.readouterr().out)["searches"]
    assert [one["seed"] for one in searches] == [3, 4]
    for one in searches:
        assert one["trials"] == 3
        for config in (one["found"], one["best"]):
            assert all(config[name] == value for name, value in FIXED.items())
        low, high = one["interval"]
        assert low <= one["ratio"] <= high
        assert (one["ratio"] == 1.0) >= (one["found"] == one["best"])


def test_a_line_for_people() -> None:
    one, other = {"variant": "rows", "VEC": 4}, {"variant": "rows", "VEC": 8}
    assert str(live.Live("norm", 0, 60, one, other, 1.02, (1.01, 1.03))) == (
        "norm, seed 0: after 60 trials 1.020× the best's time, [1.010, 1.030]"
    )
    assert "the best of the record itself" in str(live.Live("norm", 0, 60, one, one, 1.0, (1.0, 1.0)))


@pytest.mark.parametrize(
    ("meta", "more", "said"),
    [
        ({"workload": "what"}, (), "names no workload of Kiln"),
        ({"variant": "columns"}, (), "names no workload of Kiln"),
        ({"variant": "split_row"}, (), "has other parameters than split_row has now; record it again"),
        ({}, ("--sampler", "random"), "--live goes without"),
    ],
)
def test_what_cannot_be_searched_live_is_refused(
    device: DeviceChoice,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    meta: dict[str, str],
    more: tuple[str, ...],
    said: str,
) -> None:
    path = recorded(tmp_path / "norm.npz", device, **meta)
    assert main(["replay", str(path), "--live", f"ocl:{device.description['platform_name']}", *more]) == 2
    assert said in capsys.readouterr().err
