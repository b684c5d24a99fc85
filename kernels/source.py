"""Reads a variant's OpenCL C and flattens its includes, so that a source is one text that an engine can keep.

An include is `#include "name.clh"`, looked up beside the including file and then in `kernels/_common`; each file enters
once. No search path reaches the OpenCL compiler.
"""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.resources.abc import Traversable

_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"[^\n]*$', re.MULTILINE)
_PARAMETER = re.compile(r"^#ifndef ([A-Z][A-Z0-9_]*)\n#define \1 ", re.MULTILINE)


def source(family: str, name: str) -> str:
    """The text of `kernels/<family>/<name>` with its includes in place. Raises FileNotFoundError naming what lacks."""
    return _flatten(family, name, set())


def _flatten(family: str, name: str, seen: set[str]) -> str:
    if name in seen:
        return ""
    seen.add(name)
    text = _find(family, name).read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda match: _flatten(family, match[1], seen).rstrip("\n"), text)


def _find(family: str, name: str) -> Traversable:
    root = files("kernels")
    for folder in (family, "_common"):
        file = root.joinpath(folder, name)
        if file.is_file():
            return file
    raise FileNotFoundError(f"{name} is neither in kernels/{family} nor in kernels/_common")


def parameters(text: str) -> frozenset[str]:
    """Names that a source declares as parameters: `#ifndef NAME` directly followed by its `#define NAME default`."""
    return frozenset(_PARAMETER.findall(text))
