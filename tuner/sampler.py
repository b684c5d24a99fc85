"""An Optuna sampler that proposes only legal configurations, and none of them twice.

Optuna's own samplers draw each parameter on its own, so most of what they propose for a constrained space is illegal.
This one keeps the enumerated legal configurations as rows of a matrix and scores all unmeasured rows at once by the
tree-structured Parzen estimator's ratio (Bergstra et al., "Algorithms for Hyper-Parameter Optimization", 2011): how
much likelier a row's values are among the good trials than among the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from kernels.spec import Config

STARTUP = 8  # trials chosen for spread before the estimator is asked
GOOD_SHARE = 0.25  # share of the successful trials that counts as good
EXPLORE_EVERY = 6  # every so many trials one is chosen for spread again: the estimator's own blind spots
POOL = 4096  # rows compared when choosing for spread


def config_key(config: Config) -> tuple[tuple[str, Any], ...]:
    """A hashable form of a configuration: two configurations with one key are the same."""
    return tuple(sorted(config.items()))


class LegalParzen(BaseSampler):
    """Proposes whole configurations out of `configs`; `seeds` come first, in order, where they are legal."""

    def __init__(self, configs: Sequence[Config], seeds: Sequence[Config], seed: int) -> None:
        self._configs = list(configs)
        self._row = {config_key(config): row for row, config in enumerate(self._configs)}
        self._seeds = [self._row[key] for key in map(config_key, seeds) if key in self._row]
        self._open = np.ones(len(self._configs), dtype=bool)
        self._rng = np.random.default_rng(seed)
        self._proposed = 0
        names = list(dict.fromkeys(name for config in self._configs for name in config))
        values = {name: list(dict.fromkeys(c[name] for c in self._configs if name in c)) for name in names}
        # Column = parameter, entry = index of its value; the last index stands for "its variant has no such parameter".
        self._codes = np.array(
            [[values[n].index(c[n]) if n in c else len(values[n]) for n in names] for c in self._configs],
            dtype=np.int32,
        ).reshape(len(self._configs), len(names))
        self._widths = [len(values[name]) + 1 for name in names]
        self.distributions: dict[str, BaseDistribution] = {}
        for config in self._configs:
            for name in trial_params(config):
                if name not in self.distributions:
                    choices = values[name.rpartition(".")[2]]
                    self.distributions[name] = CategoricalDistribution(choices)

    @property
    def left(self) -> int:
        """Legal configurations not yet proposed or measured."""
        return int(self._open.sum())

    def row(self, config: Config) -> int | None:
        """Row of a configuration, None if it is not legal here."""
        return self._row.get(config_key(config))

    def close(self, config: Config) -> None:
        """Never propose this configuration (again)."""
        if (row := self.row(config)) is not None:
            self._open[row] = False

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All parameters of all variants; a proposal sets those of one variant."""
        return self.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """One legal configuration that was not proposed before. Ask only while `left`."""
        row = self._propose(study)
        self._open[row] = False
        self._proposed += 1
        return trial_params(self._configs[row])

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Never needed: a proposal is whole."""
        raise ValueError(f"{param_name} is not a parameter of the proposed variant")

    def _propose(self, study: Study) -> int:
        while self._seeds:
            row = self._seeds.pop(0)
            if self._open[row]:
                return row
        rows, costs = self._finished(study)
        if len(rows) < STARTUP or np.isfinite(costs).sum() < 2 or self._proposed % EXPLORE_EVERY == EXPLORE_EVERY - 1:
            return self._farthest(rows)
        return self._likeliest(rows, costs)

    def _finished(self, study: Study) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the finished trials and their costs; a failed trial costs infinity."""
        rows, costs = [], []
        for trial in study.get_trials(deepcopy=False):
            if trial.state.is_finished() and (row := self.row(config_of(trial.params))) is not None:
                rows.append(row)
                costs.append(trial.value if trial.state is TrialState.COMPLETE else np.inf)
        return np.array(rows, dtype=int), np.array(costs, dtype=float)

    def _farthest(self, measured: np.ndarray) -> int:
        """Of a random pool, the open row whose nearest measured row differs in the most parameters."""
        pool = np.flatnonzero(self._open)
        if len(pool) > POOL:
            pool = self._rng.choice(pool, POOL, replace=False)
        pool = self._rng.permutation(pool)
        if not len(measured):
            return int(pool[0])
        nearest = np.full(len(pool), len(self._widths))
        for row in measured:
            nearest = np.minimum(nearest, (self._codes[pool] != self._codes[row]).sum(axis=1))
        return int(pool[np.argmax(nearest)])

    def _likeliest(self, rows: np.ndarray, costs: np.ndarray) -> int:
        count = max(2, round(GOOD_SHARE * np.isfinite(costs).sum()))
        order = np.argsort(costs, kind="stable")
        good, other = rows[order[:count]], rows[order[count:]]
        score = self._rng.random(len(self._configs)) * 1e-6  # breaks ties at random, reproducibly
        for column, width in enumerate(self._widths):
            codes = self._codes[:, column]
            # One imaginary trial spread over the values keeps every value possible.
            in_good = (np.bincount(codes[good], minlength=width) + 1 / width) / (len(good) + 1)
            in_other = (np.bincount(codes[other], minlength=width) + 1 / width) / (len(other) + 1)
            score += np.log(in_good / in_other)[codes]
        score[~self._open] = -np.inf
        return int(np.argmax(score))


def trial_params(config: Config) -> dict[str, Any]:
    """A configuration as Optuna parameters: `variant`, and each parameter under its variant's name."""
    variant = config["variant"]
    return {"variant": variant, **{f"{variant}.{n}": v for n, v in config.items() if n != "variant"}}


def config_of(params: dict[str, Any]) -> dict[str, Any]:
    """The configuration that Optuna parameters stand for."""
    return {name.rpartition(".")[2]: value for name, value in params.items()}


def suggest(trial: Trial, sampler: LegalParzen) -> dict[str, Any]:
    """Read the whole proposal out of an Optuna trial, so that the study records every parameter."""
    chosen = {}
    for name in trial.relative_params:
        distribution = sampler.distributions[name]
        assert isinstance(distribution, CategoricalDistribution)
        chosen[name] = trial.suggest_categorical(name, distribution.choices)
    return config_of(chosen)
