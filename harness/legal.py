"""Which configurations of a variant to prove on the device at hand: its default, then those with values not met yet.

A search measures them all; what only wants to know whether a variant is right runs a few per workload, chosen so that
between them they have every value of every parameter that is legal anywhere.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from kernels.space import Space
from kernels.spec import Config, DeviceSheet, Family, Variant, Workload

_LOOKS = 16  # configurations drawn before none is said to fit
_GPU_WORK_GROUP = 1024  # of the largest GPUs; a CPU's runtime allows more


Fits = Callable[[Workload, Config], bool]


@dataclass(frozen=True)
class Pick:
    """A configuration for a workload, and the sheet that it is legal on."""

    workload: Workload
    config: Config
    sheet: DeviceSheet


def claims(sheet: DeviceSheet) -> tuple[DeviceSheet, ...]:
    """The sheet, and what it would be if this device were a GPU: so candidates for phones are proven on a CPU."""
    if sheet.kind == "gpu":
        return (sheet,)
    return sheet, replace(sheet, kind="gpu", max_work_group=min(sheet.max_work_group, _GPU_WORK_GROUP))


class Picks:
    """Picks configurations of one variant, the same ones every time. `fits` may pass over what is legal but too big."""

    def __init__(
        self, family: Family, variant: Variant, sheets: Sequence[DeviceSheet], fits: Fits = lambda w, c: True
    ) -> None:
        self._family = family
        self._variant = variant
        self._sheets = sheets
        self._fits = fits
        self._rng = random.Random(f"{family.name} {variant.name}")
        self._met: Counter[tuple[str, Any]] = Counter()
        self._turn = 0

    def default(self, workload: Workload) -> Pick | None:
        """The variant's default, on the first sheet that it is legal on."""
        config = self._variant.config()
        for sheet in self._sheets:
            space = Space(replace(self._family, variants=(self._variant,)), workload, sheet)
            if space.reject(config) is None and self._fits(workload, config):
                return self._meet(Pick(workload, config, sheet))
        return None

    def other(self, workload: Workload) -> Pick | None:
        """A legal configuration, values met rarely first. The sheets take turns, so that a CPU runs what is for CPUs
        and what is for phones alike."""
        self._turn += 1
        for number in range(len(self._sheets)):
            sheet = self._sheets[(self._turn + number) % len(self._sheets)]
            if pick := self._draw(self._variant, workload, sheet):
                return self._meet(pick)
        return None

    def any(self, workload: Workload) -> Pick | None:
        """The default where it is legal, else another."""
        return self.default(workload) or self.other(workload)

    def missing(self, workloads: Sequence[Workload]) -> Iterator[Pick]:
        """One configuration for each value of a parameter that was not met yet and is legal for a workload."""
        values = [(name, value) for name, values in self._variant.params.items() for value in values]
        for name, value in values:
            if (name, value) not in self._met:
                fixed = replace(self._variant, params={**self._variant.params, name: (value,)})
                drawn = (self._draw(fixed, w, sheet) for w in workloads for sheet in self._sheets)
                if pick := next(filter(None, drawn), None):
                    yield self._meet(pick)

    def _meet(self, pick: Pick) -> Pick:
        self._met.update((name, value) for name, value in pick.config.items() if name != "variant")
        return pick

    def _draw(self, variant: Variant, workload: Workload, sheet: DeviceSheet) -> Pick | None:
        """The first leaf of the enumeration, each parameter's values in a new order; of some, the first that fits."""
        for look in range(_LOOKS):
            met = self._met if look == 0 else Counter()
            params = {
                name: tuple(sorted(values, key=lambda value: (met[name, value], self._rng.random())))
                for name, values in variant.params.items()
            }
            family = replace(self._family, variants=(replace(variant, params=params),))
            config = next(Space(family, workload, sheet).configs(), None)
            if config is None:
                return None
            if self._fits(workload, config):
                return Pick(workload, config, sheet)
        return None


def covering(family: Family, serves: Callable[[Workload], bool]) -> list[Workload]:
    """Few of the family's cover, the cheapest first, that between them have every format, policy, option and dim of a
    build that those have which `serves` is true of."""
    met: set[object] = set()
    found = []
    for workload in sorted(family.cover(), key=lambda workload: family.cost(workload).flops):
        traits: set[object] = {("weights", workload.weights), *asdict(workload.dtypes).items()}
        traits |= {*workload.options.items(), *((name, workload.dims[name]) for name in family.fixed)}
        if not traits <= met and serves(workload):
            met |= traits
            found.append(workload)
    return found
