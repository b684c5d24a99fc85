"""Which parameters decide the time, by Optuna's PED-ANOVA over the trials of a journal.

PED-ANOVA (Watanabe et al., IJCAI 2023) needs no scikit-learn, as fANOVA does, and since Optuna 5 it takes parameters
that only some variants have. A workload alone has too few trials, so those of a family are taken together: a trial's
value is the logarithm of its time over the fastest trial's of its workload. A trial that was given up counts with the
time it surely takes; failed ones do not count.
"""

from __future__ import annotations

import inspect
import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from tuner.report.nouns import Search

# The best quarter: PED-ANOVA wants at least five trials there, so twenty of a family.
QUANTILE, LEAST_TRIALS = 0.25, 20
# Optuna 4's takes only parameters that every trial has, and calls the quantile otherwise.
CAN = "target_quantile" in inspect.signature(PedAnovaImportanceEvaluator).parameters


@dataclass(frozen=True)
class Importance:
    """What part of the differences between good trials and the rest each parameter explains; the parts sum to one."""

    family: str
    trials: int
    workloads: int
    parts: tuple[tuple[str, float], ...]  # largest first
    why: str | None  # there is none; None: there is


def importances(found: Sequence[Search]) -> list[Importance]:
    """One per family, a reason where there are too few trials or nothing differs."""
    families = dict.fromkeys(search.workload.family for search in found)
    return [_importance(name, [s for s in found if s.workload.family == name]) for name in families]


def study_of(found: Sequence[Search]) -> optuna.Study:
    """An Optuna study of these searches' trials, as its own tools (visualisation, importance) read it."""
    usable = [
        (attempt, (attempt.ns or attempt.at_least_ns or math.nan) / search.best.ns)
        for search in found
        if search.best and search.best.ns
        for attempt in search.attempts
        if not attempt.driver_local and (attempt.ns or attempt.at_least_ns)
    ]
    seen: dict[str, dict[str | int | float | bool, None]] = {}
    for attempt, _ in usable:
        for name, value in attempt.config.items():
            seen.setdefault(name, {})[value] = None
    distributions: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(sorted(values, key=lambda v: (isinstance(v, str), v)))
        for name, values in seen.items()
    }
    study = optuna.create_study(direction="minimize")
    for attempt, ratio in usable:
        mine = {name: distributions[name] for name in attempt.config}
        study.add_trial(create_trial(params=dict(attempt.config), distributions=mine, value=math.log(ratio)))
    return study


def _importance(family: str, found: Sequence[Search]) -> Importance:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.ERROR)
    try:
        study = study_of(found)
        count = len(study.trials)
        if count < LEAST_TRIALS:
            why = (
                f"{count} timed trials; below {LEAST_TRIALS} it would say little. A longer search (--seconds) has more"
            )
            return Importance(family, count, len(found), (), why)
        if not CAN:
            why = f"it needs Optuna 5, and {optuna.__version__} is here: pip install 'kiln-workbench[report]'"
            return Importance(family, count, len(found), (), why)
        with warnings.catch_warnings():  # its being experimental, in some of Optuna's versions
            warnings.simplefilter("ignore")
            evaluator = PedAnovaImportanceEvaluator(target_quantile=QUANTILE)
            parts = get_param_importances(study, evaluator=evaluator)
    finally:
        optuna.logging.set_verbosity(before)
    kept = tuple((name, part) for name, part in parts.items() if math.isfinite(part) and part > 0)
    nothing = None if kept else "no parameter separates the best quarter from the rest"
    return Importance(family, count, len(found), kept, nothing)
