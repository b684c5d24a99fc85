"""The searches in a journal: every trial in its order, failures with their logs, and the slice around the winner."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import kernels
from harness.devices import sheet_from
from harness.journal import same_device
from harness.records import Record, from_json
from kernels.spec import Config, DeviceSheet, Verdict, Workload
from tuner.board import Trial
from tuner.decisions import Decision
from tuner.judge import workload_of_key
from tuner.report.nouns import Attempt, Search
from tuner.sampler import config_key

_NO_FAULT = frozenset({Verdict.OK, Verdict.ABANDONED})  # a slow candidate is no failure
LOG_CHARS = 4000  # of each kind of failure's log


def of_last_device(records: Sequence[Record]) -> list[Record]:
    """The records that runs on the last study's device wrote; a journal may be older than its machine."""
    last = next(r for r in reversed(records) if r["kind"] == "study")
    kept, mine = [], False
    for record in records:
        if record["kind"] == "study":
            mine = same_device(record["device"], last["device"])
        if mine:
            kept.append(record)
    return kept


def searches(records: Sequence[Record], decided: Sequence[Decision]) -> tuple[list[Search], int]:
    """One search per workload, and how many candidates were begun of which nothing came.

    A trial that was measured again (other sources, `--retry-crashed`) counts as it last was, at its first place.
    """
    records = of_last_device(records)
    sheet = sheet_from(next(r for r in records if r["kind"] == "study")["device"])
    open_: set[str] = set()
    found: dict[str, dict[Any, Record]] = {}
    for record in records:
        if record["kind"] == "begin":
            open_.add(record["key"])
        elif record["kind"] in ("interrupted", "trial"):
            open_.discard(record["key"])
        if record["kind"] == "trial":
            _check(record["config"])
            key = config_key(record["config"]), bool(record.get("driver_local"))
            found.setdefault(record["workload"], {})[key] = record
    winners = {d.workload.key: d.winner.finalist.candidate.config for d in decided}
    labels = {d.workload.key: d.workload for d in decided}
    made = []
    for name, trials in found.items():
        workload = labels.get(name) or workload_of_key(name)
        attempts = tuple(_attempt(number, record) for number, record in enumerate(trials.values(), 1))
        made.append(Search(workload, attempts, winners.get(name), _default(workload, sheet)))
    return made, len(open_)


def _check(config: Any) -> None:
    """Raises ValueError for what is no configuration."""
    if not isinstance(config, dict) or not isinstance(config.get("variant"), str):
        raise ValueError(f"{config!r:.40} is no configuration")
    if not all(isinstance(value, str | int | float) for value in config.values()):
        raise ValueError(f"{config!r:.40} has a value that is neither a number nor a name")


def _attempt(number: int, record: Record) -> Attempt:
    measurement = from_json(record["measurement"])
    cost_ns = Trial(record["config"], measurement).cost_ns
    ok = measurement.stats if math.isfinite(cost_ns) else None
    pace = measurement.pace
    return Attempt(
        number=number,
        config=record["config"],
        verdict=measurement.verdict,
        ns=cost_ns if ok else None,
        interval_ns=(ok.interval_ns[0] / pace, ok.interval_ns[1] / pace) if ok else None,
        samples=ok.samples if ok else None,
        at_least_ns=measurement.at_least_ns / pace if measurement.at_least_ns else None,
        log=measurement.log,
        driver_local=bool(record.get("driver_local")),
    )


def _default(workload: Workload, sheet: DeviceSheet) -> Config | None:
    family = kernels.families().get(workload.family)
    return dict(family.default(workload, sheet)) if family else None


# ---------------------------------------------------------------- failures


@dataclass(frozen=True)
class Failure:
    """Trials of one family that ended alike and said the same."""

    family: str
    verdict: Verdict
    says: str  # the log's first line, numbers left out
    count: int
    workloads: tuple[str, ...]
    example: str  # one of the configurations
    log: str  # that one's, cut at LOG_CHARS
    cut: int  # characters left out of it


def failures(found: Sequence[Search]) -> list[Failure]:
    """What went wrong, the most frequent first. One driver message comes back for a hundred configurations."""
    groups: dict[tuple[str, Verdict, str], list[tuple[Search, Attempt]]] = {}
    for search in found:
        for attempt in search.attempts:
            if attempt.verdict not in _NO_FAULT:
                first = attempt.log.strip().partition("\n")[0][:160]
                key = search.workload.family, attempt.verdict, re.sub(r"\d+", "…", first)
                groups.setdefault(key, []).append((search, attempt))
    made = []
    for (family, verdict, _), group in groups.items():
        search, attempt = max(group, key=lambda one: len(one[1].log))
        log = attempt.log.strip()
        made.append(
            Failure(
                family,
                verdict,
                log.partition("\n")[0][:160],
                len(group),
                tuple(dict.fromkeys(one.workload.key for one, _ in group)),
                config_text(attempt.config),
                log[:LOG_CHARS],
                max(0, len(log) - LOG_CHARS),
            )
        )
    return sorted(made, key=lambda one: (-one.count, one.family, one.verdict))


def config_text(config: Mapping[str, Any]) -> str:
    """A configuration in one line, its variant first."""
    rest = " ".join(f"{name}={value}" for name, value in config.items() if name != "variant")
    return f"{config['variant']} {rest}".strip()


# ---------------------------------------------------------------- around the winner


@dataclass(frozen=True)
class Slice:
    """One parameter varied, all others the centre's: what was measured there, the centre among it."""

    param: str
    points: tuple[tuple[Any, Attempt], ...]  # (value, trial), in the values' order
    centre: Any  # the centre's value


def centre_of(search: Search) -> Attempt | None:
    """The winner's trial, or before the finals the fastest one; None where the winner was no trial of its own."""
    if search.winner is None:
        return search.best
    mine = config_key(search.winner)
    return next((a for a in search.attempts if config_key(a.config) == mine and not a.driver_local), None)


def slices(search: Search) -> list[Slice]:
    """The slices around the centre in which at least one more value was tried, failures included."""
    centre = centre_of(search)
    if centre is None:
        return []
    found = []
    for param in centre.config:
        others = {name: value for name, value in centre.config.items() if name != param}
        points = [
            (attempt.config[param], attempt)
            for attempt in search.attempts
            if not attempt.driver_local
            and set(attempt.config) == set(centre.config)
            and {name: value for name, value in attempt.config.items() if name != param} == others
        ]
        if len(points) > 1:
            points.sort(key=lambda point: (isinstance(point[0], str), point[0]))
            found.append(Slice(param, tuple(points), centre.config[param]))
    return found
