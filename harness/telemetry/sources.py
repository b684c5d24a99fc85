"""Where each platform tells its signals: harness/telemetry/sources/*.toml, read into Sources.

A file has `detect` (paths that only this platform has), `extends` (files whose sources follow its own), `order` (the
smallest is looked at first) and any number of [[source]]. Several sources of one signal are tried in their order. In
a path `{0..15}` stands for each of these numbers, `{usb,ac}` for each of these words and `*` for each name in that
folder; all paths that can be read then make one signal, combined as `combine` says.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from statistics import fmean

from harness.telemetry.parsers import GAUGES, METERS

COMBINE: dict[str, Callable[[Sequence[float]], float]] = {
    "one": lambda values: values[0],
    "mean": fmean,
    "max": max,
    "sum": sum,
}
FALLBACK = "linux"


@dataclass(frozen=True)
class Source:
    """One way to read a signal."""

    signal: str  # ends in its unit
    unit: str
    parser: str
    period_ms: float  # no shorter: the source has nothing new before, or reading it costs too much
    path: str = ""
    command: str = ""  # instead of a path, in the device's shell
    scale: float = 1.0  # the parser's value times this
    combine: str = "one"
    constant: str = ""  # a path beside each path, read once, that the parser needs
    only: str = ""  # a path beside each path, read once, whose text decides whether the path belongs to the signal …
    words: tuple[str, ...] = ()  # … by beginning with one of these
    note: str = ""

    @property
    def where(self) -> str:
        """The path or the command, for people."""
        return self.path or self.command


@dataclass(frozen=True)
class Platform:
    """One file."""

    name: str
    order: int
    detect: tuple[str, ...]
    sources: tuple[Source, ...]  # its own, then those of the files that it extends


def platform_names() -> tuple[str, ...]:
    """Every platform's name, in the order in which they are looked for; files that are only extended are left out."""
    folder = resources.files("harness.telemetry") / "sources"
    names = [file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml")]
    found = [platform for platform in map(load_platform, names) if platform.detect or platform.name == FALLBACK]
    return tuple(platform.name for platform in sorted(found, key=lambda platform: (platform.order, platform.name)))


@cache
def load_platform(name: str) -> Platform:
    """A platform by its name. Raises ValueError for a file that has something else in it than it should."""
    text = (resources.files("harness.telemetry") / "sources" / f"{name}.toml").read_text("utf-8")
    data = tomllib.loads(text)
    own = tuple(_source(name, table) for table in data.pop("source", ()))
    extends = data.pop("extends", [])
    order, detect = data.pop("order", 100), tuple(data.pop("detect", ()))
    if data:
        raise ValueError(f"{name}.toml: unknown {', '.join(sorted(data))}")
    return Platform(name, order, detect, own + tuple(s for parent in extends for s in load_platform(parent).sources))


def _source(name: str, table: dict[str, object]) -> Source:
    try:
        source = Source(**{**table, "words": tuple(table.get("words", ()))})  # type: ignore[arg-type]
    except TypeError as error:
        raise ValueError(f"{name}.toml: {error}") from error
    if source.parser not in GAUGES.keys() | METERS.keys():
        raise ValueError(f"{name}.toml: {source.signal}: no parser {source.parser!r}")
    if source.combine not in COMBINE:
        raise ValueError(f"{name}.toml: {source.signal}: combine is one of {', '.join(COMBINE)}")
    if bool(source.path) == bool(source.command):
        raise ValueError(f"{name}.toml: {source.signal}: either a path or a command")
    return source
