"""Claims, leases and news on a shared study: what two workers do to each other, step by step and all at once."""

import math
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from fakes import FAMILY, SHEET, WORKLOAD, fake_ns, ok

import tuner.sharing
from kernels.space import Space
from kernels.spec import Config, Measurement, Verdict
from tuner.board import Trial
from tuner.sampler import LegalSampler, config_key, make_sampler
from tuner.search import Outcome, Stop, search
from tuner.sharing import Member, Shared
from tuner.storages import open_storage
from tuner.table import Table

SPACE = Space(FAMILY, WORKLOAD, SHEET)
STOP = Stop(math.inf, patience=10**9)


class Worker:
    """A board, its sampler, and the journal it writes."""

    def __init__(self, url: str, name: str, *, gone: frozenset[str] = frozenset(), key: str = "", lapses: float = 2):
        storage = open_storage(url)
        optuna.create_study(storage=storage, study_name="s", direction="minimize", load_if_exists=True)
        self.journal: list[Trial] = []
        self.name = name
        member = Member(url, storage, name, gone, lapses)
        self.board = Shared(member, "s", lambda config: key + str(sorted(config.items())), self.journal.append)
        self.chooser: LegalSampler = make_sampler("kiln", Table(SPACE), [], 0)

    def open(self, *known: Trial) -> "Worker":
        self.board.open(self.chooser, known)
        return self

    def die(self) -> None:
        """As after kill -9: no more beats, nothing given back."""
        self.board._stop.set()
        self.board._heart.join()
        self.board._claims.clear()

    def claim(self) -> Config:
        config = self.board.claim()
        assert config is not None
        return config


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"journal:{tmp_path / 'shared.log'}"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuner.sharing, "BEAT_S", 0.02)
    monkeypatch.setattr(tuner.sharing, "POLL_S", 0.01)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock that leases are judged by."""
    now = 0.0

    def forward(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(tuner.sharing, "_now", lambda: now)
    return forward


@pytest.mark.parametrize("sampler", ["kiln", "tpe", "grid"])
def test_workers_at_once_measure_everything_once_and_know_the_same(url: str, sampler: str) -> None:
    outcomes: list[Outcome] = []
    asked: list[Any] = []

    def measure(config: Config, best_ns: float | None) -> Measurement:
        asked.append(config_key(config))
        return ok(fake_ns(config))

    workers = [Worker(url, f"w{i}") for i in range(3)]

    def work(worker: Worker) -> None:
        outcomes.append(search(SPACE, measure, stop=STOP, sampler=sampler, board=worker.board))

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(Counter(asked).values()) == {1}
    assert len(asked) == SPACE.size
    assert [outcome.why_stopped for outcome in outcomes] == ["exhausted"] * 3
    known = [{config_key(t.config): t.cost_ns for t in outcome.trials} for outcome in outcomes]
    assert known[0] == known[1] == known[2]
    assert len(known[0]) == SPACE.size
    for worker in workers:  # own ones are not news
        assert {trial.worker for trial in worker.journal} <= {other.name for other in workers if other is not worker}
    assert sum(len(worker.journal) for worker in workers) == 2 * SPACE.size


def test_of_two_claims_the_first_stands(url: str) -> None:
    first, second = Worker(url, "a").open(), Worker(url, "b").open()
    wanted = first.claim()
    assert not second.board._claimed(wanted)
    assert second.claim() != wanted  # it goes on with another
    first.board.tell(Trial(wanted, ok(5.0)))
    (heard,) = second.board.news()
    assert (heard.config, heard.cost_ns, heard.worker) == (wanted, 5.0, "a")
    assert second.journal == [heard]
    assert not second.board._claimed(wanted)
    assert first.board.news() == []
    for worker in (first, second):
        worker.board.close()


def test_a_killed_workers_trial_is_taken_over_next(url: str, clock: Callable[[float], None]) -> None:
    first, second = Worker(url, "a").open(), Worker(url, "b").open()
    lost = first.claim()
    first.die()
    assert second.claim() != lost
    clock(tuner.sharing.GRACE_S - 1)
    second.board.news()
    assert second.claim() != lost  # its lease still runs
    clock(2)
    second.board.news()
    second.board.news()
    assert second.claim() == lost
    second.board.close()


def test_a_worker_that_beats_keeps_its_trial(url: str, clock: Callable[[float], None]) -> None:
    first, second = Worker(url, "a").open(), Worker(url, "b").open()
    held = first.claim()
    second.board.news()
    beats = set()
    for _ in range(4):
        clock(tuner.sharing.GRACE_S - 1)
        start = len(beats)
        while len(beats) == start:  # until its heart has beaten once more
            trial = next(t for t in second.board._storage.get_all_trials(0) if t.number == 0)
            beats.add(trial.system_attrs[tuner.sharing.BEAT])
        second.board.news()
    assert not second.board._claimed(held)
    first.board.close()
    second.board.close()


def test_a_former_process_of_this_journal_is_gone_at_once(url: str) -> None:
    first = Worker(url, "a").open()
    lost = first.claim()
    first.die()
    again = Worker(url, "a2", gone=frozenset({"a"})).open()
    again.board.news()
    again.board.news()
    assert again.claim() == lost
    again.board.close()


def test_an_interrupted_worker_gives_its_claim_back(url: str) -> None:
    first, second = Worker(url, "a").open(), Worker(url, "b").open()
    held = first.claim()
    assert second.claim() != held
    first.board.close()
    second.board.news()
    assert second.claim() == held
    second.board.close()


def test_who_wakes_up_too_late_still_tells_and_nobody_measures_it_again(
    url: str, clock: Callable[[float], None]
) -> None:
    sleeper, other = Worker(url, "a").open(), Worker(url, "b").open()
    slept_on = sleeper.claim()
    sleeper.board._stop.set()
    sleeper.board._heart.join()
    other.board.news()
    clock(tuner.sharing.GRACE_S + 1)
    other.board.news()
    sleeper.board.tell(Trial(slept_on, ok(7.0)))
    assert [(t.config, t.cost_ns) for t in other.board.news()] == [(slept_on, 7.0)]
    assert not other.board._claimed(slept_on)
    other.board.close()


def test_what_two_workers_were_lost_with_crashed(url: str, clock: Callable[[float], None]) -> None:
    poison = None
    for name in ("a", "b"):
        victim = Worker(url, name).open()
        claimed = victim.claim()
        assert poison is None or claimed == poison
        poison = claimed
        victim.die()
        watcher = Worker(url, f"watching {name}").open()
        watcher.board.news()
        clock(tuner.sharing.GRACE_S + 1)
        watcher.board.news()
        found = watcher.board.news()
        watcher.board.close()
    assert [(t.config, t.measurement.verdict) for t in found] == [(poison, Verdict.CRASHED)]
    assert watcher.journal == found
    cautious, brave = Worker(url, "c").open(), Worker(url, "d", lapses=math.inf).open()
    assert poison != cautious.claim()
    assert poison == brave.claim()
    brave.board.tell(Trial(poison, ok(3.0)))
    late = Worker(url, "e").open()  # who measured it in the end knows better than those who were lost
    assert [(t.config, t.cost_ns) for t in late.board.news()] == [(poison, 3.0)]
    for worker in (cautious, brave, late):
        worker.board.close()


def test_a_lost_runner_is_no_verdict_of_the_study(url: str) -> None:
    first, second = Worker(url, "a").open(), Worker(url, "b").open()
    config = first.claim()
    first.board.tell(Trial(config, Measurement.failed(Verdict.WORKER_LOST, "the cable")))
    assert second.board.news() == []
    assert second.claim() == config
    for _ in range(5):
        assert first.claim() != config
    second.board.tell(Trial(config, ok(4.0)))
    assert [(t.config, t.cost_ns) for t in first.board.news()] == [(config, 4.0)]
    first.board.close()
    second.board.close()


def test_what_a_journal_knows_is_told_once(url: str) -> None:
    config = next(SPACE.configs())
    failed = Measurement.failed(Verdict.BUILD_FAILED, "x" * 10_000)
    for _ in range(2):
        worker = Worker(url, "a").open(Trial(config, failed))
        assert worker.board.news() == []
        worker.board.close()
    assert len(worker.board._storage.get_all_trials(0)) == 1
    (heard,) = Worker(url, "b").open().board.news()
    assert heard.measurement.verdict is Verdict.BUILD_FAILED
    assert len(heard.measurement.log) < 10_000  # a storage is no place for compilers' logs


def test_a_result_under_another_key_is_not_believed(url: str) -> None:
    other = Worker(url, "a", key="another build").open()
    config = other.claim()
    other.board.tell(Trial(config, ok(5.0)))
    other.board.close()
    mine = Worker(url, "b").open()
    assert mine.board.news() == []
    mine.board.close()


def test_what_is_claimed_in_the_last_moment_is_waited_for(url: str) -> None:
    """Between this worker's look at the news and its own claim."""
    first, second = Worker(url, "a").open(), Worker(url, "b").open()
    for _ in range(SPACE.size - 1):
        config = first.claim()
        first.board.tell(Trial(config, ok(5.0)))
    assert len(second.board.news()) == SPACE.size - 1
    last = first.claim()
    assert second.board.claim() is None
    assert second.board.wait()
    first.board.tell(Trial(last, ok(4.0)))
    assert second.board.wait()  # there is something to hear
    assert [trial.config for trial in second.board.news()] == [last]
    assert not second.board.wait()
    first.board.close()
    second.board.close()


def test_the_last_trial_of_a_dead_worker_is_waited_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuner.sharing, "GRACE_S", 0.2)
    dead = Worker(url, "a").open()
    lost = dead.claim()
    dead.die()
    asked: list[Config] = []

    def measure(config: Config, best_ns: float | None) -> Measurement:
        asked.append(config)
        return ok(fake_ns(config))

    outcome = search(SPACE, measure, stop=STOP, board=Worker(url, "b").board)
    assert outcome.why_stopped == "exhausted"
    assert len(asked) == len(outcome.trials) == SPACE.size
    assert lost in asked
