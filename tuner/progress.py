"""The live line of a search: time left, best so far, percent of the limit, failures by verdict."""

from __future__ import annotations

import sys
from collections import Counter
from types import TracebackType

from tqdm import tqdm

from harness.tables import time_text
from kernels.spec import Verdict
from tuner.search import Outcome, Trial


class Progress:
    """A tqdm bar over the search's seconds. Where stderr is no terminal, one line a workload takes its place."""

    def __init__(self, seconds: float, resumed: int) -> None:
        self._bar = tqdm(
            total=round(seconds),
            unit="s",
            disable=None,  # None: only where there is a terminal to draw on
            bar_format="{desc} {percentage:3.0f}%|{bar:20}| {n:.0f}/{total:.0f} s {postfix}",
            dynamic_ncols=True,
        )
        self._seconds, self._spent = seconds, 0.0
        self._failures: Counter[str] = Counter()
        self._trials = resumed

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.close()

    def workload(self, label: str) -> None:
        """Say which workload is being searched."""
        if self._bar.disable:
            print(f"searching: {label}", file=sys.stderr, flush=True)
        self._bar.set_description_str(label[:44].ljust(44))

    def trial(self, trial: Trial, outcome: Outcome, limit_ns: float, seconds: float) -> None:
        """One trial has ended; `seconds` is what this search has spent in all."""
        self._trials += 1
        if trial.measurement.verdict not in (Verdict.OK, Verdict.ABANDONED):
            self._failures[str(trial.measurement.verdict)] += 1
        best = outcome.ok[0].cost_ns if outcome.ok else None
        parts = [f"{self._trials} trials", f"best {time_text(best)}"]
        if best:
            parts.append(f"{100 * limit_ns / best:.0f} % of limit")
        parts += [f"{count} {verdict}" for verdict, count in sorted(self._failures.items())]
        self._bar.set_postfix_str(", ".join(parts), refresh=False)
        spent = min(seconds, self._seconds)  # the last trial may overrun; a bar beyond its end would draw no more
        self._bar.update(spent - self._spent)
        self._spent = spent
