"""harness/racing.py, and the real finals on a simulated device: never a wrong winner that was reported as decided."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from fakes import FAMILY, SHEET, WORKLOAD
from simulated import Clock, SimulatedMeter, by_config, probed, simulate

from harness import racing
from harness.answers import Run
from harness.candidate import Candidate
from harness.contest import MOST_ROUNDS, ROUNDS, compete
from harness.timing import TIE
from kernels.spec import Verdict
from tuner.finals import Final, Finalist, Winner, decide

# ---------------------------------------------------------------- one candidate against the incumbent


def sampled(
    clock: Clock, true_ns: float, rival_ns: float | None, pace: Callable[[], float] = lambda: 1.0, budget_s: float = 0.2
) -> tuple[racing.Sampled, int]:
    """What came of it, and how many launches it took; the budget is of device time."""
    taken = 0

    def run(samples: int, above_ns: int | None) -> Run:
        nonlocal taken
        taken += samples
        return clock.run(true_ns, samples)

    found = racing.sample(run, budget_s, rival_ns, pace, clock=lambda: clock.now_ns / 1e9)
    return found, taken


def test_a_hopeless_candidate_costs_three_launches() -> None:
    for seed in range(50):
        found, taken = sampled(Clock(seed), 10e6, 1e6)
        assert (found.why, taken) == (Verdict.ABANDONED, 3)
        assert found.at_least_ns == min(found.times_ns)


def test_a_slow_spell_is_not_the_candidates_fault() -> None:
    """It runs 1.9 times slower than the incumbent was measured, and so does the incumbent."""
    calls = 0

    def pace() -> float:
        nonlocal calls
        calls += 1
        return 1.9

    steady = Clock(1, noise=0.01, drift=0.0)
    found, _ = sampled(steady, 1.9e6, 1e6, pace)
    assert (found.why, calls) == (None, 1)
    # Where it is four times slower, the spell explains a half of it.
    found, _ = sampled(Clock(1, noise=0.01, drift=0.0), 4e6, 1e6, pace)
    assert (found.why, calls) == (Verdict.ABANDONED, 2)
    assert found.at_least_ns == pytest.approx(4e6 / 1.9, rel=0.5)


def test_near_the_incumbent_it_goes_on_until_they_are_apart() -> None:
    quiet = {"noise": 0.05, "drift": 0.0}
    far = [sampled(Clock(seed, **quiet), 1.4e6, 1e6)[1] for seed in range(20)]
    near = [sampled(Clock(seed, **quiet), 1.02e6, 1e6)[1] for seed in range(20)]
    assert np.median(far) < 20 < 2 * 20 < np.median(near)
    for seed in range(20):
        found, _ = sampled(Clock(seed, **quiet), 1.04e6, 1e6, budget_s=60.0)
        assert found.why is None
        assert racing.settled(found.times_ns, 1e6) or len(found.times_ns) >= racing.MAX_SAMPLES


def test_the_budget_ends_what_cannot_be_told_apart() -> None:
    clock = Clock(3, noise=0.1)
    begun = clock.now_ns
    sampled(clock, 1e6, 1e6, budget_s=0.1)
    assert clock.now_ns - begun < 0.2e9


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
}


def candidate(variant: str, wg: int, vec: int) -> Candidate:
    return Candidate(FAMILY, WORKLOAD, {"variant": variant, "WG": wg, "VEC": vec})


def held(field: str, seed: int, monkeypatch: pytest.MonkeyPatch, budget_s: float = 60.0) -> tuple[Winner, Final]:
    """One run of the finals as a tuning run holds them."""
    clock = Clock(seed)
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
    for seed in range(40):
        winner, final = held(field, seed, monkeypatch, budget_s)
        seen.append((winner.finalist.candidate, winner.tied))
        if true_us(field, winner) > TIE * best:
            assert winner.tied > 0 or winner.finalist is final.default, f"seed {seed}: {winner.finalist.candidate}"
        if winner.finalist is not final.default:
            assert true_us(field, winner) < FIELDS[field][DEFAULT], f"seed {seed}: slower than the default"
    for first in range(0, 40, 10):
        assert repeatable(seen[first : first + 10])


def repeatable(runs: Sequence[tuple[Candidate, int]]) -> bool:
    """One winner in nine of ten runs, or ties where it differs."""
    usual, times = Counter(candidate for candidate, _ in runs).most_common(1)[0]
    others = [tied for candidate, tied in runs if candidate != usual]
    return times >= 9 or all(tied > 0 for tied in others)


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
        assert final.median_ns(left) / final.default.median_ns == pytest.approx(26 / 21, rel=0.1)
    assert np.median(left_after) <= 6
    assert max(left_after) < ROUNDS
