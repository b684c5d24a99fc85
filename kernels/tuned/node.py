"""Reads JSON values with checks that say where a value is wrong and what to do about it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from kernels.tuned.nouns import ConfigError

_T = TypeVar("_T")
LARGEST = 2**53 - 1  # every JSON reader holds it exactly
AGAIN = "tune again or restore the file"


@dataclass(frozen=True)
class Node:
    """A JSON value and its path, so that every complaint says where."""

    value: Any
    path: str

    def wrong(self, what: str, next_step: str = AGAIN) -> ConfigError:
        """The error to raise about this value."""
        return ConfigError(f"{self.path} {what}; {next_step}")

    def _expect(self, what: str) -> ConfigError:
        shown = repr(self.value)
        return self.wrong(f"should be {what}, found {shown if len(shown) <= 40 else shown[:37] + '...'}")

    def at(self, key: str) -> Node:
        """The member of that name, which must be there."""
        if not isinstance(self.value, dict):
            raise self._expect("an object")
        if key not in self.value:
            raise Node(None, f"{self.path}.{key}").wrong("is missing")
        return Node(self.value[key], f"{self.path}.{key}")

    def has(self, key: str) -> bool:
        """Whether there is a member of that name."""
        return isinstance(self.value, dict) and key in self.value

    def items(self) -> Iterator[tuple[str, Node]]:
        """Every member with its name."""
        if not isinstance(self.value, dict):
            raise self._expect("an object")
        for key, value in self.value.items():
            yield key, Node(value, f"{self.path}.{key}")

    def each(self, read: Callable[[Node], _T], *, least: int = 0, most: int | None = None) -> tuple[_T, ...]:
        """Every item of a list, read."""
        if not isinstance(self.value, list):
            raise self._expect("a list")
        if len(self.value) < least or (most is not None and len(self.value) > most):
            count = str(least) if most == least else f"{least} to {most}" if most is not None else f"at least {least}"
            raise self.wrong(f"should have {count} items, found {len(self.value)}")
        return tuple(read(Node(item, f"{self.path}[{i}]")) for i, item in enumerate(self.value))

    def optional(self, read: Callable[[Node], _T]) -> _T | None:
        """The value read, or None where it is null."""
        return None if self.value is None else read(self)

    def text(self, *choices: str) -> str:
        """A text, one of `choices` if any are given."""
        if not isinstance(self.value, str):
            raise self._expect("a text")
        if choices and self.value not in choices:
            raise self._expect(f"one of {', '.join(choices)}")
        return self.value

    def name(self) -> str:
        """A text that is not empty."""
        if self.text() == "":
            raise self._expect("a text that is not empty")
        return str(self.value)

    def like(self, pattern: str, what: str) -> str:
        """A text that the whole pattern matches."""
        if re.fullmatch(pattern, self.text()) is None:
            raise self._expect(what)
        return str(self.value)

    def integer(self, least: int = 0) -> int:
        """A whole number from `least` to LARGEST; 2.0 counts as one, as in JSON Schema."""
        whole = isinstance(self.value, int) or (isinstance(self.value, float) and self.value.is_integer())
        if isinstance(self.value, bool) or not whole or self.value < least:
            raise self._expect(f"an integer of at least {least}")
        if self.value > LARGEST:
            raise self._expect(f"at most {LARGEST}")
        return int(self.value)

    def positive(self) -> int:
        """A whole number of at least 1."""
        return self.integer(1)

    def number(self) -> float:
        """A finite number of at least 0."""
        good = isinstance(self.value, int | float) and not isinstance(self.value, bool)
        if not good or not math.isfinite(self.value) or self.value < 0:
            raise self._expect("a number of at least 0")
        return float(self.value)

    def scalar(self) -> Any:
        """A finite number, text, boolean or null, as it is."""
        finite = not isinstance(self.value, float) or math.isfinite(self.value)
        if not finite or (self.value is not None and not isinstance(self.value, str | int | float | bool)):
            raise self._expect("a number, a text, true, false or null")
        return self.value

    def object(self, read: Callable[[Node], _T]) -> dict[str, _T]:
        """Every member of an object, read."""
        return {key: read(node) for key, node in self.items()}
