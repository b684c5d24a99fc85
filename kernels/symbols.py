"""Symbols that stand for sizes and for a device, and the answers to questions about them: what `kernels.traced` uses.

Arithmetic on a symbol makes a larger term; a comparison becomes true or false as the path that is being walked says.
Terms and conditions are JSON values, `["*", "N", "K"]` and `["<=", "M", 16]`.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from kernels.spec import DeviceSheet

_LARGEST_DIM_BITS = 31  # kernels take sizes as 32-bit integers
_OPS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip


class Paths:
    """Answers conditions along one path and knows which path is next."""

    def __init__(self) -> None:
        self._answers: list[bool] = []
        self._taken: list[tuple[str, Any, bool]] = []
        self._known: dict[str, bool] = {}
        self._ranges: dict[str, tuple[float, float]] = {}

    def start(self) -> None:
        """Begin the path that `next` chose, at first the one of yes throughout."""
        self._taken, self._known, self._ranges = [], {}, {}

    def decide(self, condition: list[Any]) -> bool:
        """Whether the condition holds on this path; what earlier answers imply is no new question."""
        condition = _plain(condition)
        text = repr(condition)
        if text in self._known:
            return self._known[text]
        if (implied := self._implied(condition)) is not None:
            return implied
        at = len(self._taken)
        answer = self._answers[at] if at < len(self._answers) else True
        self._taken.append((text, condition, answer))
        self._known[text] = answer
        self._learn(condition, answer)
        return answer

    def _implied(self, condition: list[Any]) -> bool | None:
        """The answer that earlier ones about the same name leave, where there is one."""
        name, limit = _bound(condition)
        if name is None:
            return None
        low, high = self._ranges.get(name, _range_of(name))
        op = condition[0]
        if op in ("<", "<=", ">", ">="):
            ends = {_OPS[op](low, limit), _OPS[op](high, limit)}
            return ends.pop() if len(ends) == 1 else None
        inside = low <= limit <= high
        if inside and low == high:
            return bool(op == "==")
        return None if inside else bool(op == "!=")

    def _learn(self, condition: list[Any], answer: bool) -> None:
        name, limit = _bound(condition)
        if name is None:
            return
        low, high = self._ranges.get(name, _range_of(name))
        op = condition[0] if answer else _OPPOSITE[condition[0]]
        if op in ("<", "<=", "=="):
            high = min(high, limit - (op == "<"))
        if op in (">", ">=", "=="):
            low = max(low, limit + (op == ">"))
        self._ranges[name] = (low, high)

    @property
    def taken(self) -> list[tuple[Any, bool]]:
        """The questions of this path so far, each with its answer."""
        return [(condition, answer) for _, condition, answer in self._taken]

    def next(self) -> bool:
        """Go on to the next path; False after the last."""
        answers = [answer for _, _, answer in self._taken]
        while answers and not answers[-1]:
            answers.pop()
        if not answers:
            return False
        answers[-1] = False
        self._answers = answers
        return True


_OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}


def _plain(condition: list[Any]) -> list[Any]:
    """The same condition with known numbers on its right: `["<", ["*", 2, "M"], 5]` is `["<", "M", 3]`."""
    while condition[0] in _OPS and isinstance(condition[1], list) and isinstance(condition[2], int):
        op, (made, left, right), limit = condition
        if made in "+*" and isinstance(left, int):
            left, right = right, left
        if not isinstance(right, int) or isinstance(left, int | float):
            break
        if made in "+-":
            condition = [op, left, limit - right if made == "+" else limit + right]
        elif made == "*" and right > 0 and (op not in ("==", "!=") or limit % right == 0):
            up = op in ("<", ">=")  # x * 2 < 5 is x < 3, x * 2 <= 5 is x <= 2
            condition = [op, left, -(-limit // right) if up else limit // right]
        elif made == "//" and right > 0 and op not in ("==", "!="):
            condition = ["<" if op[0] == "<" else ">=", left, (limit + (op in ("<=", ">"))) * right]
        else:
            break
    return condition


def _bound(condition: list[Any]) -> tuple[str | None, int]:
    """What is compared with a known number, as text, and that number."""
    if condition[0] in _OPS and isinstance(condition[2], int):
        return condition[1] if isinstance(condition[1], str) else repr(condition[1]), condition[2]
    return None, 0


def _range_of(name: str) -> tuple[float, float]:
    """What a term may be before anything is asked: dims, whose names are upper-case, are at least 1."""
    return (1 if name.isidentifier() and name.isupper() else 0 if name in _NUMBERS else -math.inf, math.inf)


class _Bool:
    def __init__(self, paths: Paths, condition: list[Any]) -> None:
        self._paths, self._condition = paths, condition

    def __bool__(self) -> bool:
        return self._paths.decide(self._condition)

    def __int__(self) -> int:
        return int(bool(self))

    def __eq__(self, other: object) -> bool:  # (a <= 4) == (kind == "cpu")
        return bool(self) == bool(other)

    __hash__ = None  # type: ignore[assignment]  # nothing may look a symbol up


def _term(value: Any) -> Any:
    if isinstance(value, Number):
        return value.term
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        return value
    raise TypeError(f"a rule computes with {type(value).__name__}, which no engine can")


class Number:
    """A number that is not known yet: a dim, a limit of the device, or what was computed from them."""

    def __init__(self, paths: Paths, term: Any) -> None:
        self.paths, self.term = paths, term

    def _made(self, op: str, left: Any, right: Any) -> Number:
        return Number(self.paths, [op, _term(left), _term(right)])

    def _asked(self, op: str, other: Any) -> Any:
        if not isinstance(other, Number | int | float):
            return NotImplemented
        return _Bool(self.paths, [op, self.term, _term(other)])

    def __add__(self, other: Any) -> Number:
        return self._made("+", self, other)

    def __radd__(self, other: Any) -> Number:
        return self._made("+", other, self)

    def __sub__(self, other: Any) -> Number:
        return self._made("-", self, other)

    def __rsub__(self, other: Any) -> Number:
        return self._made("-", other, self)

    def __mul__(self, other: Any) -> Number:
        return self._made("*", self, other)

    def __rmul__(self, other: Any) -> Number:
        return self._made("*", other, self)

    def __floordiv__(self, other: Any) -> Number:
        return self._made("//", self, other)

    def __rfloordiv__(self, other: Any) -> Number:
        return self._made("//", other, self)

    def __mod__(self, other: Any) -> Number:
        return self._made("%", self, other)

    def __rmod__(self, other: Any) -> Number:
        return self._made("%", other, self)

    def __truediv__(self, other: Any) -> Number:
        return self._made("/", self, other)

    def __neg__(self) -> Number:
        return self._made("-", 0, self)

    def __lt__(self, other: Any) -> Any:
        return self._asked("<", other)

    def __le__(self, other: Any) -> Any:
        return self._asked("<=", other)

    def __gt__(self, other: Any) -> Any:
        return self._asked(">", other)

    def __ge__(self, other: Any) -> Any:
        return self._asked(">=", other)

    def __eq__(self, other: object) -> Any:
        return self._asked("==", other)

    def __ne__(self, other: object) -> Any:
        return self._asked("!=", other)

    def __bool__(self) -> bool:
        return self.paths.decide(["!=", self.term, 0])

    def bit_length(self) -> int:
        """As of an int that is not negative: one question for each length."""
        for bits in range(_LARGEST_DIM_BITS + 1):
            if self < 1 << bits:
                return bits
        raise ValueError("beyond the largest dim")

    def __index__(self) -> NoReturn:
        raise TypeError("a rule needs a number that only the engine knows")

    __hash__ = None  # type: ignore[assignment]


class _Pair:
    """Numbers in order, such as the largest work-item sizes."""

    def __init__(self, paths: Paths, name: str) -> None:
        self._paths, self._name = paths, name

    def __getitem__(self, index: int) -> Number:
        return Number(self._paths, f"{self._name}[{index}]")


class _Version:
    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def __ge__(self, other: tuple[int, int]) -> bool:
        return self._paths.decide(["opencl_c", *other])


class _Widths:
    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def __contains__(self, width: int) -> bool:
        return self._paths.decide(["subgroup", width])

    def __bool__(self) -> bool:
        return self._paths.decide(["subgroups"])


_NUMBERS = {field.name for field in dataclasses.fields(DeviceSheet) if field.type == "int"}


class Sheet:
    """A device of which nothing is known but what is asked."""

    vector_registers = DeviceSheet.vector_registers
    registers = DeviceSheet.registers

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self.opencl_c, self.subgroup_sizes = _Version(paths), _Widths(paths)
        # Without images both are 0, as what rules put in their place.
        self.image2d = _Pair(paths, "image2d")
        self.max_work_item_sizes = _Pair(paths, "max_work_item_sizes")

    @property
    def kind(self) -> str:
        """A plain text, which functions look up in tables."""
        return next((kind for kind in ("cpu", "gpu") if self._paths.decide(["kind", kind])), "other")

    def has(self, extension: str) -> bool:
        """As of a device sheet."""
        return self._paths.decide(["has", extension])

    def __getattr__(self, name: str) -> Number:
        if name not in _NUMBERS:
            raise TypeError(f"a rule reads {name} of the device, which is not traced")
        return Number(self._paths, name)
