"""`python -m tuner judge JOURNAL|SPACE.npz…`: is the cost model any good? Its predictions beside measured trials.

Per workload of a journal: Spearman's rank correlation of predicted and measured times, and the regret of the model's
first choice, by what fraction it is slower than the fastest trial. Beside it stand the regrets of the family's default
and of a pick at random, because a model must beat those to be of use. Trials of a search crowd around what is good, so
that the correlation over them is lower than over a whole space; `python -m tuner record` measures whole ones, and its
files can be judged too.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import kernels
from harness.devices import sheet_from
from harness.errors import KilnError, UsageError
from harness.probe import ProbeResult
from harness.records import Record, from_json, read
from harness.tables import json_text, say, table
from kernels.peaks import Peaks
from kernels.space import Space
from kernels.spec import DeviceSheet, DTypes, Workload
from tuner.board import Trial
from tuner.predict import MODEL_VERSION, peaks_of, predict
from tuner.recorded import load

LEAST_TRIALS = 4  # of a workload: fewer have no order to speak of


@dataclass(frozen=True)
class Score:
    """One workload of one journal."""

    device: str
    workload: str  # key
    trials: int
    spearman: float  # NaN where all predictions are equal
    regret: float  # of the model's first choice: 0.2 = 20 % slower than the fastest trial
    default_regret: float | None  # None where the default was not among the trials
    random_regret: float  # the expectation of a pick at random
    bias: float  # predicted over measured time, of the fastest trial

    @property
    def family(self) -> str:
        """The family's name."""
        return self.workload.partition(":")[0]


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation, equal values sharing their mean rank; NaN where one side is all equal."""
    if any(np.ptp(values) == 0 for values in (a, b)):
        return math.nan
    from scipy.stats import spearmanr  # here: it is a quarter of what starting the tuner takes, and no other verb's

    return float(spearmanr(a, b).statistic)


def judge(records: Sequence[Record]) -> list[Score]:
    """Scores of every workload with LEAST_TRIALS and more. Raises KilnError for a journal without a probed study."""
    study = next((r for r in reversed(records) if r["kind"] == "study"), None)
    if study is None:
        raise KilnError("this journal has no study with a probe; only journals of python -m tuner have one")
    sheet = sheet_from(study["device"])
    peaks = peaks_of(ProbeResult.from_json(study["probe"]).rates, sheet)
    trials: dict[str, dict[str, Trial]] = {}
    for record in records:
        if record["kind"] == "trial":
            trial = Trial(record["config"], from_json(record["measurement"]))
            trials.setdefault(record["workload"], {})[str(sorted(trial.config.items()))] = trial
    scores = (_score(key, list(found.values()), sheet, peaks) for key, found in trials.items())
    return [score for score in scores if score is not None]


def _score(key: str, trials: Sequence[Trial], sheet: DeviceSheet, peaks: Peaks) -> Score | None:
    workload = workload_of_key(key)
    family = kernels.families().get(workload.family)
    if family is None:
        return None
    space, found = Space(family, workload, sheet), []
    for trial in trials:
        # A trial that was abandoned is at least as slow as its bound. One that is no longer legal is of older kernels.
        ns = trial.measurement.at_least_ns or trial.cost_ns
        if math.isfinite(ns) and space.illegal(trial.config) is None:
            found.append((ns, predict(family, workload, trial.config, sheet, peaks).ns, dict(trial.config)))
    if len(found) < LEAST_TRIALS:
        return None
    measured, predicted = [one[0] for one in found], [one[1] for one in found]
    best = min(measured)
    default = dict(family.default(workload, sheet))
    return Score(
        device=sheet.name,
        workload=key,
        trials=len(found),
        spearman=spearman(measured, predicted),
        regret=measured[int(np.argmin(predicted))] / best - 1,
        default_regret=next((ns / best - 1 for ns, _, config in found if config == default), None),
        random_regret=float(np.mean(measured)) / best - 1,
        bias=predicted[int(np.argmin(measured))] / best,
    )


def workload_of_key(key: str) -> Workload:
    """The workload that a journal's trial names by `Workload.key`. Raises KilnError for anything else."""
    try:
        family, weights, dtypes, dims, *options = key.split(":")
        policy = DTypes(**_pairs(dtypes))
        sizes = {name: int(text) for name, text in _pairs(dims).items()}
        given = {name: _value(text) for text in options for name, text in _pairs(text).items()}
        return Workload(family, sizes, policy, None if weights == "-" else weights, given)
    except (TypeError, ValueError) as error:
        raise KilnError(f'"{key[:80]}" names no workload; the journal is damaged or of another program') from error


def _pairs(text: str) -> dict[str, Any]:
    return dict(pair.split("=", 1) for pair in text.split(","))


def _value(text: str) -> bool | int | float | str:
    if text in ("True", "False"):
        return text == "True"
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text


# ---------------------------------------------------------------- for people


def by_family(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Per device and family: means weighted by trials of the correlation, medians and the worst of the regrets."""
    groups: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        groups.setdefault((score.device, score.family), []).append(score)
    return [_row(*key, group) for key, group in groups.items()]


def _row(device: str, family: str, group: Sequence[Score]) -> dict[str, Any]:
    ranked = [score for score in group if not math.isnan(score.spearman)]
    defaults = [score.default_regret for score in group if score.default_regret is not None]
    weights = [score.trials for score in ranked]
    return {
        "device": device,
        "family": family,
        "workloads": len(group),
        "trials": sum(score.trials for score in group),
        "spearman": float(np.average([score.spearman for score in ranked], weights=weights)) if ranked else None,
        "regret_median": float(np.median([score.regret for score in group])),
        "regret_worst": max(score.regret for score in group),
        "default_regret_median": float(np.median(defaults)) if defaults else None,
        "random_regret_median": float(np.median([score.random_regret for score in group])),
        "predicted_over_measured": float(np.median([score.bias for score in group])),
    }


def text(scores: Sequence[Score]) -> str:
    """The table, and how to read it."""
    rows = [_cells(row) for row in by_family(scores)]
    heads = ["device", "family", "workloads", "trials", "Spearman", "regret", "worst", "default's", "random", "bias"]
    return (
        table(heads, rows)
        + f"\n{MODEL_VERSION}: rank correlation within workloads, weighted by trials; regrets: medians over workloads, "
        "how much\nslower than the fastest trial; bias is predicted over measured time of the fastest trial"
    )


def _cells(row: Mapping[str, Any]) -> list[str | None]:
    def percent(name: str) -> str | None:
        return None if row[name] is None else f"{100 * row[name]:.0f} %"

    correlation = None if row["spearman"] is None else f"{row['spearman']:.2f}"
    regrets = [percent(f"{name}regret_median") for name in ("", "default_", "random_")]
    counts = [str(row["workloads"]), str(row["trials"])]
    bias = f"{row['predicted_over_measured']:.2f}"
    return [row["device"], row["family"], *counts, correlation, regrets[0], percent("regret_worst"), *regrets[1:], bias]


def main(words: Sequence[str]) -> None:
    """The command. Raises UsageError and KilnError."""
    parser = argparse.ArgumentParser(
        prog="python -m tuner judge",
        description="Compare the cost model's predictions with the trials of journals or the times of recorded spaces.",
    )
    parser.add_argument(
        "journal", nargs="+", type=Path, metavar="JOURNAL", help="a journal, or SPACE.npz of python -m tuner record"
    )
    parser.add_argument("--json", action="store_true", help="one record a workload, as JSON")
    args = parser.parse_args(words)
    scores: list[Score] = []
    for path in args.journal:
        if not path.is_file():
            raise UsageError(f"{path} is not there; name a journal, which lies beside its document")
        try:
            scores += judge(load(path).records() if path.suffix == ".npz" else read(path).records)
        except UsageError:
            raise
        except KilnError as error:
            raise KilnError(f"{path}: {error}") from error
        except (KeyError, TypeError) as error:
            raise KilnError(f"{path} does not say what a journal or a record of this Kiln says ({error!r})") from error
    if not scores:
        raise KilnError(f"no workload there has {LEAST_TRIALS} timed trials; name a longer journal")
    say(json_text([_plain(score) for score in scores]) if args.json else text(scores))


def _plain(score: Score) -> dict[str, Any]:
    return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in asdict(score).items()}
