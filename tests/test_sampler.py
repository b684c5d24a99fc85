import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import optuna
import pytest
from fakes import FAMILY, SHEET, WORKLOAD, fake_ns, ok

from kernels.space import Space
from kernels.spec import Config, Measurement, Verdict
from tuner import strategy
from tuner.donors import Donor, weights
from tuner.features import axes
from tuner.sampler import SAMPLERS, config_key, make_sampler, suggest, trial_params
from tuner.search import Outcome, Stop, search
from tuner.seen import log_improvement
from tuner.surrogate import Surrogate
from tuner.table import Table

SPACE = Space(FAMILY, WORKLOAD, SHEET)
SIZES = (1, 2, 4, 8, 16, 32)


class Grid:
    """Four sizes and a switch, the product of the first two bounded; `fails` says which configurations do."""

    def configs(self) -> Iterator[dict[str, Any]]:
        for a, b, c, d, fast in product(SIZES, SIZES, SIZES, (1, 2, 3), (False, True)):
            if a * b <= 256:
                yield {"variant": "v", "A": a, "B": b, "C": c, "D": d, "FAST": fast}

    def reject(self, config: Config) -> str | None:
        return None if config["A"] * config["B"] <= 256 else "the product is at most 256"

    def draw(self, rng: np.random.Generator) -> dict[str, Any] | None:
        a, b, c = (int(n) for n in rng.choice(SIZES, 3))
        config = {"variant": "v", "A": a, "B": b, "C": c, "D": int(rng.integers(1, 4)), "FAST": bool(rng.integers(2))}
        return config if self.reject(config) is None else None


def grid_ns(config: Config) -> float:
    """A valley across A and B, its bottom at A = 8, B = 16, C = 4, D = 3, FAST."""
    a, b, c = (math.log2(config[name]) for name in "ABC")
    rough = 0.3 * (a + b - 7) ** 2 + 0.1 * (a - b + 1) ** 2 + 0.2 * (c - 2) ** 2 + 0.3 * (3 - config["D"])
    return 1e5 * math.exp(rough + 0.4 * (not config["FAST"]))


BEST_NS = min(map(grid_ns, Grid().configs()))


class Meter:
    def __init__(self) -> None:
        self.asked: list[Config] = []

    def __call__(self, config: Config, best_ns: float | None) -> Measurement:
        self.asked.append(config)
        return ok(grid_ns(config))


def trials(count: int) -> Stop:
    return Stop(seconds=math.inf, trials=count, patience=10**9)


def regret(outcome: Outcome) -> float:
    return outcome.ok[0].cost_ns / BEST_NS


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_exhausts_a_space_without_repeating_itself(name: str) -> None:
    asked = []

    def measure(config: Config, best_ns: float | None) -> Measurement:
        asked.append(config_key(config))
        return ok(fake_ns(config))

    outcome = search(SPACE, measure, stop=trials(10**6), sampler=name)
    assert outcome.why_stopped == "exhausted"
    assert len(set(asked)) == len(asked) == SPACE.size


def test_an_unknown_sampler_is_refused() -> None:
    with pytest.raises(ValueError, match='unknown sampler "magic"; choose from kiln, tpe, random, grid'):
        search(SPACE, lambda config, best: ok(1.0), stop=trials(1), sampler="magic")


def test_it_finds_the_optimum_of_a_valley_much_sooner_than_chance() -> None:
    found = {
        name: [regret(search(Grid(), Meter(), stop=trials(60), sampler=name, seed=s)) for s in range(3)]
        for name in ("kiln", "random")
    }
    assert np.mean(found["kiln"]) < 1.05 < np.mean(found["random"])


@pytest.mark.parametrize("done", [1, 7, 45])
def test_a_resumed_search_goes_on_as_if_it_had_not_been_interrupted(done: int) -> None:
    whole, first, second = Meter(), Meter(), Meter()
    search(Grid(), whole, stop=trials(55), seed=4)
    known = search(Grid(), first, stop=trials(done), seed=4).trials
    search(Grid(), second, stop=trials(55 - done), seed=4, known=known)
    assert first.asked + second.asked == whole.asked


def test_where_it_failed_it_looks_less() -> None:
    def measure(config: Config, best_ns: float | None) -> Measurement:
        if config["A"] >= 8:
            return Measurement.failed(Verdict.BUILD_FAILED, "too large")
        return ok(grid_ns(config))

    outcome = search(Grid(), measure, stop=trials(60))
    failing = [config["A"] >= 8 for config in Grid().configs()]
    share = 1 - len(outcome.ok) / len(outcome.trials)
    assert share < 0.7 * sum(failing) / len(failing)


def test_a_space_where_everything_fails_is_searched_all_the_same() -> None:
    outcome = search(Grid(), lambda config, best: Measurement.failed(Verdict.CRASHED, ""), stop=trials(30))
    assert len({config_key(trial.config) for trial in outcome.trials}) == 30


def test_what_was_given_up_counts_as_slow_and_a_lost_runner_as_nothing() -> None:
    def measure(config: Config, best_ns: float | None) -> Measurement:
        if len(sampler_sees) % 5 == 4:
            sampler_sees.append(config)
            return Measurement.failed(Verdict.WORKER_LOST, "the cable")
        sampler_sees.append(config)
        ns = grid_ns(config)
        if best_ns is not None and ns > 1.5 * best_ns:
            return Measurement.failed(Verdict.ABANDONED, "slow", at_least_ns=1.5 * best_ns)
        return ok(ns)

    sampler_sees: list[Config] = []
    assert regret(search(Grid(), measure, stop=trials(80))) < 1.05


def test_noise_does_not_lead_it_astray() -> None:
    rng = np.random.default_rng(0)

    def measure(config: Config, best_ns: float | None) -> Measurement:
        return ok(grid_ns(config) * float(np.exp(0.05 * rng.standard_normal())))

    outcome = search(Grid(), measure, stop=trials(80))
    assert min(grid_ns(trial.config) for trial in outcome.trials) / BEST_NS < 1.05


def test_donors_help_and_an_inverted_one_is_outvoted() -> None:
    configs = list(Grid().configs())
    friend = Donor("friend", configs[::7], [grid_ns(config) ** 1.3 for config in configs[::7]])
    liar = Donor("liar", configs, [1e10 / grid_ns(config) for config in configs])

    def mean(count: int, donors: list[Donor]) -> float:
        return float(
            np.mean([1 / regret(search(Grid(), Meter(), stop=trials(count), seed=s, donors=donors)) for s in range(3)])
        )

    assert mean(6, [friend]) > mean(6, []) + 0.05
    assert mean(50, [liar]) > mean(50, []) - 0.02
    assert mean(6, [liar, friend]) > mean(6, []) + 0.05


def test_a_donor_that_shares_nothing_is_passed_over() -> None:
    stranger = Donor("stranger", [{"variant": "other", "X": n} for n in range(9)], [1.0 * n for n in range(1, 10)])
    with_it, without = Meter(), Meter()
    search(Grid(), with_it, stop=trials(20), donors=[stranger])
    search(Grid(), without, stop=trials(20))
    assert with_it.asked == without.asked


def test_donors_weights_follow_the_evidence() -> None:
    expected = np.linspace(-1, 1, 12)[:, None]
    assert weights(expected, np.zeros(0)).tolist() == [1.0]
    assert weights(expected, 1.5 * expected[:, 0])[0] > 1.2
    assert weights(expected, -expected[:, 0])[0] < 0.1


def test_a_space_too_large_to_list_is_searched_through_a_bounded_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    pools = []
    propose = strategy.Strategy.propose

    def watched(self: strategy.Strategy, seen: Any, free: Any) -> int:
        row = propose(self, seen, free)
        pools.append(len(self._pool) if len(seen) >= strategy.START else 0)
        return row

    monkeypatch.setattr(strategy.Strategy, "propose", watched)
    part = Table(Grid(), limit=100, draws=200)
    assert not part.complete
    assert len(part) <= 200
    meter = Meter()
    outcome = search(Grid(), meter, stop=trials(60), table=part)
    assert len({config_key(config) for config in meter.asked}) == 60
    assert all(Grid().reject(config) is None for config in meter.asked)
    assert regret(outcome) < 1.1
    assert max(pools) <= 200 + strategy._DRAWS + strategy._AROUND * 5 * len(SIZES)


def test_a_large_listed_space_is_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategy, "POOL", 100)
    assert regret(search(Grid(), Meter(), stop=trials(80))) < 1.1


def test_draws_are_legal() -> None:
    rng = np.random.default_rng(0)
    drawn = [SPACE.draw(rng) for _ in range(200)]
    assert all(config is not None and SPACE.reject(config) is None for config in drawn)
    assert len({config_key(config) for config in drawn if config}) == SPACE.size


def test_optuna_sees_an_ordinary_study() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = make_sampler("kiln", Table(SPACE), [], 0)
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: math.log(fake_ns(suggest(trial, sampler))), n_trials=100)
    assert len(study.trials) == SPACE.size  # it stopped when nothing was left
    assert study.best_params == {"variant": "wide", "wide.WG": 64, "wide.VEC": 8}


def test_two_samplers_on_one_study_never_propose_the_same() -> None:
    storage = optuna.storages.InMemoryStorage()
    asked = []
    studies = []
    for seed in (0, 0):
        sampler = make_sampler("kiln", Table(Grid()), [], seed)
        study = optuna.create_study(
            storage=storage, sampler=sampler, study_name="shared", direction="minimize", load_if_exists=True
        )
        studies.append((study, sampler))
    for turn in range(40):
        study, sampler = studies[turn % 2]
        trial = study.ask()
        config = suggest(trial, sampler)
        asked.append(config_key(config))
        study.tell(trial, math.log(grid_ns(config)))
    assert len(set(asked)) == 40


def test_what_others_are_measuring_leaves_less_to_learn_there() -> None:
    rng = np.random.default_rng(1)
    points = rng.random((40, 2))
    values = np.sin(4 * points[:20, 0])
    values = (values - values.mean()) / values.std()
    surrogate = Surrogate(2)
    surrogate.fit(points[:20], values)
    surrogate.condition(points[:20], np.zeros(20), points, 3)
    solved = surrogate.solve(values)
    before, lied = surrogate.deviations(solved), surrogate.deviations(solved, points[[30, 31]])
    assert (lied <= before + 1e-12).all()
    assert lied[30] < before[30] / 2
    assert np.array_equal(surrogate.deviations(solved), before)  # what is expected is forgotten again
    assert np.array_equal(surrogate.solve(values), solved)


def test_the_sampler_knows_what_others_are_measuring() -> None:
    sampler = make_sampler("kiln", Table(Grid()), [], 0)
    study = optuna.create_study(sampler=sampler)
    for _ in range(30):
        trial = study.ask()
        study.tell(trial, math.log(grid_ns(suggest(trial, sampler))))
    others = [sampler.propose(study) for _ in range(3)]
    for config in others:
        params = trial_params(config or {})
        distributions = {name: sampler.distributions[name] for name in params}
        study.add_trial(
            optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING, params=params, distributions=distributions)
        )
    assert len({config_key(config or {}) for config in (*others, sampler.propose(study))}) == 4
    assert sampler._seen.pending == [sampler.table.row(config or {}) for config in others]
    assert len(sampler._seen) == 30


def test_axes_have_a_sense_of_order_scale_and_twos() -> None:
    assert axes([8, 32, 128]).tolist() == [[0.0], [0.5], [1.0]]
    assert axes([0, 1, 2]).tolist() == [[0.0], [0.5], [1.0]]
    assert axes([16, 48, 64]).shape == (3, 2)
    assert axes(["a", "b", "c"]).shape == (3, 3)
    assert axes([7]).shape == (1, 0)


def test_the_surrogate_passes_through_what_it_saw_and_grows_by_one_as_if_it_had_known() -> None:
    rng = np.random.default_rng(1)
    points = rng.random((30, 3))
    values = np.sin(4 * points[:, 0]) + points[:, 1]
    values = (values - values.mean()) / values.std()
    grown, whole = Surrogate(3), Surrogate(3)
    for surrogate in (grown, whole):
        surrogate.fit(points[:20], values[:20])
    assert grown.lengths[0] < grown.lengths[2]  # the third axis does nothing
    whole.condition(points, np.zeros(30), points, 0)
    grown.condition(points[:20], np.zeros(20), points, 10)
    for point in points[20:]:
        grown.append(point, 0.0)
    solved = whole.solve(values)
    assert np.allclose(grown.means(grown.solve(values)), whole.means(solved))
    assert np.allclose(grown.deviations(solved), whole.deviations(solved), atol=1e-6)
    assert np.allclose(whole.means(solved), values, atol=0.05)
    assert np.allclose(whole.smoothed(values, solved), whole.means(solved))


def test_improvement_is_smooth_where_it_changes_form() -> None:
    ahead = np.array([-40.0, -5.001, -4.999, 0.0, 3.0])
    gain = log_improvement(ahead)
    assert np.all(np.diff(gain) > 0)
    assert gain[1] == pytest.approx(gain[2], abs=0.02)
    assert gain[3] == pytest.approx(math.log(1 / math.sqrt(2 * math.pi)))
