"""The legal configurations of a workload on a device: enumerated by backtracking, counted exactly where possible."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from kernels.spec import Config, Denied, DeviceSheet, Family, Rule, Variant, Workload

EXACT_LIMIT = 1_000_000  # beyond this many legal configurations the count is an estimate
_PROBES = 2_000  # random descents an estimate is made from

Layout = tuple[tuple[str, str], ...]  # how each packed tensor is arranged: (tensor, layout's name), sorted


def layout_of(variant: Variant, config: Config, workload: Workload) -> Layout:
    """Layout of every packed tensor that a configuration reads."""
    return tuple(sorted(variant.layouts(config, workload).items()))


@dataclass(frozen=True)
class Space:
    """The union, over a family's variants, of their legal configurations."""

    family: Family
    workload: Workload
    sheet: DeviceSheet
    layouts: frozenset[Layout] | None = None  # what packed tensors may be arranged in; None: anything

    def reject(self, config: Config) -> str | None:
        """Why this configuration is not in the space, or None if it is."""
        return self.illegal(config) or self._broken(config, prunes=True)

    def illegal(self, config: Config) -> str | None:
        """Why this configuration may not run here, or None. Rules that only prune do not count."""
        names = [v.name for v in self.family.variants]
        if config.get("variant") not in names:
            return f"variant is one of {', '.join(names)}"
        variant = self.family.variant(config["variant"])
        if why := self._reject_variant(variant):
            return why
        given = set(config) - {"variant"}
        if given != set(variant.params):
            return f"parameters are exactly {', '.join(variant.params)}"
        for name, values in variant.params.items():
            if config[name] not in values:
                return f"{name} is one of {', '.join(map(str, values))}"
        return self._broken(config, prunes=False)

    def _broken(self, config: Config, *, prunes: bool) -> str | None:
        """The first rule, of those that only prune or of the others, that does not hold."""
        for rule in (*self.family.workload_rules, *self._rules(self.family.variant(config["variant"]))):
            if rule.prunes == prunes and not rule.holds(config, self.workload, self.sheet):
                return rule.why
        return None

    def _rules(self, variant: Variant) -> tuple[Rule, ...]:
        denials = self._denials(variant)
        layouts = self.layouts
        if layouts is None:
            return (*variant.rules, *denials)
        why = "everything that reads the same tensors can read this layout"
        names = arranging(variant, self.workload)
        shared = Rule(why, names, lambda config, workload, _: layout_of(variant, config, workload) in layouts, True)
        return (*variant.rules, *denials, shared)

    def _denials(self, variant: Variant) -> tuple[Rule, ...]:
        """What the driver gets wrong, as rules of one variant; what is wrong with a whole variant rejects it."""
        found = []
        for denied in self.sheet.denied:
            names = tuple(name for name, _ in denied.params if name != "variant")
            mine = denied.family == self.family.name and dict(denied.params).get("variant", variant.name)
            if mine == variant.name and names and set(names) <= set(variant.params):
                found.append(Rule(_right(denied), names, _not_in(denied, self.family.name)))
        return tuple(found)

    def reachable_layouts(self) -> frozenset[Layout]:
        """Every layout that a variant which runs here can read."""
        found = set()
        for variant in self.family.variants:
            if self._reject_variant(variant) is None:
                names = arranging(variant, self.workload)
                for values in product(*(variant.params[name] for name in names)):
                    config = variant.config(**dict(zip(names, values, strict=True)))
                    found.add(layout_of(variant, config, self.workload))
        return frozenset(found)

    def _reject_variant(self, variant: Variant) -> str | None:
        for extension in variant.needs:
            if not self.sheet.has(extension):
                return f"the device has {extension}"
        for denied in self.sheet.denied:
            if denied.covers(self.family.name, {"variant": variant.name}):
                return _right(denied)
        for rule in variant.workload_rules:
            if not rule.holds({"variant": variant.name}, self.workload, self.sheet):
                return rule.why
        return None

    def configs(self) -> Iterator[dict[str, Any]]:
        """Every legal configuration once, in a fixed order."""
        if any(not r.holds({}, self.workload, self.sheet) for r in self.family.workload_rules):
            return
        for variant in self.family.variants:
            if self._reject_variant(variant) is None:
                levels = _ordered(variant, self._rules(variant))
                yield from self._descend(variant, levels, {"variant": variant.name})

    def _descend(
        self, variant: Variant, levels: list[tuple[str, list[Rule]]], chosen: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        depth = len(chosen) - 1
        if depth == len(levels):
            yield {"variant": variant.name, **{name: chosen[name] for name in variant.params}}
            return
        name, rules = levels[depth]
        for value in variant.params[name]:
            step = {**chosen, name: value}
            if all(rule.holds(step, self.workload, self.sheet) for rule in rules):
                yield from self._descend(variant, levels, step)

    def draw(self, rng: np.random.Generator) -> dict[str, Any] | None:
        """A random legal configuration, None where a random descent led to none; for spaces too large to list."""
        variants = [v for v in self.family.variants if self._reject_variant(v) is None]
        if not variants or any(not r.holds({}, self.workload, self.sheet) for r in self.family.workload_rules):
            return None
        variant = variants[int(rng.integers(len(variants)))]
        chosen: dict[str, Any] = {"variant": variant.name}
        for name, rules in _ordered(variant, self._rules(variant)):
            legal = self._legal(name, variant, rules, chosen)
            if not legal:
                return None
            chosen[name] = legal[int(rng.integers(len(legal)))]
        return {"variant": variant.name, **{name: chosen[name] for name in variant.params}}

    def _legal(self, name: str, variant: Variant, rules: list[Rule], chosen: dict[str, Any]) -> list[Any]:
        """Values of a parameter that no rule decidable with it forbids, given what was chosen before."""
        return [
            value
            for value in variant.params[name]
            if all(rule.holds({**chosen, name: value}, self.workload, self.sheet) for rule in rules)
        ]

    @cached_property
    def _counted(self) -> tuple[int, bool]:
        total = 0
        for _ in self.configs():
            total += 1
            if total > EXACT_LIMIT:
                return self._estimate(), False
        return total, True

    @property
    def size(self) -> int:
        """How many configurations are legal: exact up to EXACT_LIMIT, estimated beyond."""
        return self._counted[0]

    @property
    def exact(self) -> bool:
        """Whether `size` was counted rather than estimated."""
        return self._counted[1]

    def _estimate(self) -> int:
        """Knuth's estimate of a backtracking tree's leaves (Math. Comp. 29, 1975): the mean over random descents
        of the product of the numbers of legal children met on the way."""
        rng = random.Random(0)
        total = 0.0
        for variant in self.family.variants:
            if self._reject_variant(variant) is not None:
                continue
            levels = _ordered(variant, self._rules(variant))
            weights = [self._random_descent(variant, levels, rng) for _ in range(_PROBES)]
            total += sum(weights) / _PROBES
        return round(total)

    def _random_descent(self, variant: Variant, levels: list[tuple[str, list[Rule]]], rng: random.Random) -> float:
        chosen: dict[str, Any] = {"variant": variant.name}
        weight = 1.0
        for name, rules in levels:
            legal = self._legal(name, variant, rules, chosen)
            if not legal:
                return 0.0
            weight *= len(legal)
            chosen[name] = rng.choice(legal)
        return weight


def _right(denied: Denied) -> str:
    return f"the driver gets it right ({denied.why})"


def _not_in(denied: Denied, family: str) -> Callable[[Config, Workload, DeviceSheet], bool]:
    return lambda config, workload, sheet: not denied.covers(family, config)


def arranging(variant: Variant, workload: Workload) -> tuple[str, ...]:
    """The parameters that layouts depend on: those whose values change the default's."""
    usual = layout_of(variant, variant.config(), workload)
    return tuple(
        name
        for name, values in variant.params.items()
        if any(layout_of(variant, variant.config(**{name: value}), workload) != usual for value in values)
    )


def _ordered(variant: Variant, rules: tuple[Rule, ...]) -> list[tuple[str, list[Rule]]]:
    """Parameters, those that the rules read first, each with the rules that become decidable when it is set."""
    read = [name for rule in rules for name in rule.names]
    names = sorted(variant.params, key=lambda name: (-read.count(name), list(variant.params).index(name)))
    levels: list[tuple[str, list[Rule]]] = []
    pending = list(rules)
    for depth, name in enumerate(names):
        known = set(names[: depth + 1])
        ready = [rule for rule in pending if known.issuperset(rule.names)]
        pending = [rule for rule in pending if rule not in ready]
        levels.append((name, ready))
    if pending:
        raise ValueError(f"variant {variant.name}: rule '{pending[0].why}' names a parameter that does not exist")
    return levels
