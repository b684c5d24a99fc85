import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from fakes import FAMILY, SHEET, WORKLOAD, ok

from harness.candidate import Candidate
from kernels.plan import Planned
from kernels.space import Space
from tuner.choose import Searched
from tuner.finals import Final, Finalist, decide, finalists
from tuner.search import Outcome, Trial
from tuner.setting import Job

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


# ---------------------------------------------------------------- a bound on single launches


def bounded(final: Final, most_ns: float) -> Final:
    return replace(final, facts={"max_dispatch_ns": most_ns})


def test_who_launches_something_longer_than_is_asked_for_is_not_chosen() -> None:
    longest = finalist(plain(2), 100.0)
    halves = replace(finalist(plain(2, 128), 120.0), launches_ns=(70.0, 50.0))
    slow = replace(finalist(plain(2, 32), 150.0), launches_ns=(75.0, 75.0))
    one = final(200.0, longest, halves, slow)
    assert decide([one], SHEET)[1][0].finalist == longest
    _, (winner,) = decide([bounded(one, 80.0)], SHEET)
    assert winner.finalist == halves
    assert winner.ranking == (slow,), "no alternate breaks the bound either"
    assert winner.speedup.ratio == pytest.approx(200 / 120, rel=0.01)


def test_a_slower_one_wins_where_the_default_launches_too_long() -> None:
    slower = replace(finalist(plain(1, 128), 250.0), launches_ns=(90.0, 80.0, 80.0))
    one = final(200.0, slower)
    assert decide([one], SHEET)[1][0].finalist == one.default
    assert decide([bounded(one, 100.0)], SHEET)[1][0].finalist == slower
    assert decide([bounded(one, 200.5)], SHEET)[1][0].finalist == one.default


def test_where_no_layout_is_left_the_bound_is_named() -> None:
    heavy, light = final(200.0, finalist(plain(2), 100.0)), final(20.0, finalist(plain(2), 25.0, n=64), n=64)
    with pytest.raises(ValueError, match="give the search more time or allow longer launches"):
        decide([bounded(heavy, 110.0), bounded(light, 21.0)], SHEET)


def test_a_search_drops_what_surely_launches_too_long() -> None:
    """One launch of 120 ns cannot keep to 100; the default stays for comparison; where nothing fits, all stay."""
    trials = tuple(Trial(plain(vec), ok(ns)) for vec, ns in ((2, 80.0), (4, 120.0), (1, 200.0)))
    planned = Planned(WORKLOAD, 1, 1, 1.0)
    job = Job(planned, Space(FAMILY, WORKLOAD, SHEET), DEFAULT, 1.0, Outcome(trials, 0, "trials"), 100.0)
    assert [trial.config["VEC"] for trial in job.ok] == [2, 1]
    job.most_ns = 10.0
    assert [trial.config["VEC"] for trial in job.ok] == [2, 4, 1]
    job.most_ns = math.inf
    assert len(job.ok) == 3
