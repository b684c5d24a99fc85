"""`python -m tuner replay SPACE.npz --live D`: the search on the device itself, beside what was recorded of it.

A replay has no noise and no slow spells; a search has. So it is run again, live, over the configurations of a space
that `python -m tuner record` measured whole. The best that it found then races the best of the record: first the top
few of both, which chooses one of each, then those two alone, so that who was lucky in the first race gains nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import kernels
from harness.candidate import Candidate
from harness.contest import compete
from harness.devices import DeviceChoice
from harness.errors import KilnError, UsageError
from harness.measure import Meter
from harness.probe import ProbeResult, probe
from harness.racing import Rival
from harness.supervisor import Supervisor
from harness.timing import paired_ratio
from kernels.space import Space
from kernels.spec import Config, Measurement
from tuner.finals import TOP
from tuner.judge import workload_of_key
from tuner.record import Slice
from tuner.recorded import Recorded
from tuner.search import Stop, Trial, search
from tuner.study import TRIAL_BUDGET_S, next_rival

ROUNDS = 30  # of each race


@dataclass(frozen=True)
class Live:
    """One search: what it found, and how many times slower that is than the best of the record."""

    space: str
    seed: int
    trials: int
    found: Config
    best: Config
    ratio: float
    interval: tuple[float, float]  # 95 %, of paired rounds; (1, 1) where both are one configuration

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)

    def __str__(self) -> str:
        low, high = self.interval
        same = "the best of the record itself" if self.found == self.best else f"[{low:.3f}, {high:.3f}]"
        return f"{self.space}, seed {self.seed}: after {self.trials} trials {self.ratio:.3f}× the best's time, {same}"


def searches(space: Recorded, part: Slice, device: DeviceChoice, seeds: Sequence[int], trials: int) -> Iterator[Live]:
    """One search a seed over what was recorded of `part`. Raises KilnError as a run does."""
    with Supervisor(device.command, link=device.link) as supervisor:
        probed = probe(supervisor, device.sheet)
        for seed in seeds:
            meter = Meter(supervisor, device.sheet)
            stop = Stop(math.inf, trials, patience=trials)
            outcome = search(part, _measure(meter, part), stop=stop, seed=seed, seeds=[_first(part)])
            found = [trial.config for trial in outcome.ok[:TOP]]
            if not found:
                raise KilnError(f"none of {len(outcome.trials)} trials on {device.slug} succeeded")
            yield _judged(space, part, meter, probed, found, seed, len(outcome.trials))


def slice_of(space: Recorded, path: Path, device: DeviceChoice) -> Slice:
    """The configurations that were recorded, as a live search sees them. Raises UsageError for another kind of file."""
    try:
        workload = workload_of_key(space.meta["workload"])
        family = kernels.families()[workload.family]
        variant = family.variant(space.meta["variant"])
    except (KeyError, TypeError, AttributeError, KilnError) as error:
        raise UsageError(f"{path} names no workload of Kiln; --live needs a file of python -m tuner record") from error
    if set(space.params) != set(variant.params):
        raise UsageError(f"{path} has other parameters than {variant.name} has now; record it again")
    fixed = {name: values[0] for name, values in space.params.items() if len(values) == 1}
    part = Slice(Space(family, workload, device.sheet), variant.name, fixed)
    if next(part.configs(), None) is None:
        raise UsageError(f"{device.slug} can run no configuration of {path}")
    return part


def _first(part: Slice) -> Config:
    """Where a search begins: the family's default where it is in the slice, else its first configuration."""
    default = part.whole.family.default(part.whole.workload, part.whole.sheet)
    return default if part.reject(default) is None else next(part.configs())


def _measure(meter: Meter, part: Slice) -> Callable[[Config, float | None], Measurement]:
    """As a run measures trials: each beside the first that succeeded, the slow ones given up early."""
    rival: Rival | None = None

    def measure(config: Config, best_ns: float | None) -> Measurement:
        nonlocal rival
        candidate = _candidate(part, config)
        meter.bench.supervisor.settle()
        measurement = meter.measure(candidate, budget_s=TRIAL_BUDGET_S, rival=rival)
        rival = next_rival(rival, candidate, Trial(config, measurement))
        return measurement

    return measure


def _judged(
    space: Recorded, part: Slice, meter: Meter, probed: ProbeResult, found: Sequence[Config], seed: int, trials: int
) -> Live:
    recorded = [{**space.config(row), "variant": part.variant} for row in _best_rows(space)]
    mine = _ranked(part, meter, probed, found)[0][0]
    best = _ranked(part, meter, probed, [mine, *(config for config in recorded if config != mine)])[0][0]
    if best == mine:
        return Live(space.name, seed, trials, mine, best, 1.0, (1.0, 1.0))
    times_ns = {str(config): times for config, times in _ranked(part, meter, probed, [mine, best])}
    ratio = paired_ratio(times_ns[str(best)], times_ns[str(mine)])
    return Live(space.name, seed, trials, mine, best, ratio.ratio, ratio.interval)


def _best_rows(space: Recorded) -> list[int]:
    """The rows of the fastest few, of those that worked."""
    order = np.argsort(space.time_ms)  # what failed comes last
    return [row for row in order[:TOP].tolist() if np.isfinite(space.time_ms[row])]


def _ranked(
    part: Slice, meter: Meter, probed: ProbeResult, configs: Sequence[Config]
) -> list[tuple[Config, tuple[float, ...]]]:
    """Configurations with their paired rounds, the fastest first. Raises KilnError where one fails."""
    raced = compete(meter, [_candidate(part, config) for config in configs], probed, rounds=ROUNDS).contestants
    if failed := [one for one in raced if one.measurement.stats is None]:
        raise KilnError(f"{failed[0].candidate} was fine before and is {failed[0].measurement.verdict} now")
    ranked = sorted(raced, key=lambda one: float(np.median(one.measurement.samples_ns)))
    return [(one.candidate.config, one.measurement.samples_ns) for one in ranked]


def _candidate(part: Slice, config: Config) -> Candidate:
    return Candidate(part.whole.family, part.whole.workload, config)
