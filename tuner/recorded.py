"""Search spaces whose every configuration was measured before: a search replayed on one needs no device.

A file is an .npz of `meta` (JSON with `params`: name → values), `index` (configurations × parameters, which value each
has) and `time_ms` (not a number: failed to build or run).
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.errors import UsageError
from harness.records import Record, to_json
from kernels.spec import Config, Measurement, Stats, Verdict
from tuner.donors import Donor
from tuner.table import Table

VARIANT = "recorded"  # the one variant that a recorded space has


@dataclass(frozen=True)
class Recorded:
    """A recorded space as a search sees it, and the only door to its times."""

    name: str
    params: dict[str, list[Any]]
    index: npt.NDArray[np.intp]  # configurations × parameters
    time_ms: npt.NDArray[np.float64]
    meta: Mapping[str, Any] = field(default_factory=dict)  # whatever else the file says of itself

    @cached_property
    def table(self) -> Table:
        """Shared by all replays of this space."""
        return Table(self)

    @property
    def best_ms(self) -> float:
        """The optimum."""
        return float(np.nanmin(self.time_ms))

    @property
    def begins_with(self) -> list[dict[str, Any]]:
        """What a search there tries first: a record of ours begins with the family's default, where that is in it."""
        return [self.config(0)] if str(self.meta.get("protocol", "")).startswith("kiln-") else []

    def anonymous(self) -> Recorded:
        """The same space with parameters called x0, x1, …"""
        renamed = {f"x{i}": values for i, values in enumerate(self.params.values())}
        return Recorded(self.name, renamed, self.index, self.time_ms, self.meta)

    def config(self, row: int) -> dict[str, Any]:
        """Configuration of a row of `index`."""
        chosen = zip(self.params.items(), self.index[row].tolist(), strict=True)
        return {"variant": VARIANT, **{name: values[place] for (name, values), place in chosen}}

    def configs(self) -> Iterator[dict[str, Any]]:
        """All of them, those that failed too."""
        return (self.config(row) for row in range(len(self.index)))

    def reject(self, config: Config) -> str | None:
        """Only what was recorded is legal."""
        return None if self._row(config) is not None else "the configuration was recorded"

    def draw(self, rng: np.random.Generator) -> dict[str, Any] | None:
        """A random configuration."""
        return self.config(int(rng.integers(len(self.index))))

    def measure(self, config: Config, best_ns: float | None) -> Measurement:
        """What was recorded of a configuration. Raises KeyError where it was not."""
        row = self._row(config)
        if row is None:
            raise KeyError(f"not recorded: {dict(config)}")
        if np.isnan(self.time_ms[row]):
            return Measurement.failed(Verdict.BUILD_FAILED, "failed when the space was recorded")
        ns = float(self.time_ms[row]) * 1e6
        return Measurement(Verdict.OK, stats=Stats(ns, (ns, ns), 1), samples_ns=(ns,))

    def donor(self) -> Donor:
        """Everything that was recorded, as a donor of another search."""
        costs = np.where(np.isnan(self.time_ms), np.inf, self.time_ms * 1e6)
        return Donor(self.name, list(self.configs()), costs.tolist())

    def records(self) -> list[Record]:
        """The space as a journal would have it, for `tuner.judge`. Raises KeyError for one that is not of Kiln."""
        study = {"kind": "study", "device": self.meta["device"], "probe": self.meta["probe"]}
        what = {"kind": "trial", "workload": self.meta["workload"]}
        found = []
        for config in self.configs():
            measurement = to_json(self.measure(config, None))
            found.append({**what, "config": {**config, "variant": self.meta["variant"]}, "measurement": measurement})
        return [study, *found]

    @cached_property
    def _sorted(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        codes = np.ravel_multi_index(tuple(self.index.T), self._shape)
        order = np.argsort(codes, kind="stable")
        return codes[order], order

    @cached_property
    def _places(self) -> list[dict[Any, int]]:
        return [{value: place for place, value in enumerate(values)} for values in self.params.values()]

    @property
    def _shape(self) -> tuple[int, ...]:
        return tuple(len(values) for values in self.params.values())

    def _row(self, config: Config) -> int | None:
        if set(config) != {"variant", *self.params}:
            return None
        try:
            places = [place[config[name]] for name, place in zip(self.params, self._places, strict=True)]
        except KeyError:
            return None
        codes, order = self._sorted
        code = np.ravel_multi_index(places, self._shape)
        at = int(np.searchsorted(codes, code))
        return int(order[at]) if at < len(codes) and codes[at] == code else None


def load(path: Path) -> Recorded:
    """Read a recorded space. Raises UsageError, one sentence, where the file is not one."""
    try:
        with path.open("rb") as raw:  # np.load leaves a file that it cannot read open
            file = np.load(raw, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise UsageError(f"{path} is no recorded space: it has one array, without names")
            meta, index, time_ms = json.loads(str(file["meta"])), file["index"], file["time_ms"]
    except FileNotFoundError as error:
        raise UsageError(f"{path} is not there") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is no recorded space: {str(error).splitlines()[0]}") from error
    except KeyError as error:
        raise UsageError(f"{path} is no recorded space: it has no {error.args[0].split()[0]}") from error
    return _checked(path, meta, index, time_ms)


def _checked(path: Path, meta: Any, index: npt.NDArray[Any], time_ms: npt.NDArray[Any]) -> Recorded:
    """A space out of a file's three parts. Raises UsageError naming what is wrong with them."""

    def wrong(why: str) -> UsageError:
        return UsageError(f"{path} is no recorded space: {why}")

    params = meta.get("params") if isinstance(meta, dict) else None
    if not isinstance(params, dict) or not params:
        raise wrong("meta has no params")
    for name, values in params.items():
        known = isinstance(values, list) and all(isinstance(value, (int, float, str)) for value in values)
        if not known or not values or len(set(values)) != len(values):
            raise wrong(f"the values of {name} are no list of different numbers or words")
    if index.ndim != 2 or index.shape[1] != len(params) or not len(index) or index.dtype.kind not in "iu":
        raise wrong(f"index has no row of {len(params)} whole numbers per configuration")
    shape = tuple(len(values) for values in params.values())
    if (index < 0).any() or (index >= np.array(shape)).any():
        raise wrong("index points beyond the values of a parameter")
    if math.prod(shape) >= 2**63:
        raise wrong("it has more combinations than can be numbered")
    if time_ms.shape != (len(index),) or time_ms.dtype.kind not in "iuf":
        raise wrong("time_ms has no number per configuration")
    times = time_ms.astype(np.float64)
    measured = times[~np.isnan(times)]
    if not len(measured) or not (np.isfinite(measured) & (measured > 0)).all():
        raise wrong("time_ms has no positive time, or one that is not")
    if len(np.unique(np.ravel_multi_index(tuple(index.T), shape))) != len(index):
        raise wrong("a configuration is listed twice")
    # A configuration names its variant beside its parameters, and Optuna's names have a point after the variant.
    plain = [f"{name}_" if name == "variant" else name.replace(".", "_") for name in params]
    if len(set(plain)) != len(plain):
        raise wrong("parameters are told apart by points alone")
    return Recorded(path.stem, dict(zip(plain, params.values(), strict=True)), index.astype(np.intp), times, meta)
