"""Device sheets: GPU models that can be named on the command line, as data in kernels/sheets/*.toml."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class Identity:
    """How a GPU model is called and how a live device of that model is recognised."""

    name: str  # as in --device: the file's stem
    vendor: str
    model: str  # for people
    match: tuple[str, ...]  # regular expressions; one of them found in a device's strings is a match

    def matches(self, strings: str) -> bool:
        """Whether a device with these strings (name and version, one per line) is of this model."""
        return any(re.search(pattern, strings, re.IGNORECASE) for pattern in self.match)


def sheet_names() -> tuple[str, ...]:
    """Every sheet, in alphabetical order."""
    folder = resources.files("kernels") / "sheets"
    return tuple(sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml")))


@cache
def identity(name: str) -> Identity:
    """The [identity] table of a sheet. Raises KeyError for an unknown name."""
    if name not in sheet_names():
        raise KeyError(name)
    data = tomllib.loads((resources.files("kernels") / "sheets" / f"{name}.toml").read_text("utf-8"))["identity"]
    return Identity(name, data["vendor"], data["model"], tuple(data["match"]))


def sheet_of(strings: str) -> Identity | None:
    """The sheet that a live device's strings match, if any does."""
    return next((sheet for sheet in map(identity, sheet_names()) if sheet.matches(strings)), None)
