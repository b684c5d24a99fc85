"""Rules and defaults of a family as trees of comparisons, for engines that cannot call Python.

A rule is a Python function of a configuration, a workload and a device sheet. For one configuration and one match only
the free dims and the device are unknown, so the function is called with symbols in their place: each comparison of
symbols is answered yes once and no once, and the answers lead to leaves. The result is a list of nodes; the first is
the root. A node is `[condition, then, else]`, where an integer is a later node and all else a leaf, or a leaf alone.
Conditions and numbers are JSON: `["<=", ["*", "N", "K"], "max_alloc_bytes"]`; kernels/engine/kiln.hpp reads them.

Nothing is sampled: whatever a function does with its arguments happens on every path. What symbols cannot do raises
TypeError, and the tests trace every rule of every family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

from kernels.spec import DeviceSheet, Workload
from kernels.symbols import Number, Paths, Sheet

Tree = list[Any]
Leaf = Any  # True, False, None (the function raised) or a text
_MOST_PATHS = 20_000  # of one function; gemm_prefill's default, the longest, has 110


def _symbolic(workload: Workload, free: tuple[str, ...], paths: Paths) -> Workload:
    """The workload with symbols for its free dims."""
    dims = {name: Number(paths, name) if name in free else size for name, size in workload.dims.items()}
    made = Workload(workload.family, {}, workload.dtypes, workload.weights, workload.options)
    object.__setattr__(made, "dims", MappingProxyType(dims))
    return made


def trace(function: Callable[[Workload, DeviceSheet], Leaf], workload: Workload, free: tuple[str, ...]) -> Tree:
    """The tree of what `function` gives for every value of the free dims on every device.

    None is the leaf where it raises ValueError, IndexError or ZeroDivisionError. Raises TypeError where it does what
    symbols cannot.
    """
    paths = Paths()
    found = []
    for _ in range(_MOST_PATHS):
        paths.start()
        try:
            leaf = function(_symbolic(workload, free, paths), Sheet(paths))  # type: ignore[arg-type]  # a stand-in
        except (ValueError, IndexError, ZeroDivisionError):
            leaf = None
        found.append((paths.taken, leaf))
        if not paths.next():
            return _tree(found)
    raise TypeError(f"a rule has more than {_MOST_PATHS} paths")


def _tree(found: list[tuple[list[tuple[Any, bool]], Leaf]]) -> Tree:
    """Nodes of all paths, each after those that lead to it, alike ones once."""
    order: list[Any] = []  # nodes, later ones first
    seen: dict[str, int] = {}

    def place(paths: list[tuple[list[tuple[Any, bool]], Leaf]], depth: int) -> Any:
        """("leaf", value) or ("node", number counted from the end)."""
        taken, leaf = paths[0]
        if len(taken) == depth:
            return ("leaf", leaf)
        yes = place([path for path in paths if path[0][depth][1]], depth + 1)
        no = place([path for path in paths if not path[0][depth][1]], depth + 1)
        if yes == no:
            return yes
        node = (taken[depth][0], yes, no)
        if (text := repr(node)) not in seen:
            seen[text] = len(order)
            order.append(node)
        return ("node", seen[text])

    root = place(found, 0)
    if root[0] == "leaf":
        return [root[1]]

    def end_of(end: Any) -> Any:
        return end[1] if end[0] == "leaf" else len(order) - 1 - end[1]

    return [[condition, end_of(yes), end_of(no)] for condition, yes, no in reversed(order)]


def leaves(tree: Tree) -> Iterator[Leaf]:
    """Every leaf of a tree."""
    for node in tree:
        for end in node[1:] if isinstance(node, list) else [node]:
            if isinstance(end, bool) or not isinstance(end, int):
                yield end
