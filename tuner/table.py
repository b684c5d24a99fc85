"""The legal configurations of one search as a matrix: what every sampler proposes rows of.

A space of up to LIMIT configurations is enumerated whole. Of a larger one the table holds a random part and grows by
what the search asks for, the neighbourhood of what turned out well: memory and time are bounded, whatever the space.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from kernels.spec import Config

LIMIT = 40_000  # enumerating costs 10 to 20 µs a configuration: a second at most
DRAWS = 6_000  # of a larger space, to begin with

Rows = npt.NDArray[np.intp]
Codes = npt.NDArray[np.uint16]


class SearchSpace(Protocol):
    """What a search needs to know of a space; `kernels.space.Space` is one, a recorded space another."""

    def configs(self) -> Iterator[dict[str, Any]]:
        """Every legal configuration once, in a fixed order; each names its `variant`."""

    def reject(self, config: Config) -> str | None:
        """Why a configuration is not legal, None if it is."""

    def draw(self, rng: np.random.Generator) -> dict[str, Any] | None:
        """A random legal configuration, None where the attempt led to none."""


class Table:
    """Rows are configurations; columns are `variant` and all parameters; an entry is the code of a value.

    Code 0 means that the row's variant has no such parameter.
    """

    def __init__(self, space: SearchSpace, *, limit: int = LIMIT, draws: int = DRAWS) -> None:
        self._space = space
        configs = list(islice(space.configs(), limit + 1))
        self.complete = len(configs) <= limit
        if not self.complete:
            rng = np.random.default_rng(0)
            configs = [config for config in (space.draw(rng) for _ in range(draws)) if config is not None]
        self.names = ["variant", *dict.fromkeys(n for config in configs for n in config if n != "variant")]
        self.values: list[list[Any]] = [
            list(dict.fromkeys(config[name] for config in configs if name in config)) for name in self.names
        ]
        self._column = {name: column for column, name in enumerate(self.names)}
        self._code_of = [{value: code for code, value in enumerate(values, 1)} for values in self.values]
        self._row_of: dict[bytes, int] = {}
        self.codes: Codes = np.zeros((0, len(self.names)), dtype=np.uint16)
        self.extend(configs)
        self.base = len(self)  # rows from here on depend on a search's course

    def __len__(self) -> int:
        return len(self.codes)

    def extend(self, configs: Iterable[Config]) -> Rows:
        """The rows of legal configurations, added where they are new. Values that the table lacks are passed over."""
        fresh: list[Codes] = []
        rows: list[int] = []
        for config in configs:
            codes = self._encode(config)
            if codes is None:
                continue
            key = codes.tobytes()
            if key not in self._row_of:
                self._row_of[key] = len(self) + len(fresh)
                fresh.append(codes)
            rows.append(self._row_of[key])
        if fresh:
            self.codes = np.concatenate([self.codes, np.array(fresh)])
        return np.array(rows, dtype=np.intp)

    def row(self, config: Config) -> int | None:
        """Row of a configuration, None if it is not legal here. A partial table takes it in."""
        codes = self._encode(config)
        found = None if codes is None else self._row_of.get(codes.tobytes())
        if found is None and codes is not None and not self.complete and self._space.reject(config) is None:
            found = int(self.extend([config])[0])
        return found

    def config(self, row: int) -> dict[str, Any]:
        """The configuration of a row."""
        codes = self.codes[row].tolist()
        return {n: self.values[i][code - 1] for i, (n, code) in enumerate(zip(self.names, codes, strict=True)) if code}

    def distance(self, rows: Rows, row: int) -> Rows:
        """In how many columns `rows` differ from `row`, not counting parameters that only one of the two has."""
        ours, its = self.codes[rows], self.codes[row]
        differ: Rows = ((ours != its) & (ours > 0) & (its > 0)).sum(axis=1)
        return differ

    def differing(self, rows: Rows, wish: Config) -> Rows:
        """In how many columns `rows` differ from a wish that need not be legal."""
        wanted = [self._code_of[column].get(wish.get(name), 0) for column, name in enumerate(self.names)]
        differ: Rows = (self.codes[rows] != np.array(wanted, dtype=np.uint16)).sum(axis=1)
        return differ

    def more(self, around: Iterable[int], draws: int, rng: np.random.Generator) -> Rows:
        """Of a partial table: the legal configurations one change away from given rows, and random ones."""
        configs = []
        for row in around:
            config = self.config(row)
            for name in config:
                if name != "variant":
                    configs += [{**config, name: value} for value in self.values[self._column[name]]]
        configs = [config for config in configs if self._space.reject(config) is None]
        configs += [config for config in (self._space.draw(rng) for _ in range(draws)) if config is not None]
        return self.extend(configs)

    def _encode(self, config: Config) -> Codes | None:
        codes = np.zeros(len(self.names), dtype=np.uint16)
        try:
            for name, value in config.items():
                column = self._column[name]
                codes[column] = self._code_of[column][value]
        except KeyError:
            return None
        return codes
