"""Finds fast configurations of one workload: asks, measures, tells, until time, trials, patience or the space ends."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from kernels.space import Space
from kernels.spec import Config, Measurement, Verdict
from tuner.donors import Donor
from tuner.sampler import AT_LEAST, NOISE, VERDICT, LegalSampler, config_key, make_sampler, suggest, trial_params
from tuner.table import SearchSpace, Table

PATIENCE = 60  # trials without an improvement of IMPROVEMENT after which a search has converged
IMPROVEMENT = 0.01
_INTERVAL_SDS = 3.92  # a 95 % interval's width in standard deviations


@dataclass(frozen=True)
class Trial:
    """One measured configuration."""

    config: Config
    measurement: Measurement

    @property
    def cost_ns(self) -> float:
        """Median device time, infinity where the verdict is not ok."""
        return self.measurement.stats.median_ns if self.measurement.stats else math.inf


@dataclass(frozen=True)
class Stop:
    """When a search ends: whichever comes first."""

    seconds: float
    trials: int = 10**9  # new ones
    patience: int = PATIENCE  # trials without an improvement, known ones counted


@dataclass(frozen=True)
class Outcome:
    """Everything measured for one workload, and why the search ended."""

    trials: tuple[Trial, ...]
    resumed: int  # of them, known before this search began
    why_stopped: str

    @property
    def ok(self) -> list[Trial]:
        """Successful trials, fastest first; equal times keep their order."""
        return sorted((t for t in self.trials if t.measurement.verdict is Verdict.OK), key=lambda t: t.cost_ns)


def search(
    space: SearchSpace,
    measure: Callable[[Config, float | None], Measurement],
    *,
    stop: Stop,
    seeds: Sequence[Config] = (),
    known: Sequence[Trial] = (),
    seed: int = 0,
    sampler: str = "kiln",
    donors: Sequence[Donor] = (),
    table: Table | None = None,
    watch: Callable[[Trial, Outcome], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Measure configurations of `space` until `stop`.

    `measure(config, best_ns)` runs one; `best_ns` is the incumbent's median, for early abort. `seeds` are tried first
    (illegal ones are passed over), `known` trials are not repeated, `donors` are results from elsewhere, `sampler` is
    one of `tuner.sampler.SAMPLERS`, `table` spares enumerating the space again, `watch` hears of every new trial.
    Raises ValueError for an unknown sampler. An exception of `measure` ends the search; what it finished before is the
    caller's journal to keep.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    chooser = make_sampler(sampler, table or Table(space), seeds, seed, donors)
    study = optuna.create_study(direction="minimize", sampler=chooser)
    trials: list[Trial] = []
    best_ns, since_best = math.inf, 0
    for trial in known:
        if chooser.close(trial.config):
            study.add_trial(_frozen(trial, chooser))
            trials.append(trial)
            since_best = _since_best(since_best, trial, best_ns)
            best_ns = min(best_ns, trial.cost_ns)
    resumed, why, start = len(trials), "exhausted", clock()
    while chooser.left:
        if len(trials) - resumed >= stop.trials:
            why = "trials"
            break
        if trials and clock() - start >= stop.seconds:  # one trial at least: seeds begin with the default
            why = "time"
            break
        if since_best >= stop.patience:
            why = "patience"
            break
        asked = study.ask()
        config = suggest(asked, chooser)
        trial = Trial(config, measure(config, best_ns if math.isfinite(best_ns) else None))
        trials.append(trial)
        for name, value in _attributes(trial.measurement).items():
            asked.set_user_attr(name, value)
        if math.isfinite(trial.cost_ns):
            study.tell(asked, math.log(trial.cost_ns))
        else:
            study.tell(asked, state=TrialState.FAIL)
        since_best = _since_best(since_best, trial, best_ns)
        best_ns = min(best_ns, trial.cost_ns)
        if watch:
            watch(trial, Outcome(tuple(trials), resumed, "running"))
    return Outcome(tuple(trials), resumed, why)


def _since_best(count: int, trial: Trial, best_ns: float) -> int:
    return 0 if trial.cost_ns < best_ns * (1 - IMPROVEMENT) else count + 1


def _attributes(measurement: Measurement) -> dict[str, Any]:
    """What an Optuna trial says beside its value: the verdict, and what the sampler can use."""
    found: dict[str, Any] = {VERDICT: str(measurement.verdict)}
    if measurement.stats and measurement.stats.interval_ns[0] > 0:
        low, high = measurement.stats.interval_ns
        found[NOISE] = (math.log(high / low) / _INTERVAL_SDS) ** 2
    if measurement.verdict is Verdict.ABANDONED and measurement.at_least_ns:
        found[AT_LEAST] = math.log(measurement.at_least_ns)
    return found


def _frozen(trial: Trial, sampler: LegalSampler) -> optuna.trial.FrozenTrial:
    params = trial_params(trial.config)
    ok = math.isfinite(trial.cost_ns)
    return create_trial(
        state=TrialState.COMPLETE if ok else TrialState.FAIL,
        value=math.log(trial.cost_ns) if ok else None,
        params=params,
        distributions={name: sampler.distributions[name] for name in params},
        user_attrs=_attributes(trial.measurement),
    )


def first_tries(space: Space, neighbours: Sequence[Sequence[Trial]], each: int = 3) -> list[dict[str, Any]]:
    """Configurations to try first: the family's default, each variant's default, then the best of the neighbours.

    `neighbours` are the successful trials of related workloads, fastest first, nearest workload first.
    """
    family, workload, sheet = space.family, space.workload, space.sheet
    wanted: list[Config] = [family.default(workload, sheet)]
    for rank in range(each):
        wanted.extend(trials[rank].config for trials in neighbours if rank < len(trials))
    wanted.extend(variant.config() for variant in family.variants)
    unique = {config_key(config): dict(config) for config in wanted if space.reject(config) is None}
    return list(unique.values())
