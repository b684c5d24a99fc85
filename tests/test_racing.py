"""harness/racing.py, and the real finals on a simulated device: never a wrong winner that was reported as decided."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from fakes import FAMILY, SHEET, WORKLOAD, fake_ns
from simulated import Clock, SimulatedMeter, by_config, probed, simulate

from harness import racing
from harness.answers import Run
from harness.candidate import Candidate
from harness.contest import MOST_ROUNDS, ROUNDS, compete
from harness.timing import TIE, stats
from kernels.space import Space
from kernels.spec import Config, Measurement, Verdict
from tuner.choose import Searched, choose_layouts
from tuner.finals import Final, Finalist, Winner, decide, finalists
from tuner.search import Stop, search

# ---------------------------------------------------------------- one candidate against the incumbent


def sampled(
    clock: Clock, true_ns: float, best_ns: float | None, budget_s: float = 0.25, known_ns: float = 1.2e6
) -> tuple[racing.Sampled, int]:
    """What came of it, and how many launches it took; the budget is of device time. The reference takes 1.2 ms, and
    took `known_ns` when it was measured."""
    taken = 0

    def run(samples: int, above_ns: int | None) -> Run:
        nonlocal taken
        taken += samples
        return clock.run(true_ns, samples)

    beside = racing.Beside(lambda _, samples: clock.run(1.2e6, samples), known_ns, best_ns) if best_ns else None
    return racing.sample(run, budget_s, beside, clock=lambda: clock.now_ns / 1e9), taken


def test_a_hopeless_candidate_costs_three_launches() -> None:
    for seed in range(50):
        found, taken = sampled(Clock(seed, drift=0.0), 10e6, 1e6)
        assert (found.why, taken) == (Verdict.ABANDONED, 3)
        assert min(found.times_ns) > racing.ABANDON_ABOVE * 1e6


def test_a_slow_spell_is_not_the_candidates_fault() -> None:
    """The device is twice as slow as when its reference was measured: a good candidate is not abandoned for that."""
    for seed in range(20):
        found, _ = sampled(Clock(seed), 1e6, 0.5e6, known_ns=0.6e6)
        assert found.why is None
        assert np.median(found.times_ns) / found.pace == pytest.approx(0.5e6, rel=0.03)


def test_near_the_incumbent_it_goes_on_until_they_are_apart() -> None:
    far = [sampled(Clock(seed, noise=0.1), 1.4e6, 1e6)[1] for seed in range(20)]
    near = [sampled(Clock(seed, noise=0.1), 1.02e6, 1e6)[1] for seed in range(20)]
    assert np.median(far) < 40 < 1.5 * 40 < np.median(near)


def test_the_budget_ends_what_cannot_be_told_apart() -> None:
    clock = Clock(3, noise=0.1)
    begun = clock.now_ns
    sampled(clock, 1e6, 1e6, budget_s=0.1)
    assert clock.now_ns - begun < 0.2e9


def test_a_long_launch_needs_few_and_a_first_candidate_no_rival() -> None:
    assert sampled(Clock(0), 300e6, 290e6, known_ns=1.2e6)[1] == 3
    found, taken = sampled(Clock(0, drift=0.0), 1e6, None)
    assert found.pace == 1.0
    assert taken >= 7


def test_settled_asks_for_seven_and_for_a_narrow_interval() -> None:
    assert not racing.settled([100.0] * 6)
    assert racing.settled([100.0] * 7)
    assert not racing.settled([100.0, 200.0] * 10)
    assert racing.settled([99.0, 100.0, 101.0] * 20)
    assert racing.settled([150.0, 200.0] * 10, rival_ns=100.0)  # far behind, however far
    assert not racing.settled([*map(float, range(90, 111))], rival_ns=100.0)
    assert racing.settled([99.9, 100.0, 100.1] * 20, rival_ns=100.0)  # alike: nobody would notice


# ---------------------------------------------------------------- pairs


def test_beaten_needs_rounds_and_more_than_a_tie() -> None:
    assert not racing.beaten([100.0] * 9, [102.0] * 9)
    assert racing.beaten([100.0] * 10, [102.0] * 10)
    assert not racing.beaten([100.0] * 30, [100.4] * 30)  # within a tie, however sure
    assert not racing.beaten([100.0] * 4, [120.0] * 4)
    assert racing.beaten([100.0] * 5, [120.0] * 5)
    assert racing.beaten([100.0] * 5 + [500.0] * 9, [120.0] * 5)  # only common rounds count
    assert not racing.beaten([], [])


def test_equals_rarely_beat_each_other_however_often_one_looks() -> None:
    """The usual interval would, once in so many looks."""
    sent_away = decided = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        one, other = np.exp(0.03 * rng.standard_normal((2, MOST_ROUNDS))).tolist()
        looks = range(5, MOST_ROUNDS + 1, 2)
        sent_away += any(racing.beaten(one[:n], other[:n]) for n in looks)
        decided += any(racing.paired_ratio(one[:n], other[:n]).interval[0] > 1 for n in looks)
    assert sent_away <= 3 < 15 < decided


def test_in_question_until_apart_or_alike() -> None:
    rng = np.random.default_rng(0)
    noisy = (100 * np.exp(0.05 * rng.standard_normal(20))).tolist()
    assert racing.in_question([100.0] * 20, noisy)
    assert not racing.in_question([100.0] * 20, [120.0] * 20)
    assert not racing.in_question([120.0] * 20, [100.0] * 20)
    assert not racing.in_question([100.0] * 20, [100.2] * 20)


# ---------------------------------------------------------------- the finals

DEFAULT = ("plain", 64, 2)
FIELDS = {  # true times in µs of the default and of its challengers
    "clear": {DEFAULT: 130.0, ("plain", 32, 2): 104.0, ("wide", 32, 2): 100.0, ("wide", 128, 2): 112.0},
    "close": {DEFAULT: 130.0, ("plain", 32, 2): 101.5, ("wide", 32, 2): 100.0, ("wide", 128, 2): 103.0},
    "tie": {DEFAULT: 130.0, ("plain", 32, 2): 100.2, ("wide", 64, 2): 100.0, ("wide", 128, 2): 100.1},
    "default": {DEFAULT: 100.0, ("plain", 32, 2): 101.0, ("wide", 64, 2): 102.5, ("wide", 128, 2): 100.1},
    "slow": {DEFAULT: 21_000.0, ("plain", 32, 2): 20_300.0, ("wide", 64, 2): 20_000.0, ("wide", 128, 2): 26_000.0},
    "noisy": {DEFAULT: 21_000.0, ("plain", 32, 2): 20_250.0, ("wide", 64, 2): 20_000.0, ("wide", 128, 2): 20_150.0},
}
NOISE = {"noisy": 0.05}  # of a launch, where it is not the usual


def candidate(variant: str, wg: int, vec: int) -> Candidate:
    return Candidate(FAMILY, WORKLOAD, {"variant": variant, "WG": wg, "VEC": vec})


def held(field: str, seed: int, monkeypatch: pytest.MonkeyPatch, budget_s: float = 60.0) -> tuple[Winner, Final]:
    """One run of the finals as a tuning run holds them."""
    clock = Clock(seed, NOISE.get(field, 0.02))
    simulate(monkeypatch, clock)
    monkeypatch.setattr("harness.contest.time.monotonic", lambda: clock.now_ns / 1e9)
    meter = SimulatedMeter(SHEET, clock, by_config(FIELDS[field]))
    entrants = [candidate(*config) for config in FIELDS[field]]
    contest = compete(meter, entrants, probed(), budget_s=budget_s, stay=entrants[:1])  # type: ignore[arg-type]
    found = [Finalist(c.candidate, c.measurement.samples_ns) for c in contest.contestants]
    final = Final(1.0, tuple(found), found[0], None, {})
    return decide([final], SHEET)[1][0], final


def true_us(field: str, winner: Winner) -> float:
    config = winner.finalist.candidate.config
    return FIELDS[field][config["variant"], config["WG"], config["VEC"]]


@pytest.mark.parametrize("budget_s", [60.0, 0.5])
@pytest.mark.parametrize("field", FIELDS)
def test_a_wrong_winner_is_never_reported_as_decided(
    field: str, budget_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = min(FIELDS[field].values())
    seen: list[tuple[Candidate, int]] = []
    for seed in range(30):
        winner, final = held(field, seed, monkeypatch, budget_s)
        seen.append((winner.finalist.candidate, winner.tied))
        if true_us(field, winner) > TIE * best:
            assert winner.tied > 0, f"seed {seed}: {winner.finalist.candidate}"
        if winner.finalist is not final.default:
            assert true_us(field, winner) < FIELDS[field][DEFAULT], f"seed {seed}: slower than the default"
    for first in range(0, 30, 10):
        assert repeatable(seen[first : first + 10])


def repeatable(runs: Sequence[tuple[Candidate, int]]) -> bool:
    """One winner in nine of ten runs; or else the tie rule decided: no two runs that were sure have different ones."""
    _, times = Counter(candidate for candidate, _ in runs).most_common(1)[0]
    return times >= 9 or len({candidate for candidate, tied in runs if tied == 0}) <= 1


def test_the_simulation_would_notice_a_careless_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    """A majority of the rounds reports several wrong winners as decided."""
    monkeypatch.setattr("harness.timing._median_ranks", lambda count: (count // 2, count // 2))
    monkeypatch.setattr("harness.timing._sign_ranks", lambda count: (count // 2, count // 2))
    monkeypatch.setattr("harness.racing._LEVEL", 0.5)
    found = [held("noisy", seed, monkeypatch, 0.5)[0] for seed in range(40)]
    assert sum(winner.tied == 0 and true_us("noisy", winner) > TIE * 20_000 for winner in found) >= 3


def test_rounds_go_to_those_still_in_question(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = {config: [] for config in FIELDS["close"]}
    for seed in range(20):
        _, final = held("close", seed, monkeypatch)
        for config, finalist in zip(rounds, final.finalists, strict=True):
            rounds[config].append(len(finalist.samples_ns))
    default, _, best, third = rounds.values()
    assert min(default) >= ROUNDS
    assert max(default) > ROUNDS  # some need more to tell the best two apart
    assert np.median(third) < np.median(best)
    assert max(max(r) for r in rounds.values()) <= MOST_ROUNDS
    assert all(a == b for a, b in zip(best, default, strict=True))  # the best is never sent away


def test_a_clear_race_ends_early_for_those_who_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    left_after = []
    for seed in range(20):
        _, final = held("slow", seed, monkeypatch)
        left = final.finalists[3]  # three tenths slower
        left_after.append(len(left.samples_ns))
        # Its median is told at the pace of all rounds, not of the few it ran.
        assert final.median_ns(left) / final.default.median_ns == pytest.approx(26 / 21, rel=0.15)
    assert np.median(left_after) <= 6
    assert max(left_after) < ROUNDS


# ---------------------------------------------------------------- search and finals

PLAIN = {"variant": "plain", "WG": 64, "VEC": 1}  # the default


def found_by_a_whole_run(seed: int, monkeypatch: pytest.MonkeyPatch) -> Winner:
    """Sixteen trials of the real search, then the real finals, on one simulated device that never rests."""
    clock, known, best_ns = Clock(seed), 0.0, float("inf")
    simulate(monkeypatch, clock)
    monkeypatch.setattr("harness.contest.time.monotonic", lambda: clock.now_ns / 1e9)

    def true_ns(one: Candidate) -> float:
        return 1e6 * (0.85 + 0.15 * fake_ns(one.config) / 1000)  # steps of 3 %

    def measure(config: Config, _: float | None) -> Measurement:
        nonlocal known, best_ns
        mine_ns, default_ns = (true_ns(Candidate(FAMILY, WORKLOAD, each)) for each in (config, PLAIN))
        beside = racing.Beside(lambda _, samples: clock.run(default_ns, samples), known, best_ns) if known else None
        found = racing.sample(
            lambda samples, _: clock.run(mine_ns, samples), 0.25, beside, clock=lambda: clock.now_ns / 1e9
        )
        clock.now_ns += 1e9  # compiling
        paced = {"pace": found.pace}
        if found.why:
            return Measurement.failed(Verdict.ABANDONED, "", at_least_ns=min(found.times_ns), conditions=paced)
        told = stats(found.times_ns)
        known, best_ns = known or told.median_ns, min(best_ns, told.median_ns / found.pace)
        return Measurement(Verdict.OK, stats=told, samples_ns=found.times_ns, conditions=paced)

    outcome = search(Space(FAMILY, WORKLOAD, SHEET), measure, stop=Stop(float("inf"), trials=16), seeds=[PLAIN])
    item = Searched(WORKLOAD, 1, tuple(outcome.ok), PLAIN)
    ((_, layout),) = choose_layouts({FAMILY.name: FAMILY}, [item]).items()
    entrants = finalists(item, layout, lambda trial: Candidate(FAMILY, WORKLOAD, trial.config))
    meter: Any = SimulatedMeter(SHEET, clock, true_ns)
    contest = compete(meter, entrants, probed(), stay=entrants[:1])
    found = [Finalist(c.candidate, c.measurement.samples_ns) for c in contest.contestants]
    return decide([Final(1.0, tuple(found), found[0], None, {})], SHEET)[1][0]


def test_ten_whole_runs_give_one_winner_or_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    winners = [found_by_a_whole_run(seed, monkeypatch) for seed in range(10)]
    assert repeatable([(winner.finalist.candidate, winner.tied) for winner in winners])
    best = [fake_ns(winner.finalist.candidate.config) for winner in winners]
    assert sum(ns == 1000.0 for ns in best) >= 9
