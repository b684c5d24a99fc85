"""Verdicts and sessions: how often they cry wolf, what they overlook, on simulated machines; intervals by hand."""

from __future__ import annotations

import numpy as np
import pytest

from harness.sessions import BASE, CONTROL, OTHER, Session, Turn, best_way
from harness.verdicts import (
    ALPHA,
    Change,
    Failure,
    Finding,
    confirm,
    decide,
    sessions_of_confirming,
    sessions_of_screening,
    signed_ranks,
    student,
    typical_variance,
)


class Machine:
    """Two sides on a machine whose clock drifts, whose processes differ for life, and which somebody else uses too."""

    def __init__(
        self, seed: int, *, effects: dict[str, float] | None = None, offset: float = 0.02, busy: float = 0.4
    ) -> None:
        self.random = np.random.default_rng(seed)
        self.effects = effects or {}
        self.offset = offset  # standard deviation of a process's own pace, while it lives
        self.busy = busy  # part of the time in which a burst takes a core away
        self.pace = 1.0
        self.burst = False
        self.asked: list[tuple[str, int, bool]] = []

    def measure(self, workload: str, sessions: int, control: bool) -> list[Session]:
        self.asked.append((workload, sessions, control))
        return [self._session(workload, control) for _ in range(sessions)]

    def _session(self, workload: str, control: bool) -> Session:
        sides = (BASE, OTHER, CONTROL) if control else (BASE, OTHER)
        own = np.exp(self.random.normal(0, self.offset, len(sides)))
        own[1] *= self.effects.get(workload, 1.0)
        paces = self.pace * np.exp(np.cumsum(self.random.normal(0, 0.02, ROUNDS)))  # the clock walks, for everybody
        self.pace = float(paces[-1])
        bursts = np.zeros(ROUNDS)
        for number, chance in enumerate(self.random.random((ROUNDS, 2))):
            if chance[0] < 0.2:
                self.burst = bool(chance[1] < self.busy)
            bursts[number] = self.burst
        shape = (3, len(sides), ROUNDS)
        taken = 1.0 + bursts * self.random.exponential(0.6, shape)  # a core is taken away from a turn, or not
        times = np.array([1e6, 2e6, 1e6])[:, None, None] * paces * taken * np.exp(self.random.normal(0, 0.01, shape))
        times[0] *= own[:, None]
        return [
            {side: Turn(k, {"read": r, "madd": m}) for side, (k, r, m) in zip(sides, one.T.tolist(), strict=True)}
            for one in np.moveaxis(times, 2, 0)
        ]


ROUNDS = 24
WORKLOADS = [f"w{number}" for number in range(8)]


def alarms(found: dict[str, Finding]) -> set[str]:
    return {name for name, finding in found.items() if finding.change is not Change.NOISE}


@pytest.mark.parametrize(("offset", "busy"), [(0.0, 0.0), (0.05, 0.6)])
def test_unchanged_runs_raise_no_alarm(offset: float, busy: float) -> None:
    """Of 25 runs of eight unchanged workloads, at most one may err (ALPHA of them is 0.25)."""
    runs = [decide(WORKLOADS, Machine(seed, offset=offset, busy=busy).measure) for seed in range(25)]
    assert sum(bool(alarms(found)) for found in runs) <= 1


def test_fifteen_percent_in_one_of_eight_is_caught_on_a_busy_machine() -> None:
    runs = [decide(WORKLOADS, Machine(seed, effects={"w3": 1.15}).measure) for seed in range(20)]
    assert all(found["w3"].change is Change.REGRESSED for found in runs)
    assert all(alarms(found) == {"w3"} for found in runs)
    for found in runs:
        low, high = found["w3"].effect.interval  # type: ignore[union-attr]
        assert 1.0 < low < 1.2 < high * 1.15


def test_a_gain_is_seen_as_well_as_a_loss() -> None:
    found = decide(WORKLOADS, Machine(1, effects={"w0": 1 / 1.15, "w1": 1.3}).measure)
    assert (found["w0"].change, found["w1"].change) == (Change.IMPROVED, Change.REGRESSED)
    assert alarms(found) == {"w0", "w1"}


def test_a_quiet_machine_shows_three_percent() -> None:
    runs = [decide(["a"], Machine(seed, effects={"a": 1.03}, offset=0.003, busy=0).measure) for seed in range(20)]
    assert all(found["a"].change is Change.REGRESSED for found in runs)


def test_the_interval_holds_the_truth() -> None:
    """Of 60 intervals at 99 % more than three miss the truth once in 300 times."""
    machine = Machine(5, effects={"a": 1.08})
    missed = 0
    for _ in range(60):
        effect = confirm(machine.measure("a", 10, True), 0.01).effect
        assert effect is not None
        missed += not effect.interval[0] <= 1.08 <= effect.interval[1]
    assert missed <= 3


def test_suspects_are_measured_again_alone_with_a_control_and_judged_on_that() -> None:
    machine = Machine(2, effects={"w5": 1.2})
    found = decide(WORKLOADS, machine.measure)
    screening = [call for call in machine.asked if not call[2]]
    again = [call for call in machine.asked if call[2]]
    assert screening == [(name, 3, False) for name in WORKLOADS]
    suspects = {name for name, _, _ in again}
    assert "w5" in suspects
    assert again[0][1] == sessions_of_confirming(ALPHA / len(suspects) / 4)
    assert found["w5"].control is not None
    assert found["w5"].effect is not None
    assert found["w5"].effect.sessions == sum(count for name, count, _ in again if name == "w5")
    assert all((finding.control is not None) == (name in suspects) for name, finding in found.items())


def test_what_base_against_base_shows_is_no_regression() -> None:
    """A bias that all later processes share, as where memory fragments: the control has it too."""

    def measure(workload: str, sessions: int, control: bool) -> list[Session]:
        made = Machine(sessions).measure(workload, sessions, control)
        return [
            [{side: Turn(turn.kernel_ns * (1 if side == BASE else 1.1), turn.anchors_ns) for side, turn in one.items()}
             for one in session]
            for session in made
        ]  # fmt: skip

    finding = decide(["a"], measure)["a"]
    assert finding.change is Change.NOISE
    assert finding.control is not None
    assert finding.control.interval[0] > 1


def test_a_side_that_fails_is_a_finding() -> None:
    failures = {"a": (OTHER,), "b": (BASE,), "c": (BASE, OTHER)}
    found = decide(list(failures), lambda workload, *_: Failure(failures[workload], "wrong_result at M=1"))
    assert [found[name].change for name in failures] == [Change.BROKEN, Change.MENDED, Change.FAILED]
    assert found["a"].log == "wrong_result at M=1"
    assert found["a"].effect is None


def test_a_suspect_is_measured_on_while_it_looks_changed() -> None:
    """Noise of 10 % a process: 12 sessions seldom settle 15 %, up to 27 do more often, and what is none is let go."""
    slow, same = [], []
    for seed in range(12):
        machine = Machine(seed, effects={"a": 1.15}, offset=0.1, busy=0)
        slow.append((decide(["a"], machine.measure)["a"].change, sum(count for _, count, _ in machine.asked[1:])))
        machine = Machine(seed, offset=0.1, busy=0)
        same.append(decide(["a"], machine.measure)["a"].change)
    assert set(same) == {Change.NOISE}
    assert {count for _, count in slow} <= {0, 12, 18, 27}
    settled = {count for change, count in slow if change is Change.REGRESSED}
    assert len(settled) > 1


def test_few_workloads_get_more_sessions() -> None:
    assert [sessions_of_screening(count) for count in (0, 1, 3, 6, 8, 60)] == [8, 8, 8, 4, 3, 3]


# ---------------------------------------------------------------- by hand


def test_signed_ranks_by_hand() -> None:
    """Of ten sessions, P(W ≤ 3) = 5/1024 ≤ 0.005 < P(W ≤ 4): the fourth Walsh average from each end bounds it."""
    logs = [0.1 + 0.01 * number for number in range(10)]
    effect = signed_ranks(logs, 0.01)
    walsh = sorted((a + b) / 2 for i, a in enumerate(logs) for b in logs[i:])
    assert effect.interval == pytest.approx((np.exp(walsh[3]), np.exp(walsh[-4])))
    assert effect.confidence == pytest.approx(1 - 2 * 5 / 1024)
    assert effect.ratio == pytest.approx(np.exp(0.145))


def test_too_few_sessions_give_the_range_and_say_what_it_is_worth() -> None:
    effect = signed_ranks([0.0, 0.1, 0.3], 0.01)
    assert effect.interval == pytest.approx((1.0, np.exp(0.3)))
    assert effect.confidence == pytest.approx(0.75)


def test_sessions_of_confirming_can_decide_though_one_is_odd() -> None:
    for level in (0.01, 0.002, 0.0005):
        count = sessions_of_confirming(level)
        effect = signed_ranks([-0.001, *(0.1 + 0.001 * i for i in range(count - 1))], level)
        assert effect.confidence >= 1 - level
        assert effect.interval[0] > 1


def test_student_by_hand() -> None:
    """Variance (4 · 1 + 2 · 4) / 6 = 2 of three sessions, six degrees of freedom: t = 2.4469."""
    effect = student([-2.0, 0.0, 2.0], typical=1.0)
    assert effect.ratio == 1
    assert np.log(effect.interval) == pytest.approx((-2.4469 * (2 / 3) ** 0.5, 2.4469 * (2 / 3) ** 0.5), rel=1e-4)


def test_the_typical_variance_is_not_one_groups_outlier() -> None:
    random = np.random.default_rng(0)
    groups = [random.normal(0, 0.02, 3).tolist() for _ in range(200)] + [[0.0, 5.0, 9.0]]
    assert typical_variance(groups) == pytest.approx(0.02**2, rel=0.3)
    assert typical_variance([[1.0]]) == 0


def test_the_way_follows_the_noise() -> None:
    """Bursts on single turns: the fastest; a pace that jumps between the turns of a round: an anchor."""
    assert best_way(Machine(0, busy=0.9).measure("a", 12, False)) == "fastest sixth"
    random = np.random.default_rng(0)

    def turn() -> Turn:
        pace = float(np.exp(random.normal(0, 0.2)))
        return Turn(1e6 * pace, {"read": 2e6 * pace, "madd": 1e6 * float(np.exp(random.normal(0, 0.01)))})

    assert best_way([[{BASE: turn(), OTHER: turn()} for _ in range(24)] for _ in range(12)]) == "median / read"
