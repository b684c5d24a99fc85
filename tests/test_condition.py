"""A phone's battery, temperature and room, and the gate before a trial. No phone, and no time passes."""

from collections.abc import Sequence

import pytest

from harness.adb import condition
from harness.adb.client import Adb
from harness.adb.condition import Condition, Gate, parse
from harness.errors import KilnError

TEXT = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 500000
  status: 2
  level: 81
  scale: 100
  voltage: 4123
  temperature: 345
  technology: Li-ion
Thermal Status: 1
/dev/block/dm-5      111345608 40345608 71000000  37% /storage/emulated/0/Android/obb
"""
COOL = Condition(80, 30.0, True, 0, 1 << 33)


def test_android_s_own_words_are_read() -> None:
    assert parse(TEXT) == Condition(81, 34.5, True, 1, 71000000 << 10)
    assert parse("  present: false\n  level: 0\n").battery_percent is None, "a board without a battery"
    assert parse("") == Condition(None, None, None, None, None)
    assert parse("  AC powered: false\n  temperature: -25\n") == Condition(None, -2.5, False, None, None)


@pytest.mark.parametrize(
    ("now", "low"),
    [
        (COOL, None),
        (Condition(15, 30.0, False, 0, None), None),
        (Condition(14, 30.0, False, 0, None), "its battery is at 14 %, and phones save power below 15 %: charge it"),
        (Condition(3, 30.0, True, 0, None), "its battery is at 3 %, and phones save power below 15 %: let it charge"),
        (
            Condition(80, 30.0, True, 0, 5 << 20),
            "its disk is full (5 MiB free): free 64 MiB, for its driver's compiler",
        ),
        (Condition(None, None, None, None, None), None),
    ],
)
def test_what_stops_a_study(now: Condition, low: str | None) -> None:
    assert now.low == low


def test_what_is_waited_for() -> None:
    assert COOL.warm(37.0) is None
    assert Condition(80, 37.0, True, 1, None).warm(37.0) is None
    assert Condition(80, 37.1, True, 0, None).warm(37.0) == "its battery has 37.1 °C, to fall to 37 °C"
    both = Condition(80, 41.0, True, 3, None).warm(35.5)
    assert (
        both == "its battery has 41.0 °C, to fall to 35.5 °C and its thermal status is severe, to become light at most"
    )
    assert Condition(80, None, True, 9, None).warm(37.0) == "its thermal status is 9, to become light at most"


class Day:
    """A clock that `sleep` moves, and what the phone says at each look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, looks: Sequence[Condition]) -> None:
        self.now, self.said, self.looks = 0.0, list[str](), list(looks)
        monkeypatch.setattr(
            condition, "look", lambda phone: self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        )
        self.gate = Gate(Adb("adb", "S"), 37.0, self.said.append, lambda: self.now, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def warm(celsius: float) -> Condition:
    return Condition(80, celsius, True, 0, 1 << 33)


def test_a_cool_phone_is_looked_at_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    day = Day(monkeypatch, [COOL, COOL, COOL])
    for _ in range(100):
        day.gate.settle()
        day.now += 0.15
    assert len(day.looks) == 1, "two looks in fifteen seconds"
    assert (day.gate.waited_s, day.said) == (0.0, [])


def test_a_warm_phone_cools_a_degree_further(monkeypatch: pytest.MonkeyPatch) -> None:
    day = Day(monkeypatch, [warm(38.2), warm(37.0), warm(36.4), warm(36.0), warm(50.0)])
    day.gate.settle()
    assert day.said == ["waiting for phone S to cool: its battery has 38.2 °C, to fall to 37 °C"]
    assert day.gate.waited_s == day.now == 15.0
    day.gate.settle()
    assert day.now == 15.0, "it has just been looked at"


def test_a_phone_that_stays_warm_stops_the_study(monkeypatch: pytest.MonkeyPatch) -> None:
    day = Day(monkeypatch, [warm(45.0)])
    with pytest.raises(KilnError, match=r"did not cool in 15 minutes: .*45.0 °C.*run the same command.*--cool-below"):
        day.gate.settle()
    assert 900 < day.gate.waited_s == day.now < 920


def test_a_battery_that_runs_low_while_it_cools(monkeypatch: pytest.MonkeyPatch) -> None:
    day = Day(monkeypatch, [warm(45.0), Condition(14, 44.0, False, 0, None)])
    with pytest.raises(
        KilnError, match=r"phone S is not fit to measure: its battery is at 14 %.*charge it; everything"
    ):
        day.gate.settle()
    assert day.gate.waited_s > 0


def test_a_phone_without_a_thermometer_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    day = Day(monkeypatch, [Condition(80, None, True, None, None)])
    for _ in range(3):
        day.gate.settle()
        day.now += 20
    assert day.said == ["phone S tells no temperature: nothing waits for it to cool"]
