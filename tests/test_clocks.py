import pytest

from harness import clocks
from harness.clocks import Relation


def test_bounds_of_many_launches_meet_in_microseconds() -> None:
    offset = 123_456_789
    host = [(1000 * i, 1000 * i + 900) for i in range(50)]
    queued = [before + 37 * i % 900 + offset for i, (before, _) in enumerate(host)]
    found = clocks.of_enqueues(queued, host, queued[-1] + 50, host[-1][1] + 10_000)
    assert found.agrees
    assert abs(found.offset_ns - offset) <= found.uncertainty_ns <= 50
    assert abs(found.host_ns(queued[7]) - (queued[7] - offset)) <= 50


def test_an_end_bounds_the_clock_too() -> None:
    """One launch with a wide enqueue: that it had ended when the queue had finished says more."""
    loose = clocks.of_enqueues([5000], [(0, 1000)], 5100, 10_000)
    tight = clocks.of_enqueues([5000], [(0, 1000)], 5100, 150)
    assert loose == Relation(4500, 500, True)
    assert tight.agrees
    assert (tight.offset_ns - tight.uncertainty_ns, tight.offset_ns + tight.uncertainty_ns) == (4950, 5000)


def test_stamps_that_contradict_each_other_say_so() -> None:
    found = clocks.intersect([(0, 10), (100, 110), (0, 12)])
    assert not found.agrees
    assert found.offset_ns == 6
    assert found.uncertainty_ns == 55
    with pytest.raises(ValueError, match="no launch"):
        clocks.intersect([])


def test_one_machine_has_one_clock() -> None:
    assert clocks.machines([((1100, 1900), (1000, 2000)), ((3100, 3900), (3000, 4000))]) == Relation(0, 0, True)


def test_another_machines_clock_is_bounded_by_the_answers() -> None:
    far = 10**12
    found = clocks.machines([((far + 1100, far + 1900), (1000, 2000)), ((far + 5010, far + 5800), (5000, 5805))])
    assert found.agrees
    assert abs(found.offset_ns - far) <= found.uncertainty_ns <= 10


def test_a_runner_without_host_times_is_bounded_by_its_answer() -> None:
    found = clocks.of_request(7000, 7500, 1000, 1900)
    assert found == Relation(5800, 200, True)
