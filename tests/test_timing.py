"""harness/timing.py: pure functions, so every answer here is known."""

import numpy as np
import pytest

from harness import timing


def sample(*spans: tuple[int, int]) -> list[list[int]]:
    return [[start - 2, start - 1, start, end] for start, end in spans]


def test_device_time_is_first_start_to_last_end() -> None:
    assert timing.durations([sample((100, 150), (170, 200)), sample((300, 310))]) == (100.0, 10.0)


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ([], "no samples"),
        ([[]], "no launches"),
        ([sample((10, 20)), sample((30, 25))], "sample 1, launch 0: the event ends 5 ns before it starts"),
        ([[[0, 0, 0, 0]]], "untouched"),
        ([sample((40, 40))], "zero ns"),
        ([sample((100, 110), (10, 20))], "last launch ends before its first starts"),
    ],
)
def test_stamps_that_cannot_be_true_are_named(samples: list[list[list[int]]], words: str) -> None:
    assert words in (timing.invalid(samples) or "")


def test_true_stamps_are_believed() -> None:
    assert timing.invalid([sample((10, 20), (20, 30))]) is None


def test_one_launch_of_several_may_take_no_time() -> None:
    assert timing.invalid([sample((10, 10), (10, 30))]) is None


def test_stats_are_repeatable_and_hold_the_median() -> None:
    times = np.random.default_rng(1).normal(1000, 50, 40).tolist()
    first, again = timing.stats(times), timing.stats(times)
    assert first == again
    assert first.median_ns == np.median(times)
    assert first.interval_ns[0] <= first.median_ns <= first.interval_ns[1]
    assert first.samples == 40


def test_stats_of_one_sample_and_of_none() -> None:
    assert timing.stats([5.0]).interval_ns == (5.0, 5.0)
    with pytest.raises(ValueError, match="at least one"):
        timing.stats([])


@pytest.mark.parametrize("count", [10, 51])
def test_the_interval_covers_the_true_median_about_95_times_in_100(count: int) -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        low, high = timing.stats(rng.exponential(100, count).tolist()).interval_ns
        hits += low <= 100 * np.log(2) <= high
    assert 180 <= hits <= 199


@pytest.mark.parametrize("count", [1, 2, 7, 21, 200])
def test_the_interval_is_what_resampling_gives(count: int) -> None:
    rng = np.random.default_rng(count)
    values = rng.exponential(100, count)
    medians = np.median(values[rng.integers(0, count, (20_000, count))], axis=1)
    ordered = np.sort(values)
    rank = np.searchsorted(ordered, timing.stats(values.tolist()).interval_ns)
    by_resampling = np.searchsorted(ordered, np.quantile(medians, (0.025, 0.975)))
    assert np.abs(rank - by_resampling).max() <= 1  # resampling is only approximate


@pytest.mark.parametrize("count", [7, 9, 13, 15, 30])
def test_a_paired_interval_leaves_the_truth_out_less_than_once_in_twenty(count: int) -> None:
    rng = np.random.default_rng(count)
    rounds = np.exp(0.05 * rng.standard_normal((2, 2000, count)))
    wrong = sum(timing.paired_ratio(one, other).decided for one, other in zip(*rounds.tolist(), strict=True))
    assert wrong <= 100


def test_pairing_cancels_what_both_rounds_share() -> None:
    shared = np.random.default_rng(3).uniform(1, 3, 30)  # a clock that wanders by a factor of three
    ratio = timing.paired_ratio((100 * shared).tolist(), (110 * shared).tolist())
    assert ratio.ratio == pytest.approx(1.1)
    assert ratio.interval == pytest.approx((1.1, 1.1))
    assert ratio.decided


def test_equal_candidates_are_not_decided() -> None:
    rng = np.random.default_rng(4)
    assert not timing.paired_ratio(rng.normal(100, 5, 30).tolist(), rng.normal(100, 5, 30).tolist()).decided


def test_unpaired_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="1 against 2"):
        timing.paired_ratio([1.0], [1.0, 2.0])


def test_drift_and_throttling_need_two_witnesses() -> None:
    slowing = [100.0] * 10 + [110.0] * 10 + [130.0] * 10
    assert timing.drift(slowing) == pytest.approx(0.3)
    assert timing.drift([1.0] * 5) == 0.0
    assert timing.throttled(slowing, 3000.0, 2000.0)
    assert not timing.throttled(slowing, 3000.0, 2900.0)
    assert not timing.throttled([100.0] * 30, 3000.0, 2000.0)
    assert not timing.throttled(slowing, None, 2000.0)


def test_timer_step() -> None:
    assert timing.timer_step([100, 400, 100, 140]) == 40
    assert timing.timer_step([7, 7]) is None
