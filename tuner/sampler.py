"""Optuna samplers that propose only legal configurations, and none of them twice.

Optuna's own samplers draw each parameter on its own, so most of what they propose for a constrained space is illegal.
Here a sampler chooses a row of the table of legal configurations; Optuna sees an ordinary study, so that its storages,
dashboards and plots work. `kiln` is our strategy; `tpe` and `random` are Optuna's, brought to the nearest legal row;
`grid` goes through the rows in order.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from kernels.spec import Config, Verdict
from tuner.donors import Donor
from tuner.seen import Seen
from tuner.strategy import Mask, Strategy
from tuner.table import Table

VERDICT = "verdict"  # user attribute: how the trial ended
AT_LEAST = "log_at_least"  # user attribute of a failed trial: it was given up, being slower than this
NOISE = "log_variance"  # user attribute: how well the logarithm of the time is known

# No fault of the configuration, so nothing to learn about others from.
_BLAMELESS = frozenset(map(str, (Verdict.THROTTLED, Verdict.INVALID_TIMING, Verdict.WORKER_LOST)))
_TRIES = 32  # of a foreign sampler to hit a legal configuration, before the nearest one is taken
_NEAREST_AMONG = 16_384  # rows


def config_key(config: Config) -> tuple[tuple[str, Any], ...]:
    """A hashable form of a configuration: two configurations with one key are the same."""
    return tuple(sorted(config.items()))


class LegalSampler(BaseSampler):
    """Proposes whole rows of `table`; `seeds` come first, in order, where they are legal. Ask only while `left`."""

    def __init__(self, table: Table, seeds: Sequence[Config], seed: int) -> None:
        self.table, self._seed = table, seed
        self._seeds = [row for config in seeds if (row := table.row(config)) is not None]
        self._free = np.ones(len(table), dtype=bool)
        self._seen = Seen()
        self._learnt: set[int] = set()  # numbers of the trials in _seen
        self.distributions = _distributions(table)

    @abstractmethod
    def _choose(self, study: Study, trial: FrozenTrial) -> int:
        """A free row."""

    def _foresee(self, running: int, free: Mask, count: int) -> list[int]:
        """Rows of `free` that `_choose` is likely to give while `running` is measured; none where nothing tells."""
        return []

    @property
    def left(self) -> int:
        """Legal configurations neither proposed nor measured: all of them, or those that a partial table has."""
        if not self._free.any() and not self.table.complete:
            self.table.more([], len(self._free), np.random.default_rng((self._seed, len(self._free))))
            self._grow()
        return int(self._free.sum())

    def close(self, config: Config) -> bool:
        """Never propose this configuration (again); whether it is legal here."""
        row = self.table.row(config)
        if row is not None:
            self._grow()
            self._free[row] = False
        return row is not None

    def reopen(self, config: Config) -> None:
        """Propose this configuration next, though it was proposed: whoever had it is gone."""
        row = self.table.row(config)
        if row is not None:
            self._grow()
            self._free[row] = True
            self._seeds.insert(0, row)

    def propose(self, study: Study) -> dict[str, Any] | None:
        """A configuration outside any trial of the study; None where the study's other workers left none."""
        self._learn(study)
        return self.table.config(self._next(study, create_trial(state=TrialState.RUNNING))) if self.left else None

    def foresee(self, running: Config, count: int) -> list[dict[str, Any]]:
        """What it will probably propose after `running`, its last proposal, the next first; changes nothing."""
        free = self._free.copy()
        coming = [row for row in self._seeds if row < len(free) and free[row]][:count]
        free[coming] = False
        row = self.table.row(running)
        if row is not None and not coming:
            coming = self._foresee(row, free, count)
        return [self.table.config(row) for row in coming]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All parameters of all variants; a proposal sets those of one variant."""
        return dict(self.distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """One legal configuration that was not proposed before."""
        self._learn(study)
        return trial_params(self.table.config(self._next(study, trial)))

    def _next(self, study: Study, trial: FrozenTrial) -> int:
        while self._seeds:
            row = self._seeds.pop(0)
            if row >= len(self._free) or self._free[row]:
                break
        else:
            row = self._choose(study, trial)
        self._grow()
        self._free[row] = False
        return row

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Never needed: a proposal is whole."""
        raise ValueError(f"{param_name} is not a parameter of the proposed variant")

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """End `study.optimize` when nothing is left to try."""
        if not self.left:
            try:
                study.stop()
            except RuntimeError:  # asked and told by hand: whoever does that looks at `left`
                return

    def _learn(self, study: Study) -> None:
        """Take in the trials that finished since, other workers' too; what others have begun is not begun again."""
        self._seen.pending = []
        for trial in study.get_trials(deepcopy=False):
            if trial.number in self._learnt or not trial.params:
                continue
            if trial.state is TrialState.PRUNED:  # given back, or its worker is gone: nobody knows its time
                self._learnt.add(trial.number)
                continue
            row = self.table.row(config_of(trial.params))
            self._grow()
            if row is not None:
                self._free[row] = False
            if not trial.state.is_finished():
                self._seen.pending += [] if row is None else [row]
                continue
            self._learnt.add(trial.number)
            if row is not None and trial.user_attrs.get(VERDICT) not in _BLAMELESS:
                cost = trial.value if trial.state is TrialState.COMPLETE else None
                told = trial.user_attrs
                self._seen.add(row, told.get(AT_LEAST, math.nan) if cost is None else cost, told.get(NOISE, 0.0))

    def _grow(self) -> None:
        if len(self._free) < len(self.table):
            self._free = np.append(self._free, np.ones(len(self.table) - len(self._free), dtype=bool))


class KilnSampler(LegalSampler):
    """Expected improvement of a surrogate over all free rows, with donors where there are any."""

    def __init__(self, table: Table, seeds: Sequence[Config], seed: int, donors: Sequence[Donor] = ()) -> None:
        super().__init__(table, seeds, seed)
        self._strategy = Strategy(table, seed, donors)

    def _choose(self, study: Study, trial: FrozenTrial) -> int:
        return self._strategy.propose(self._seen, self._free)

    def _foresee(self, running: int, free: Mask, count: int) -> list[int]:
        return self._strategy.foresee(self._seen, free, running, count)


class NearestLegal(LegalSampler):
    """One of Optuna's samplers, asked parameter by parameter; what is illegal or known becomes the nearest free row."""

    def __init__(self, table: Table, seeds: Sequence[Config], seed: int, inner: BaseSampler, tries: int) -> None:
        super().__init__(table, seeds, seed)
        self._inner, self._tries = inner, tries

    def _choose(self, study: Study, trial: FrozenTrial) -> int:
        for _ in range(self._tries):
            wish = self._wish(study, trial)
            row = self.table.row(wish)
            if row is not None and (row >= len(self._free) or self._free[row]):
                return row
        rng = np.random.default_rng((self._seed, len(self._seen)))
        rows = np.flatnonzero(self._free)
        rows = rng.permutation(rows)[:_NEAREST_AMONG]
        return int(rows[np.argmin(self.table.differing(rows, wish))])

    def _wish(self, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        def draw(name: str) -> Any:
            return self._inner.sample_independent(study, trial, name, self.distributions[name])

        variant = draw("variant")
        names = [name for name in self.distributions if name.startswith(f"{variant}.")]
        return {"variant": variant, **{name.removeprefix(f"{variant}."): draw(name) for name in names}}


class InOrder(LegalSampler):
    """The rows of the table from the first to the last."""

    def _choose(self, study: Study, trial: FrozenTrial) -> int:
        return int(np.argmax(self._free))

    def _foresee(self, running: int, free: Mask, count: int) -> list[int]:
        return [int(row) for row in np.flatnonzero(free)[:count]]


def make_sampler(
    name: str, table: Table, seeds: Sequence[Config], seed: int, donors: Sequence[Donor] = ()
) -> LegalSampler:
    """A sampler by its name in SAMPLERS. Only `kiln` has a use for donors beyond trying their best."""
    match name:
        case "kiln":
            return KilnSampler(table, seeds, seed, donors)
        case "tpe":
            return NearestLegal(table, seeds, seed, TPESampler(seed=seed), tries=1)
        case "random":
            return NearestLegal(table, seeds, seed, RandomSampler(seed=seed), tries=_TRIES)
        case "grid":
            return InOrder(table, seeds, seed)
    raise ValueError(f'unknown sampler "{name}"; choose from {", ".join(SAMPLERS)}')


SAMPLERS = ("kiln", "tpe", "random", "grid")


def _distributions(table: Table) -> dict[str, CategoricalDistribution]:
    """Optuna's view: `variant`, and each variant's parameters under its name, with all values that the table knows."""
    found = {"variant": CategoricalDistribution(table.values[0])}
    for code, variant in enumerate(table.values[0], 1):
        mine = table.codes[table.codes[:, 0] == code]
        for column, name in enumerate(table.names[1:], 1):
            if len(mine) and mine[0, column]:
                values = [table.values[column][i - 1] for i in np.unique(mine[:, column])]
                found[f"{variant}.{name}"] = CategoricalDistribution(values)
    return found


def trial_params(config: Config) -> dict[str, Any]:
    """A configuration as Optuna parameters: `variant`, and each parameter under its variant's name."""
    variant = config["variant"]
    return {"variant": variant, **{f"{variant}.{n}": v for n, v in config.items() if n != "variant"}}


def config_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration that Optuna parameters stand for."""
    return {name.rpartition(".")[2]: value for name, value in params.items()}


def suggest(trial: Trial, sampler: LegalSampler) -> dict[str, Any]:
    """Read the whole proposal out of an Optuna trial, so that the study records every parameter."""
    chosen = {}
    for name in trial.relative_params:
        distribution = sampler.distributions[name]
        chosen[name] = trial.suggest_categorical(name, distribution.choices)
    return config_of(chosen)
