"""Device sheets: device models that can be named on the command line, as data in kernels/sheets/*.toml.

A sheet is a claim. What a live device says wins over it (`kernels.claims` finds where the two differ); where no such
device is attached, a sheet is all there is.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

from kernels.sheet_file import parse_sheet
from kernels.sheet_nouns import KEYS, KINDS, Identity, Kind, Sheet, Strings, Trap, Value

__all__ = [
    "KEYS",
    "KINDS",
    "Identity",
    "Kind",
    "Sheet",
    "Strings",
    "Trap",
    "Value",
    "identity",
    "load_sheet",
    "parse_sheet",
    "sheet_names",
    "sheet_of",
]


def sheet_names() -> tuple[str, ...]:
    """Every sheet, in alphabetical order."""
    folder = resources.files("kernels") / "sheets"
    return tuple(sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml")))


@cache
def load_sheet(name: str) -> Sheet:
    """A sheet by its name. Raises KeyError for an unknown one, ValueError for a file that is no sheet."""
    if name not in sheet_names():
        raise KeyError(name)
    return parse_sheet(name, (resources.files("kernels") / "sheets" / f"{name}.toml").read_text("utf-8"))


def identity(name: str) -> Identity:
    """How a sheet's model is called and recognised. Raises KeyError for an unknown name."""
    return load_sheet(name).identity


def sheet_of(device: Strings) -> Sheet | None:
    """The sheet that a live device's strings match, if any does."""
    return next((sheet for sheet in map(load_sheet, sheet_names()) if sheet.identity.matches(device)), None)
