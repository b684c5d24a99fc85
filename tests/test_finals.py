from collections.abc import Mapping

import numpy as np
import pytest
from fakes import FAMILY, SHEET, WORKLOAD, ok

from harness.candidate import Candidate
from tuner.choose import Searched
from tuner.finals import Final, Finalist, decide, finalists
from tuner.search import Trial

DEFAULT = {"variant": "plain", "WG": 64, "VEC": 1}


def finalist(config: Mapping[str, object], median_ns: float, n: int = 4096, spread: float = 0.001) -> Finalist:
    rng = np.random.default_rng(int(median_ns) + int(config["VEC"]))  # type: ignore[call-overload]
    samples = median_ns * (1 + spread * rng.standard_normal(25))
    return Finalist(Candidate(FAMILY, WORKLOAD.with_dims(N=n), config), tuple(samples))


def plain(vec: int, wg: int = 64) -> dict[str, object]:
    return {"variant": "plain", "WG": wg, "VEC": vec}


def final(default_ns: float, *others: Finalist, calls: float = 1, n: int = 4096) -> Final:
    default = finalist(DEFAULT, default_ns, n)
    return Final(calls, (default, *others), default, None, {})


def test_the_fastest_wins_with_its_speedup_over_the_default() -> None:
    _, (winner,) = decide([final(200.0, finalist(plain(2), 100.0), finalist(plain(2, 128), 120.0))], SHEET)
    assert winner.finalist.candidate.config == plain(2)
    assert winner.speedup.ratio == pytest.approx(2.0, rel=0.01)
    assert winner.speedup.decided
    assert winner.tied == 0
    assert [f.candidate.config["WG"] for f in winner.ranking] == [128]


def test_the_default_gives_way_only_to_something_faster() -> None:
    _, (winner,) = decide([final(100.0, finalist(plain(1, 128), 99.9, spread=0.02))], SHEET)
    assert winner.finalist.candidate.config == DEFAULT
    assert winner.speedup.ratio == 1.0


def test_a_tie_is_not_broken_by_one_that_may_be_slower_than_the_default() -> None:
    # As fast as the winner within its wide spread, and with fewer resources, but not surely faster than the default.
    unsure = Finalist(Candidate(FAMILY, WORKLOAD, plain(1, 32)), tuple([80.0, 125.0] * 12 + [101.0]))
    _, (winner,) = decide([final(103.0, finalist(plain(1, 128), 100.0), unsure)], SHEET)
    assert winner.finalist.candidate.config == plain(1, 128)


def test_ties_go_to_the_smaller_work_group() -> None:
    near = [finalist(plain(2, 256), 100.0), finalist(plain(2, 32), 100.2)]
    _, (winner,) = decide([final(200.0, *near)], SHEET)
    assert winner.finalist.candidate.config == plain(2, 32)
    assert winner.tied == 1


def test_one_layout_for_all_and_no_workload_slower_than_its_default() -> None:
    heavy = final(200.0, finalist(plain(2), 100.0), finalist(plain(1, 128), 150.0), calls=10)
    light = final(20.0, finalist(plain(2), 25.0, n=64), finalist(plain(1, 128), 15.0, n=64), n=64)
    layout, winners = decide([heavy, light], SHEET)
    assert dict(layout)["x"] == "v1"
    assert [w.finalist.candidate.config["WG"] for w in winners] == [128, 128]
    faster = final(30.0, finalist(plain(2), 25.0, n=64), finalist(plain(1, 128), 15.0, n=64), n=64)
    layout, _ = decide([heavy, faster], SHEET)
    assert dict(layout)["x"] == "v2"


def test_nothing_in_the_finals_is_said() -> None:
    with pytest.raises(ValueError, match="nothing reached the finals"):
        decide([], SHEET)


def test_finalists_are_the_default_and_the_best_of_both_layouts() -> None:
    trials = [Trial(plain(2, wg), ok(ns)) for wg, ns in ((64, 100.0), (32, 104.0), (128, 130.0))]
    trials += [Trial(plain(1, wg), ok(ns)) for wg, ns in ((128, 110.0), (64, 200.0))]
    item = Searched(WORKLOAD, 1, tuple(sorted(trials, key=lambda t: t.cost_ns)), DEFAULT)
    got = finalists(item, (("x", "v2"),), lambda trial: Candidate(FAMILY, WORKLOAD, trial.config))
    assert [c.config for c in got] == [DEFAULT, plain(2, 64), plain(2, 32), plain(1, 128)]
