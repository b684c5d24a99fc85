"""`python -m tuner replay`: the search as it is, on recorded spaces, to tell how near the optimum it comes how soon.

After so many trials a search is worth the fraction optimum / best found; `area` is the mean over MARKS.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.devices import resolve
from harness.errors import UsageError
from harness.fitness import fit
from harness.tables import json_text, say, table
from tuner import against
from tuner.donors import Donor
from tuner.live import searches, slice_of
from tuner.recorded import Recorded, load
from tuner.sampler import SAMPLERS
from tuner.search import Stop, search

MARKS = (25, 50, 100, 200, 400)  # trials after which a search is looked at


@dataclass(frozen=True)
class Replayed:
    """One space's result."""

    space: str
    marks: tuple[int, ...]
    fractions: np.ndarray  # repeats × marks

    @property
    def areas(self) -> np.ndarray:
        """Of each repeat."""
        return np.asarray(self.fractions.mean(axis=1))

    def as_json(self) -> dict[str, Any]:
        """Means over the repeats; `area_se` is the standard error of the area's."""
        repeats = len(self.fractions)
        error = self.areas.std(ddof=1) / math.sqrt(repeats) if repeats > 1 else None
        return {
            "space": self.space,
            "repeats": repeats,
            "at": {str(n): float(f) for n, f in zip(self.marks, self.fractions.mean(axis=0), strict=True)},
            "area": float(self.areas.mean()),
            "area_se": None if error is None else float(error),
        }


def replay(
    space: Recorded,
    *,
    donors: Sequence[Donor] = (),
    sampler: str = "kiln",
    budget: int = MARKS[-1],
    repeats: int = 25,
    seed: int = 0,
) -> Replayed:
    """Search a recorded space `repeats` times, with the seeds from `seed` on."""
    marks = _marks(budget)
    stop = Stop(seconds=math.inf, trials=budget, patience=budget)
    fractions = np.zeros((repeats, len(marks)))
    for repeat in range(repeats):
        outcome = search(
            space,
            space.measure,
            stop=stop,
            seed=seed + repeat,
            sampler=sampler,
            donors=donors,
            table=space.table,
            seeds=space.begins_with,
        )
        best = np.minimum.accumulate([trial.cost_ns for trial in outcome.trials])
        reached = best[np.minimum(marks, len(best)) - 1]
        fractions[repeat] = space.best_ms * 1e6 / reached  # nothing found is worth nothing
    return Replayed(space.name, marks, fractions)


def main(words: Sequence[str]) -> None:
    """The verb. Raises UsageError for what is wrong with its words or files."""
    parser = argparse.ArgumentParser(prog="python -m tuner replay", description=__doc__.split("\n\n", maxsplit=1)[0])
    add = parser.add_argument
    add("spaces", nargs="+", type=Path, metavar="SPACE.npz", help="recorded spaces")
    add("--donors", default="", metavar="X.npz,…", help="recorded spaces of the same kernel that the search may know")
    add("--budget", type=int, default=MARKS[-1], metavar="N", help="trials a search (default %(default)s)")
    add("--repeats", type=int, metavar="N", help="searches a space (default 25; 1 with --live)")
    add("--seed", type=int, default=0, metavar="N", help="of the first search; the next has the next (default 0)")
    add("--sampler", default="kiln", metavar="NAME", help=f"{', '.join(SAMPLERS)} (default %(default)s)")
    add("--anonymous", action="store_true", help="call parameters x0, x1, …")
    add("--live", metavar="D", help="search on this device itself, and race what is found with the record's best")
    add(
        "--against", type=Path, metavar="FILE.json", help="another tuner's areas, as tests/kernel_tuner_areas.py writes"
    )
    add("--json", action="store_true", help="print JSON")
    args = parser.parse_args(words)
    if args.repeats is None:
        args.repeats = 1 if args.live else 25
    if args.sampler not in SAMPLERS:
        raise UsageError(f'unknown sampler "{args.sampler}"; choose from {", ".join(SAMPLERS)}')
    for name in ("budget", "repeats"):
        if getattr(args, name) < 1:
            raise UsageError(f"--{name} is at least 1, not {getattr(args, name)}")
    if args.seed < 0:
        raise UsageError(f"--seed is at least 0, not {args.seed}")

    spaces = [load(path) for path in args.spaces]
    if args.live:
        _live(args, spaces)
        return
    given = [Path(word) for word in args.donors.split(",") if word]
    known = [load(path) for path in given]
    for path, donor in zip(given, known, strict=True):
        if all(set(donor.params) != set(space.params) for space in spaces):
            raise UsageError(f"{path} has other parameters than every space, so it can be no donor")
    names = [space.name for space in spaces]
    other = against.load(args.against, names, _marks(args.budget), args.repeats) if args.against else None
    results = []
    for path, space in zip(args.spaces, spaces, strict=True):
        # A space is no donor of its own: that would be no search.
        mine = [
            d for p, d in zip(given, known, strict=True) if set(d.params) == set(space.params) and not _same(p, path)
        ]
        if args.anonymous:
            mine, space = [_in_order(donor, space).anonymous() for donor in mine], space.anonymous()
        donors = [donor.donor() for donor in mine]
        results.append(
            replay(space, donors=donors, sampler=args.sampler, budget=args.budget, repeats=args.repeats, seed=args.seed)
        )
    beside = against.differences(results, other) if other else []
    if args.json:
        more = {"against": against.to_json(beside, other)} if other else {}
        say(json_text({"spaces": [result.as_json() for result in results], **more}))
    else:
        say("\n\n".join([_table(results), *([against.text(beside, other)] if other else [])]))


def _marks(budget: int) -> tuple[int, ...]:
    return tuple(mark for mark in MARKS if mark <= budget) or (budget,)


def _live(args: argparse.Namespace, spaces: Sequence[Recorded]) -> None:
    if args.donors or args.anonymous or args.sampler != "kiln":
        raise UsageError("--live goes without --donors, --anonymous and --sampler")
    found = []
    with fit(resolve(args.live), None, None) as device:
        parts = [slice_of(space, path, device) for space, path in zip(spaces, args.spaces, strict=True)]
        for space, part in zip(spaces, parts, strict=True):
            for one in searches(space, part, device, range(args.seed, args.seed + args.repeats), args.budget):
                found.append(one.as_json())
                if not args.json:
                    say(str(one))
    if args.json:
        say(json_text({"searches": found}))


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _in_order(donor: Recorded, space: Recorded) -> Recorded:
    """The donor with its parameters in the order of the space's, so that both are numbered alike."""
    places = [list(donor.params).index(name) for name in space.params]
    params = {name: donor.params[name] for name in space.params}
    return Recorded(donor.name, params, donor.index[:, places], donor.time_ms)


def _table(results: Sequence[Replayed]) -> str:
    """Fractions of the optimum, a row per space, and their mean where there are several."""
    rows = []
    for result in results:
        facts = result.as_json()
        error = "" if facts["area_se"] is None else f" ± {facts['area_se']:.3f}"
        numbers = [f"{fraction:.3f}" for fraction in facts["at"].values()]
        rows.append([result.space, facts["repeats"], *numbers, f"{facts['area']:.3f}{error}"])
    if len(results) > 1:
        means = np.mean([result.fractions.mean(axis=0) for result in results], axis=0)
        rows.append(["mean", len(results[0].fractions), *[f"{mean:.3f}" for mean in means], f"{means.mean():.3f}"])
    return table(["space", "repeats", *[f"at {mark}" for mark in results[0].marks], "area"], rows)
