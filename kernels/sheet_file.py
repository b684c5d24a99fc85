"""Reads a device sheet's TOML. Every value names its kind and source, and an error says where and what is wrong.

A value is `{ value = 32768, kind = "published", source = "mesa" }`, its source one or several of the short names that
`[sources]` explains. A trap is a table of `[[trap]]` with the same `kind` and `source`, the compilers that have it, and
the configurations that are denied because of it: `deny = [{ kernel = "rmsnorm", params = { variant = "subgroup" } }]`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from kernels.fit import compiler_meets
from kernels.sheet_nouns import KEYS, KINDS, Identity, Kind, Sheet, Trap, Value
from kernels.spec import Denied

Table = Mapping[str, Any]


def parse_sheet(name: str, text: str) -> Sheet:
    """Read a sheet's text. Raises ValueError saying file, key and what is wrong."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{name}.toml is not TOML: {error}") from error
    return _File(name, data).read()


def _count(value: Any) -> bool:
    return type(value) is int and value > 0


def _counts(value: Any, least: int = 1, most: int | None = None) -> bool:
    sized = isinstance(value, list) and least <= len(value) <= (most or len(value))
    return sized and all(map(_count, value))


def _names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) and item for item in value)


# Per type of KEYS: whether a value is of it, and what to say where it is not.
_TYPES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "count": (_count, "a positive integer"),
    "counts": (_counts, "a list of positive integers"),
    "pair": (lambda value: _counts(value, 2, 2), "two positive integers"),
    "triple": (lambda value: _counts(value, 3, 3), "three positive integers"),
    "rate": (lambda value: type(value) in (int, float) and 0 < value < float("inf"), "a positive number"),
    "flag": (lambda value: type(value) is bool, "true or false"),
    "text": (lambda value: isinstance(value, str) and value != "", "a text"),
    "names": (_names, "a list of names"),
    "version": (
        lambda v: isinstance(v, list) and len(v) == 2 and _count(v[0]) and type(v[1]) is int and v[1] >= 0,
        "a version as [3, 0]",
    ),
}


class _File:
    """One sheet being read: it remembers its name and which sources were used."""

    def __init__(self, name: str, data: Table) -> None:
        self.name, self.data = name, data
        self.used: set[str] = set()

    def read(self) -> Sheet:
        self._only("", self.data, {"identity", "sources", "trap", *KEYS})
        for key in ("identity", "sources", *KEYS):
            if not isinstance(self.data.get(key, {}), dict):
                raise self._error(key, "should be a table")
        self.sources = self.data.get("sources", {})
        for key, text in self.sources.items():
            self._check(f"sources.{key}", text, "text")
        identity = self._identity()
        values = {}
        for table, known in KEYS.items():
            self._only(table, self.data.get(table, {}), set(known))
            for key, entry in self.data.get(table, {}).items():
                values[f"{table}.{key}"] = self._value(f"{table}.{key}", entry, known[key])
        traps = self._list("trap", self.data.get("trap", []))
        sheet = Sheet(
            identity, MappingProxyType(values), tuple(self._trap(f"trap {i}", t) for i, t in enumerate(traps, 1))
        )
        self._relations(sheet)
        if unused := sorted(set(self.sources) - self.used):
            raise self._error(f"sources.{unused[0]}", "is the source of no value; remove it")
        return sheet

    def _identity(self) -> Identity:
        if "identity" not in self.data:
            raise self._error("identity", "is missing")
        table = self.data["identity"]
        self._only("identity", table, {"vendor", "model", "type", "match", "platform"})
        for key, kind in {"vendor": "text", "model": "text", "type": "text", "match": "names"}.items():
            self._check(f"identity.{key}", table.get(key), kind)
        if table["type"] not in ("gpu", "cpu"):
            raise self._error("identity.type", f'is "gpu" or "cpu", not {table["type"]!r}')
        patterns = {"match": table["match"], "platform": [table["platform"]] if "platform" in table else []}
        for key, texts in patterns.items():
            for text in texts:
                self._check(f"identity.{key}", text, "text")
                try:
                    re.compile(text)
                except re.error as error:
                    raise self._error(f"identity.{key}", f"is no regular expression: {error}") from error
        return Identity(
            self.name, table["vendor"], table["model"], table["type"], tuple(table["match"]), table.get("platform")
        )

    def _value(self, where: str, entry: Any, kind: str) -> Value:
        if not isinstance(entry, dict) or set(entry) != {"value", "kind", "source"}:
            raise self._error(where, "should be { value = …, kind = …, source = … }")
        self._check(where, entry["value"], kind)
        value = tuple(entry["value"]) if isinstance(entry["value"], list) else entry["value"]
        return Value(value, *self._provenance(where, entry))

    def _provenance(self, where: str, entry: Table) -> tuple[Kind, tuple[str, ...]]:
        if entry["kind"] not in KINDS:
            raise self._error(where, f"has kind {entry['kind']!r}; it is one of {', '.join(KINDS)}")
        names = entry["source"] if isinstance(entry["source"], list) else [entry["source"]]
        self._check(f"{where}.source", names, "names")
        for name in names:
            if name not in self.sources:
                raise self._error(where, f"names the source {name!r}, which [sources] does not list")
        self.used.update(names)
        return entry["kind"], tuple(self.sources[name] for name in names)

    def _trap(self, where: str, table: Any) -> Trap:
        needed = {"what", "guard", "kind", "source"}
        if not isinstance(table, dict) or not needed <= set(table):
            raise self._error(where, f"needs {', '.join(sorted(needed))}")
        self._only(where, table, needed | {"compiler", "deny"})
        for key in ("what", "guard"):
            self._check(f"{where}.{key}", table[key], "text")
        compiler = tuple(self._list(f"{where}.compiler", table.get("compiler", [])))
        for bound in compiler:
            try:
                compiler_meets(str(bound), "")
            except ValueError as error:
                raise self._error(f"{where}.compiler", f"is wrong: {error}") from error
        rules = self._list(f"{where}.deny", table.get("deny", []))
        denied = tuple(self._denied(f"{where}.deny", rule, table["what"]) for rule in rules)
        return Trap(table["what"], compiler, table["guard"], *self._provenance(where, table), denied)

    def _denied(self, where: str, rule: Any, why: str) -> Denied:
        good = isinstance(rule, dict) and set(rule) == {"kernel", "params"} and isinstance(rule["kernel"], str)
        if not good or not isinstance(rule["params"], dict) or not rule["params"]:
            raise self._error(where, "should be { kernel = …, params = { … } } with at least one parameter")
        if wrong := [name for name, value in rule["params"].items() if type(value) not in (int, str)]:
            raise self._error(where, f"has {wrong[0]}, which is neither an integer nor a text")
        return Denied(rule["kernel"], tuple(sorted(rule["params"].items())), why)

    def _relations(self, sheet: Sheet) -> None:
        """What no single value shows to be wrong."""
        for small, large in (
            ("limits.kernel_work_group", "limits.max_work_group"),
            ("limits.max_alloc_bytes", "limits.global_bytes"),
            ("registers.full", "registers.half"),
            ("registers.half", "registers.most"),
        ):
            low, high = sheet.get(small), sheet.get(large)
            if low is not None and high is not None and low > high:
                raise self._error(small, f"is {low}, more than {large}, {high}")
        both = set(sheet.get("language.extensions") or ()) & set(sheet.get("language.without") or ())
        if both:
            raise self._error("language.without", f"has {min(both)}, which language.extensions has too")
        sizes, wave = sheet.get("execution.subgroup_sizes"), sheet.get("execution.wave")
        if sizes and wave and wave not in sizes:
            raise self._error("execution.wave", f"is {wave}, which is none of the subgroup sizes {sizes}")

    def _list(self, where: str, found: Any) -> list[Any]:
        if not isinstance(found, list):
            raise self._error(where, "should be a list")
        return found

    def _check(self, where: str, value: Any, kind: str) -> None:
        good, what = _TYPES[kind]
        if value is None:
            raise self._error(where, "is missing")
        if not good(value):
            raise self._error(where, f"should be {what}, found {value!r}")

    def _only(self, where: str, table: Table, known: set[str]) -> None:
        if unknown := sorted(set(table) - known):
            path = f"{where}.{unknown[0]}" if where else unknown[0]
            raise self._error(path, f"is not a key of a device sheet; it has {', '.join(sorted(known))}")

    def _error(self, key: str, what: str) -> ValueError:
        return ValueError(f"{self.name}.toml: {key} {what}")
