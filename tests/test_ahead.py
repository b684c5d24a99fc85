"""harness/ahead.py: builders make what the measuring runner then finds, stand still on demand, and may die of it."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import fake_runner
import pytest
import toy_family as toy

import harness.ahead
from harness.ahead import Ahead, opened
from harness.candidate import Candidate
from harness.devices import DeviceChoice, sheet_from
from harness.measure import Meter
from harness.supervisor import Supervisor
from kernels.spec import Verdict

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="builders are for Linux")

PAPER = DeviceChoice(
    "paper",
    (sys.executable, str(Path(fake_runner.__file__))),
    {**fake_runner.DEVICE, "platform_name": "Portable Computing Language"},
    sheet_from(fake_runner.DEVICE),
    python_runner=True,
)
LONG_S = 120.0  # for what takes a moment on a machine with nothing else to do


def candidate(source: str = toy.SOURCE, **params: int) -> Candidate:
    """Of the toy family; the paper runner does what its source says."""
    family = replace(toy.FAMILY, variants=(replace(toy.PLAIN, source=source),))
    return Candidate(family, toy.workload(), toy.PLAIN.config(**params))


@contextmanager
def builders(count: int = 1) -> Iterator[Ahead]:
    ahead = Ahead(PAPER.command, PAPER, launches=True, cores=count)
    try:
        yield ahead
    finally:
        ahead.close()


def measured(ahead: Ahead, one: Candidate) -> None:
    """Nothing, instead of building and checking it."""
    with ahead.beside(one):
        pass


def until(what: Callable[[], object]) -> None:
    end = time.monotonic() + LONG_S
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def runners(ahead: Ahead) -> list[int]:
    """Process numbers of the builders' runners."""
    children = [builder.supervisor._child for builder in ahead._builders]
    return [child._process.pid for child in children if child is not None]


def stands_still(process: int) -> bool:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_what_is_foreseen_is_built_once_and_found_ready() -> None:
    with builders() as ahead:
        ahead.want([candidate(WG=16), candidate(WG=64)])
        until(lambda: ahead.counts.built == 2)
        ahead.want([candidate(WG=16)])
        measured(ahead, candidate(WG=16))
        measured(ahead, candidate(WG=1))  # nobody foresaw it
        ahead.want([candidate(WG=1), candidate(BUG=1)])  # the first is being measured
        until(lambda: ahead.counts.built == 3)
        assert ahead.as_json() == {"built": 3, "failed": 0, "ready": 1, "waited": 0, "unforeseen": 1}


def test_what_is_wanted_no_more_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    with builders() as ahead:
        with ahead.still():
            ahead.want([candidate(WG=16)])
            ahead.want([candidate(WG=64)])
        until(lambda: ahead.counts.built == 1)
        measured(ahead, candidate(WG=64))
        measured(ahead, candidate(WG=16))
        assert ahead.counts.ready == ahead.counts.unforeseen == 1


@pytest.mark.parametrize("words", ["exit 7", "kill SEGV", "garbage", "fatal"])
def test_a_builder_that_dies_has_tried_it_for_the_last_time(words: str) -> None:
    with builders() as ahead:
        ahead.want([candidate(words), candidate()])
        until(lambda: ahead.counts.built == 1)  # by its successor
        ahead.want([candidate(words), candidate(WG=64)])
        until(lambda: ahead.counts.built == 2)
        assert ahead.counts.failed == 1
        measured(ahead, candidate(words))
        assert ahead.counts.ready == ahead.counts.waited == 0


def test_whoever_waits_for_a_builder_that_hangs_waits_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness.ahead, "_PATIENCE_S", 0.1)
    with builders() as ahead:
        ahead.want([candidate("hang")])
        until(lambda: runners(ahead) and ahead._at(harness.ahead._what(candidate("hang"))))
        measured(ahead, candidate("hang"))
        until(lambda: ahead.counts.failed == 1)  # it was killed, and the next one works
        assert ahead.counts.waited == 1
        ahead.want([candidate()])
        until(lambda: ahead.counts.built == 1)


def test_a_runner_that_does_not_start_is_not_started_again() -> None:
    ahead = Ahead(("/nowhere/runner",), PAPER, launches=True, cores=2)
    ahead.want([candidate(WG=wg, BUG=bug) for wg in (1, 16, 64) for bug in range(6)])
    until(lambda: not any(builder._thread and builder._thread.is_alive() for builder in ahead._builders))
    assert ahead.counts.built == 0
    assert ahead.counts.failed == 6  # three each
    measured(ahead, candidate(WG=1))
    ahead.close()


def test_builders_stand_still_while_a_timing_is_taken_and_go_on_after() -> None:
    with builders(count=2) as ahead:
        ahead.want([candidate("hang", WG=16), candidate("hang", WG=64), candidate()])
        until(lambda: len(runners(ahead)) == 2)
        for _ in range(3):
            with ahead.still():
                until(lambda: all(map(stands_still, runners(ahead))))
            until(lambda: not any(map(stands_still, runners(ahead))))
        with ahead.still():
            ahead._builders[0].kill()
            until(lambda: ahead.counts.failed == 1)
            assert ahead.counts.built == 0  # what waits is not begun
        until(lambda: ahead.counts.built == 1)


def test_no_more_compilers_than_cores() -> None:
    """While the runner that measures compiles, one builder of two stands still; while it need not, none does."""
    with builders(count=2) as ahead:
        ahead.want([candidate("hang", WG=16), candidate("hang", WG=64)])
        until(lambda: len(runners(ahead)) == 2)
        with ahead.beside(candidate()):
            until(lambda: [stands_still(process) for process in runners(ahead)] == [False, True])
        until(lambda: not any(map(stands_still, runners(ahead))))
        for builder in ahead._builders:
            builder.kill()
        ahead.want([candidate(WG=64)])
        until(lambda: ahead.counts.built == 1)
        ahead.want([candidate("hang", BUG=1), candidate("hang", BUG=2)])
        until(lambda: len(runners(ahead)) == 2)
        with ahead.beside(candidate(WG=64)):
            until(lambda: not any(map(stands_still, runners(ahead))))


def test_a_runner_that_starts_meanwhile_stands_still_too() -> None:
    supervisor = Supervisor(PAPER.command)
    supervisor.freeze(True)
    greeter = threading.Thread(target=supervisor.hello)
    greeter.start()
    until(lambda: supervisor._child is not None and stands_still(supervisor._child._process.pid))
    assert greeter.is_alive()
    supervisor.freeze(False)
    greeter.join(LONG_S)
    assert not greeter.is_alive()
    supervisor.close()


def test_closing_leaves_nobody_behind_even_one_that_stands_still() -> None:
    with builders(count=2) as ahead:
        ahead.want([candidate("hang"), candidate("hang", WG=64)])
        until(lambda: len(runners(ahead)) == 2)
        left = runners(ahead)
        with ahead.still():
            ahead.close()
        assert not [process for process in left if Path(f"/proc/{process}").exists()]


def test_nobody_builds_ahead_where_it_was_not_seen_to_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    def has_builders(device: DeviceChoice, wanted: bool = True) -> bool:
        with opened(device, wanted) as (command, ahead):
            assert (ahead is None) == (command == device.command)
            return ahead is not None

    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1})
    assert has_builders(PAPER)
    assert not has_builders(PAPER, wanted=False)
    assert not has_builders(replace(PAPER, python_runner=False))  # a native runner
    assert not has_builders(replace(PAPER, description=fake_runner.DEVICE))
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0})
    assert not has_builders(PAPER)


# ---------------------------------------------------------------- on devices


def test_the_runner_that_measures_finds_what_a_builder_made(
    device: DeviceChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1})
    with opened(replace(device, python_runner=True)) as (command, ahead), Supervisor(command) as supervisor:
        assert ahead is not None
        ahead.want([candidate(WG=16), candidate(BUG=toy.NO_BUILD), candidate(WG=64)])
        until(lambda: ahead.counts.built == 2)
        meter = Meter(supervisor, device.sheet, ahead)
        for wg in (16, 64):
            found = meter.measure(candidate(WG=wg), budget_s=0.05)
            assert found.verdict is Verdict.OK, found.log
            assert found.build_cached
        own = meter.measure(candidate(WG=1), budget_s=0.05)
        assert (own.verdict, own.build_cached) == (Verdict.OK, False)
        assert meter.measure(candidate(BUG=toy.NO_BUILD), budget_s=0.05).verdict is Verdict.BUILD_FAILED
        assert ahead.as_json() == {"built": 2, "failed": 1, "ready": 2, "waited": 0, "unforeseen": 1}
