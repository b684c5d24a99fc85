"""Where the trials of one search stand: in Optuna's memory for a run on its own; `tuner.sharing` has it for several.

A board is asked what to measure next and told what came of it. One configuration is given out once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from kernels.spec import Config, Measurement, Verdict
from tuner.sampler import AT_LEAST, NOISE, VERDICT, LegalSampler, config_key, suggest, trial_params

_INTERVAL_SDS = 3.92  # a 95 % interval's width in standard deviations


@dataclass(frozen=True)
class Trial:
    """One measured configuration."""

    config: Config
    measurement: Measurement
    worker: str | None = None  # who measured it; None: this run or an earlier one with its journal

    @property
    def cost_ns(self) -> float:
        """Median device time at the study's pace, infinity where the verdict is not ok."""
        found = self.measurement
        return found.stats.median_ns / found.pace if found.stats else math.inf


class Board(Protocol):
    """What a search needs of the place where its trials stand. Every call may raise KilnError (a storage is away)."""

    def open(self, chooser: LegalSampler, known: Sequence[Trial]) -> list[Trial]:
        """Begin; `known` trials are not proposed. Returns those of them that are legal here."""

    def news(self) -> list[Trial]:
        """What other workers have finished since the last call."""

    def claim(self) -> Config | None:
        """The next configuration, for this worker alone; None where nothing is free at present."""

    def foresee(self, config: Config, count: int) -> list[dict[str, Any]]:
        """What will probably be claimed after `config`, the last claim; a guess that commits to nothing."""

    def tell(self, trial: Trial) -> None:
        """What came of a claim."""

    def wait(self) -> bool:
        """Where nothing is free: whether others are at work on what may come free, after having waited a moment."""

    def close(self) -> None:
        """End; claims that nothing was told of are given back."""


class Alone:
    """A study in memory, for one worker."""

    def open(self, chooser: LegalSampler, known: Sequence[Trial]) -> list[Trial]:
        """See Board."""
        self._chooser = chooser
        self._study = optuna.create_study(direction="minimize", sampler=chooser)
        self._asked: dict[tuple[tuple[str, Any], ...], optuna.Trial] = {}
        kept = [trial for trial in known if chooser.close(trial.config)]
        for trial in kept:
            self._study.add_trial(finished(trial, chooser, attributes(trial.measurement)))
        return kept

    def news(self) -> list[Trial]:
        """There are no others."""
        return []

    def claim(self) -> Config | None:
        """See Board."""
        if not self._chooser.left:
            return None
        asked = self._study.ask()
        config = suggest(asked, self._chooser)
        self._asked[config_key(config)] = asked
        return config

    def foresee(self, config: Config, count: int) -> list[dict[str, Any]]:
        """See Board."""
        return self._chooser.foresee(config, count)

    def tell(self, trial: Trial) -> None:
        """See Board."""
        asked = self._asked.pop(config_key(trial.config))
        for name, value in attributes(trial.measurement).items():
            asked.set_user_attr(name, value)
        state, values = ending(trial)
        self._study.tell(asked, values, state)

    def wait(self) -> bool:
        """Nothing is pending."""
        return False

    def close(self) -> None:
        """Nothing is left behind."""


def attributes(measurement: Measurement) -> dict[str, Any]:
    """What an Optuna trial says beside its value: the verdict, and what the sampler can use."""
    found: dict[str, Any] = {VERDICT: str(measurement.verdict)}
    if measurement.stats and measurement.stats.interval_ns[0] > 0:
        low, high = measurement.stats.interval_ns
        found[NOISE] = (math.log(high / low) / _INTERVAL_SDS) ** 2
    if measurement.verdict is Verdict.ABANDONED and measurement.at_least_ns:
        found[AT_LEAST] = math.log(measurement.at_least_ns / measurement.pace)
    return found


def ending(trial: Trial) -> tuple[TrialState, list[float] | None]:
    """State and value of an Optuna trial: the logarithm of the time, or failed."""
    ok = math.isfinite(trial.cost_ns)
    return (TrialState.COMPLETE, [math.log(trial.cost_ns)]) if ok else (TrialState.FAIL, None)


def finished(trial: Trial, chooser: LegalSampler, told: dict[str, Any]) -> FrozenTrial:
    """A whole Optuna trial with these user attributes, for adding to a study."""
    state, values = ending(trial)
    params = trial_params(trial.config)
    return create_trial(
        state=state,
        values=values,
        params=params,
        distributions={name: chooser.distributions[name] for name in params},
        user_attrs=told,
    )
