"""Several runs on one study: who measures what, what came of it, and what a worker that is gone leaves behind.

The study of an Optuna storage only coordinates. A worker measures, writes its own journal, then tells the study; what
others told comes into this run's journal and outcome.

**Claims.** A claim is a running trial that is created together with its parameters, in one step, which every storage
orders: trial numbers are the order of the claims. After its own claim a worker therefore sees every earlier one. Where
an earlier one of the same configuration lives or has succeeded, it gives its own back and asks again. Of two claims of
one configuration the first stands, so none is measured twice.

**Leases.** While it measures, a worker counts a number in its trial up. One that has not moved for GRACE_S, by the
observer's own clock, belongs to a worker that is gone: hosts need not agree about the time. The trial is then closed
as pruned, which only one observer can do, and its configuration is free again. A worker that wakes up later finds its
trial closed and adds what it found as another one.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from harness.journal import plain
from harness.records import from_json, to_json
from kernels.spec import Config, Measurement, Verdict
from tuner.board import Trial, attributes, ending, finished
from tuner.sampler import LegalSampler, config_key, config_of, trial_params
from tuner.storages import speaking

BEAT_S = 1.0
GRACE_S = 10.0  # without a beat: the worker is gone
POLL_S = 0.2

# User attributes of a trial beside those of tuner.sampler.
WORKER = "worker"
KEY = "key"  # harness.journal.trial_key: what must be equal for the result to be this run's
MEASUREMENT = "measurement"
GIVEN_BACK = "given_back"
BEAT = "kiln:beat"  # system attribute
_LOG_BYTES = 4_000  # of a compiler's log that go into the storage

Key = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Member:
    """One run among those that work on a storage."""

    url: str  # for people, by way of `tuner.storages.speaking`
    storage: BaseStorage
    worker: str  # unique, and stable for the process
    gone: frozenset[str]  # workers that are known to have ended
    most_lapses: float  # workers lost with one configuration before it is to blame


class Shared:
    """A board that several workers share: see `tuner.board.Board`. For one search."""

    def __init__(
        self, member: Member, study_name: str, key_of: Callable[[Config], str], record: Callable[[Trial], None]
    ) -> None:
        """`key_of` a configuration must be equal for a result to be this run's; `record` writes its journal."""
        self._member, self._name, self._key_of, self._record = member, study_name, key_of, record
        self._storage = member.storage
        with speaking(member.url):
            self._study_id = self._storage.get_study_id_from_name(study_name)
        self._claims: dict[Key, int] = {}  # what this worker measures → trial id
        self._done: set[Key] = set()  # measured by anybody
        self._mine: set[Key] = set()  # of them what this run has without hearing of it
        self._heard: set[int] = set()  # numbers of trials that are over and dealt with
        self._left: set[Key] = set()  # this run's runner was lost over them; others may try
        self._lapsed: Counter[Key] = Counter()
        self._loser: dict[Key, str] = {}  # the last worker that was lost over it
        self._beats: dict[int, tuple[int, float]] = {}  # trial number → its beat and when it was first seen
        self._pending: set[Key] = set()
        self._news: list[Trial] = []
        self._stop = threading.Event()
        self._heart = threading.Thread(target=self._keep_beating, daemon=True)

    def open(self, chooser: LegalSampler, known: Sequence[Trial]) -> list[Trial]:
        """See Board. What this run's journal knows and the study does not, is told first."""
        self._chooser = chooser
        kept = [trial for trial in known if chooser.close(trial.config)]
        self._mine = {config_key(trial.config) for trial in kept}
        with speaking(self._member.url):
            self._look(reap=False)
            for trial in kept:
                if config_key(trial.config) not in self._done:
                    self._add(trial)
        self._heart.start()
        return kept

    def news(self) -> list[Trial]:
        """See Board. On disk in this run's journal when this returns."""
        with speaking(self._member.url):
            self._look()
        found, self._news = self._news, []
        for trial in found:
            self._record(trial)
        return found

    def claim(self) -> Config | None:
        """See Board."""
        with speaking(self._member.url):
            while self._chooser.left:
                study = optuna.load_study(study_name=self._name, storage=self._storage, sampler=self._chooser)
                config = self._chooser.propose(study)
                if config is None or self._claimed(config):
                    return config
        return None

    def _claimed(self, config: Config) -> bool:
        """Whether a configuration is this worker's now; of several claims the first stands."""
        params, key = trial_params(config), config_key(config)
        claim = create_trial(
            state=TrialState.RUNNING,
            params=params,
            distributions={name: self._chooser.distributions[name] for name in params},
            user_attrs={WORKER: self._member.worker},
            system_attrs={BEAT: 0},
        )
        trial_id = self._storage.create_new_trial(self._study_id, claim)
        number = self._storage.get_trial_number_from_id(trial_id)
        self._claims[key] = trial_id
        living = self._look()
        if key not in self._done and number == min((n for n, held in living.items() if held == key), default=None):
            return True
        self._give_back(key)
        return False

    def foresee(self, config: Config, count: int) -> list[dict[str, Any]]:
        """See Board. What the others will claim until then, nobody foresees."""
        return []

    def tell(self, trial: Trial) -> None:
        """See Board. The trial is in this run's journal already."""
        key = config_key(trial.config)
        with speaking(self._member.url):
            if trial.measurement.verdict is Verdict.WORKER_LOST:  # no verdict of anybody: another worker may try
                self._left.add(key)
                self._give_back(key)
                return
            self._mine.add(key)
            trial_id = self._claims.pop(key)
            try:
                for name, value in self._told(trial).items():
                    self._storage.set_trial_user_attr(trial_id, name, value)
                self._storage.set_trial_state_values(trial_id, *ending(trial))
            except RuntimeError:  # finished already: this worker was taken for gone
                self._add(trial)
            self._done.add(key)

    def wait(self) -> bool:
        """See Board. It looks again first: what the sampler found taken may have been claimed since the last look."""
        with speaking(self._member.url):
            self._look()
        if self._pending or self._news or self._chooser.left:
            time.sleep(POLL_S)
            return True
        return False

    def close(self) -> None:
        """See Board."""
        self._stop.set()
        if self._heart.is_alive():
            self._heart.join(timeout=GRACE_S)
        with contextlib.suppress(Exception):  # where the storage is away, the leases run out
            for key in list(self._claims):
                self._give_back(key)

    # ------------------------------------------------------------ trials

    def _look(self, reap: bool = True) -> dict[int, Key]:
        """Take in what changed, close what belongs to nobody any more; returns the living claims, own ones too."""
        living: dict[int, Key] = {}
        freed: list[Key] = []
        for trial in self._storage.get_all_trials(self._study_id, deepcopy=False):
            if trial.number in self._heard or not trial.params:
                continue
            key = config_key(config_of(trial.params))
            if trial.state.is_finished():
                self._heard.add(trial.number)
                freed += self._over(trial, key)
                continue
            living[trial.number] = key
            if reap and self._is_gone(trial):
                self._lapse(trial)  # heard of as ended at the next look, whoever did it
        for key in freed:
            if key not in self._done | self._mine | self._left and key not in living.values():
                self._chooser.reopen(dict(key))
        self._blame(living)
        self._pending = {key for key in living.values() if key not in self._done and key not in self._claims}
        return living

    def _over(self, trial: FrozenTrial, key: Key) -> list[Key]:
        """Deal with a trial that has ended; what it leaves free."""
        if trial.state is not TrialState.PRUNED:
            self._hear(trial, key)
            return []
        if not trial.user_attrs.get(GIVEN_BACK):
            self._lapsed[key] += 1
            self._loser[key] = trial.user_attrs[WORKER]
        return [key]

    def _blame(self, living: Mapping[int, Key]) -> None:
        """What workers were lost over again and again, and nobody has measured or is measuring, counts as crashed."""
        for key, count in self._lapsed.items():
            if count >= self._member.most_lapses and key not in self._done | self._mine and key not in living.values():
                log = f"{count} workers were lost while measuring this; --retry-crashed tries it again"
                self._done.add(key)
                self._chooser.close(dict(key))
                crashed = Measurement.failed(Verdict.CRASHED, log)
                self._news.append(Trial(dict(key), crashed, self._loser[key]))

    def _hear(self, trial: FrozenTrial, key: Key) -> None:
        """What somebody measured, if it is what this run would have measured."""
        config, told = dict(key), trial.user_attrs
        if told.get(KEY) != self._key_of(config):
            return
        if key not in self._done and key not in self._mine:
            self._news.append(Trial(config, from_json(told[MEASUREMENT]), told[WORKER]))
        self._done.add(key)

    def _add(self, trial: Trial) -> None:
        """Tell the study of a trial that it has no claim of."""
        self._storage.create_new_trial(self._study_id, finished(trial, self._chooser, self._told(trial)))

    def _told(self, trial: Trial) -> dict[str, Any]:
        """A trial's user attributes. Samples stay in the journal of whoever took them."""
        record = json.loads(json.dumps(to_json(trial.measurement), default=plain))
        measured = {name: value for name, value in record.items() if name != "samples_ns"}
        if "log" in measured:
            measured["log"] = measured["log"][:_LOG_BYTES]
        who = {
            WORKER: trial.worker or self._member.worker,
            KEY: self._key_of(trial.config),
            MEASUREMENT: measured,
        }
        return {**attributes(trial.measurement), **who}

    # ------------------------------------------------------------ leases

    def _is_gone(self, trial: FrozenTrial) -> bool:
        worker = trial.user_attrs.get(WORKER)
        if worker == self._member.worker:
            return False
        beat, now = trial.system_attrs.get(BEAT, 0), _now()
        seen, since = self._beats.setdefault(trial.number, (beat, now))
        if seen != beat:
            self._beats[trial.number] = (beat, now)
            return worker in self._member.gone
        return worker in self._member.gone or now - since > GRACE_S

    def _lapse(self, trial: FrozenTrial) -> None:
        """Close a trial whose worker is gone."""
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, trial.number)
        with contextlib.suppress(RuntimeError):  # another observer was faster, or the worker itself
            self._storage.set_trial_state_values(trial_id, TrialState.PRUNED)

    def _give_back(self, key: Key) -> None:
        trial_id = self._claims.pop(key)
        with contextlib.suppress(RuntimeError):  # it lapsed in between
            self._storage.set_trial_user_attr(trial_id, GIVEN_BACK, True)
            self._storage.set_trial_state_values(trial_id, TrialState.PRUNED)

    def _keep_beating(self) -> None:
        beat = 0
        while not self._stop.wait(BEAT_S):
            beat += 1
            for trial_id in list(self._claims.values()):
                # Finished in this moment, or the storage is away, which the next call of the search will say.
                with contextlib.suppress(Exception):
                    self._storage.set_trial_system_attr(trial_id, BEAT, beat)
        with contextlib.suppress(Exception):
            self._storage.remove_session()


def _now() -> float:
    """Seconds of this observer's own clock."""
    return time.monotonic()
