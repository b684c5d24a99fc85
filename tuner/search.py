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
from tuner.sampler import LegalParzen, config_key, suggest, trial_params

PATIENCE = 60  # trials without an improvement of IMPROVEMENT after which a search has converged
IMPROVEMENT = 0.01


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
    trials: int = 10**9
    patience: int = PATIENCE


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
    space: Space,
    measure: Callable[[Config, float | None], Measurement],
    *,
    stop: Stop,
    seeds: Sequence[Config] = (),
    known: Sequence[Trial] = (),
    seed: int = 0,
    watch: Callable[[Trial, Outcome], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Measure configurations of `space` until `stop`.

    `measure(config, best_ns)` runs one; `best_ns` is the incumbent's median, for early abort. `seeds` are tried first
    (illegal ones are passed over), `known` trials are not repeated, `watch` hears of every new trial.
    An exception of `measure` ends the search; what it finished before is the caller's journal to keep.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = LegalParzen(list(space.configs()), seeds, seed)
    study = optuna.create_study(direction="minimize", sampler=sampler)
    trials: list[Trial] = []
    for trial in known:
        if sampler.row(trial.config) is not None:
            sampler.close(trial.config)
            study.add_trial(_frozen(trial, sampler))
            trials.append(trial)
    resumed = len(trials)
    best_ns = min((t.cost_ns for t in trials), default=math.inf)
    since_best, why, start = 0, "exhausted", clock()
    while sampler.left:
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
        config = suggest(asked, sampler)
        trial = Trial(config, measure(config, best_ns if math.isfinite(best_ns) else None))
        trials.append(trial)
        asked.set_user_attr("verdict", str(trial.measurement.verdict))
        if math.isfinite(trial.cost_ns):
            study.tell(asked, math.log(trial.cost_ns))
        else:
            study.tell(asked, state=TrialState.FAIL)
        since_best = 0 if trial.cost_ns < best_ns * (1 - IMPROVEMENT) else since_best + 1
        best_ns = min(best_ns, trial.cost_ns)
        if watch:
            watch(trial, Outcome(tuple(trials), resumed, "running"))
    return Outcome(tuple(trials), resumed, why)


def _frozen(trial: Trial, sampler: LegalParzen) -> optuna.trial.FrozenTrial:
    params = trial_params(trial.config)
    ok = math.isfinite(trial.cost_ns)
    return create_trial(
        state=TrialState.COMPLETE if ok else TrialState.FAIL,
        value=math.log(trial.cost_ns) if ok else None,
        params=params,
        distributions={name: sampler.distributions[name] for name in params},
        user_attrs={"verdict": str(trial.measurement.verdict)},
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
