"""The recorded spaces in results/spaces: every configuration of a slice, measured once by `python -m tuner record`."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

import kernels
from tuner import judge
from tuner.cli import main
from tuner.recorded import load
from tuner.search import Stop, search

SPACES = sorted((Path(__file__).parents[1] / "results" / "spaces").glob("*.npz"))
NAMES = [path.stem for path in SPACES]


def test_every_family_has_one() -> None:
    families = {judge.workload_of_key(load(path).meta["workload"]).family for path in SPACES}
    assert families == set(kernels.families())


@pytest.mark.parametrize("path", SPACES, ids=NAMES)
def test_its_configurations_are_those_of_today(path: Path) -> None:
    """A parameter that came or went makes a record worthless as a record of the kernel, though not as a space."""
    space = load(path)
    variant = kernels.families()[judge.workload_of_key(space.meta["workload"]).family].variant(space.meta["variant"])
    assert set(space.params) == set(variant.params)
    for name, values in space.params.items():
        assert set(values) <= set(variant.params[name])
    assert np.isfinite(space.time_ms).sum() > len(space.index) / 2


@pytest.mark.parametrize("path", SPACES, ids=NAMES)
def test_sixty_trials_come_within_three_percent_of_the_best(path: Path) -> None:
    space = load(path)
    for seed in range(2):
        stop = Stop(math.inf, trials=60, patience=60)
        found = search(space, space.measure, stop=stop, seed=seed, seeds=space.begins_with, table=space.table)
        assert min(trial.cost_ns for trial in found.trials) <= 1.03 * 1e6 * space.best_ms


def test_the_cost_model_is_judged_by_whole_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    """On a GPU it orders what it has a notion of; of KV concat's 150 ways to copy a row it has none, and says so."""
    gpu = [str(path) for path in SPACES if path.stem.startswith("nvidia-h100")]
    assert main(["judge", *gpu, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert {score["device"] for score in scores} == {"nvidia-h100-80gb-hbm3"}
    for score in scores:
        assert score["trials"] > 30
        assert score["spearman"] > (-0.2 if score["workload"].startswith("kv_concat") else 0.7)
        assert score["regret"] < score["random_regret"]


def test_a_space_of_another_program_cannot_be_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.npz"
    np.savez(path, meta=json.dumps({"params": {"a": [1, 2]}}), index=np.array([[0], [1]]), time_ms=np.array([1.0, 2.0]))
    assert main(["judge", str(path)]) == 1
    assert f"{path} does not say what a journal or a record of this Kiln says" in capsys.readouterr().err
