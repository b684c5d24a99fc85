import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from fakes import FAMILY, SHEET, WORKLOAD, fake_ns, ok

from kernels.space import Space
from kernels.spec import Config, Measurement, Verdict
from tuner.sampler import config_key
from tuner.search import Outcome, Stop, Trial, first_tries, search

SPACE = Space(FAMILY, WORKLOAD, SHEET)
FOREVER = Stop(seconds=math.inf, patience=10**9)


class FakeMeter:
    def __init__(self, failing: Sequence[str] = ()) -> None:
        self.asked: list[Config] = []
        self.failing = failing

    def __call__(self, config: Config, best_ns: float | None) -> Measurement:
        self.asked.append(config)
        if config["variant"] in self.failing:
            return Measurement.failed(Verdict.BUILD_FAILED, "no")
        return ok(fake_ns(config))


def test_exhaustion_ends_it_and_nothing_is_measured_twice() -> None:
    meter = FakeMeter()
    outcome = search(SPACE, meter, stop=FOREVER)
    assert outcome.why_stopped == "exhausted"
    assert len({config_key(c) for c in meter.asked}) == len(meter.asked) == SPACE.size
    assert outcome.ok[0].config == {"variant": "wide", "WG": 64, "VEC": 8}


@pytest.mark.parametrize("seed", range(5))
def test_every_proposal_is_legal(seed: int) -> None:
    meter = FakeMeter()
    search(SPACE, meter, stop=Stop(seconds=math.inf, trials=20), seed=seed)
    assert all(SPACE.reject(config) is None for config in meter.asked)


def test_same_seed_same_proposals() -> None:
    first, second = FakeMeter(), FakeMeter()
    for meter in (first, second):
        search(SPACE, meter, stop=Stop(seconds=math.inf, trials=20), seed=3)
    assert first.asked == second.asked


@pytest.mark.parametrize("sampler", ["kiln", "grid", "tpe"])
def test_foretelling_changes_nothing_that_is_asked(sampler: str) -> None:
    """And what is foretold was not asked before, and comes up soon: always in a row, mostly where it is a guess."""
    seeds = [{"variant": "wide", "WG": 32, "VEC": 4}, {"variant": "plain", "WG": 32, "VEC": 4}]
    calm, meter, foretold = FakeMeter(), FakeMeter(), list[list[Config]]()

    def foretell(coming: Sequence[Config]) -> None:
        assert not [config for config in coming if config in meter.asked]
        foretold.append([dict(config) for config in coming])

    search(SPACE, calm, stop=FOREVER, seeds=seeds, seed=2, sampler=sampler)
    search(SPACE, meter, stop=FOREVER, seeds=seeds, seed=2, sampler=sampler, foretell=foretell)
    assert meter.asked == calm.asked
    assert foretold[0] == [seeds[1]]
    assert foretold[-1] == []  # nothing is left
    pairs = list(zip(foretold, meter.asked[1:], strict=False))[len(seeds) :]
    right = sum(asked in coming for coming, asked in pairs) / len(pairs)
    if sampler == "grid":
        assert all(coming[0] == asked for coming, asked in pairs)
    assert right > 0.5 if sampler != "tpe" else right == 0


def test_seeds_come_first_and_illegal_ones_are_passed_over() -> None:
    meter = FakeMeter()
    seeds = [{"variant": "wide", "WG": 256, "VEC": 16}, {"variant": "wide", "WG": 32, "VEC": 4}]
    search(SPACE, meter, stop=Stop(seconds=math.inf, trials=1), seeds=seeds)
    assert meter.asked == [{"variant": "wide", "WG": 32, "VEC": 4}]


def test_a_resumed_search_asks_as_if_it_had_not_been_interrupted() -> None:
    """Patience too counts what was known before."""
    stop = Stop(seconds=math.inf, patience=12)
    whole = search(SPACE, FakeMeter(), stop=stop, seed=1)
    for cut in (1, 5, len(whole.trials) - 1, len(whole.trials)):
        resumed = search(SPACE, FakeMeter(), stop=stop, seed=1, known=whole.trials[:cut])
        assert resumed.trials == whole.trials
        assert resumed.why_stopped == whole.why_stopped == "patience"


def test_known_trials_are_not_repeated() -> None:
    first, second = FakeMeter(), FakeMeter()
    done = search(SPACE, first, stop=Stop(seconds=math.inf, trials=10))
    resumed = search(SPACE, second, stop=FOREVER, known=done.trials)
    assert resumed.resumed == 10
    assert not {config_key(c) for c in first.asked} & {config_key(c) for c in second.asked}
    assert len(first.asked) + len(second.asked) == SPACE.size


def test_failures_are_outcomes_and_steer_away() -> None:
    meter = FakeMeter(failing=["plain"])
    outcome = search(SPACE, meter, stop=FOREVER)
    assert {t.measurement.verdict for t in outcome.trials} == {Verdict.OK, Verdict.BUILD_FAILED}
    assert all(t.config["variant"] == "wide" for t in outcome.ok)
    ranks = {name: [i for i, c in enumerate(meter.asked) if c["variant"] == name] for name in ("wide", "plain")}
    assert sum(ranks["wide"]) / len(ranks["wide"]) + 2 < sum(ranks["plain"]) / len(ranks["plain"])


def test_it_stops_on_time_and_patience() -> None:
    ticks = iter(range(1000))
    outcome = search(SPACE, FakeMeter(), stop=Stop(seconds=5), clock=lambda: float(next(ticks)))
    assert outcome.why_stopped == "time"
    assert len(outcome.trials) == 5  # one tick to start, one before each trial but the first
    assert search(SPACE, FakeMeter(), stop=Stop(seconds=math.inf, patience=4)).why_stopped == "patience"


def test_the_watcher_hears_of_every_new_trial_and_interruption_leaves_the_search() -> None:
    heard: list[Trial] = []

    def watch(trial: Trial, outcome: Outcome) -> None:
        heard.append(trial)
        if len(heard) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(SPACE, FakeMeter(), stop=FOREVER, watch=watch)
    assert len(heard) == 3


def test_first_tries_begin_with_the_default_then_the_neighbours() -> None:
    near = [
        Trial({"variant": "wide", "WG": 64, "VEC": 8}, ok(1.0)),
        Trial({"variant": "wide", "WG": 32, "VEC": 8}, ok(2.0)),
    ]
    far = [Trial({"variant": "plain", "WG": 32, "VEC": 8}, ok(1.0))]
    tries = first_tries(SPACE, [near, far])
    assert tries[0] == FAMILY.default(WORKLOAD, SHEET)
    assert tries[1:4] == [near[0].config, far[0].config, near[1].config]
    assert {"variant": "wide", "WG": 64, "VEC": 2} in tries  # a variant's own default
    assert len({config_key(c) for c in tries}) == len(tries)


def test_times_count_at_the_studys_pace() -> None:
    """The same kernel in a slow spell is no slower kernel: nothing is preferred for when it was measured."""
    spells = iter([1.0, 2.0, 0.5] * 100)

    def measure(config: Config, best_ns: float | None) -> Measurement:
        pace = next(spells)
        return replace(ok(fake_ns(config) * pace), conditions={"pace": pace})

    outcome = search(SPACE, measure, stop=FOREVER)
    assert [t.cost_ns for t in outcome.ok] == sorted(fake_ns(t.config) for t in outcome.trials)
    abandoned = replace(Measurement.failed(Verdict.ABANDONED, ""), at_least_ns=4000.0, conditions={"pace": 2.0})
    assert math.isinf(Trial({}, abandoned).cost_ns)


def test_nothing_ends_a_search_before_what_it_must_have() -> None:
    """As where the default's source was changed: everything known is still true, but the default is gone."""
    must = {"variant": "wide", "WG": 32, "VEC": 4}
    whole = search(SPACE, FakeMeter(), stop=FOREVER)
    known = [trial for trial in whole.trials if trial.config != must]
    meter = FakeMeter()
    outcome = search(SPACE, meter, stop=Stop(0.0, trials=0, patience=1), seeds=[must], known=known[:-3], must=must)
    assert meter.asked == [must]
    assert outcome.why_stopped in ("time", "trials")
