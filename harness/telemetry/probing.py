"""Once at start: which platform this is, and for each signal the first of its sources that can be read now."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from harness.runner.watching import reason
from harness.telemetry.parsers import GAUGES, METERS, Reading, numbers
from harness.telemetry.sources import FALLBACK, Platform, Source, load_platform, platform_names

Text = tuple[str | None, str | None]  # a text, or why there is none
Read = Callable[[Sequence[str]], Sequence[Text]]  # small files, and folders (paths that end in /), of the device
Shell = Callable[[str], str]  # a command in the device's shell → what it printed; raises OSError

NO_SHELL = "needs a shell on the device (adb)"
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_WORDS = re.compile(r"\{([^{}]+,[^{}]+)\}")


@dataclass(frozen=True)
class Member:
    """One file (or command) of a signal."""

    path: str
    constant: Reading = ()


@dataclass(frozen=True)
class Probed:
    """A signal with the source that was chosen for it and its files, or why there is none."""

    source: Source
    members: tuple[Member, ...]
    why: str | None = None

    @property
    def path(self) -> str:
        """Where it is read, for people: the one file, or the pattern of several."""
        return self.members[0].path if len(self.members) == 1 else self.source.where


def local_read(read: Callable[[str], str]) -> Read:
    """Reading for this machine, from a function that reads one text or raises OSError."""

    def each(paths: Sequence[str]) -> list[Text]:
        return [_tried(lambda path=path: read(path)) for path in paths]  # type: ignore[misc]

    return each


def probe(read: Read, shell: Shell | None = None, platform: str | None = None) -> tuple[Platform, tuple[Probed, ...]]:
    """The platform (found out where it is None) and its signals, those that cannot be read with the reason."""
    chosen = load_platform(platform or detect(read))
    texts = _Texts(read, chosen.sources, shell)
    signals: dict[str, list[Source]] = {}
    for source in chosen.sources:
        signals.setdefault(source.signal, []).append(source)
    return chosen, tuple(_first(candidates, texts) for candidates in signals.values())


def detect(read: Read) -> str:
    """The platform whose own paths can be read, else one whose paths are refused rather than missing, else linux."""
    refused = None
    for name in platform_names():
        if not (paths := load_platform(name).detect):
            continue
        for text, why in read(paths):
            if text is not None:
                return name
            if why is not None and not why.startswith(("ENOENT", "ENOTDIR")):
                refused = refused or name
    return refused or FALLBACK


class _Texts:
    """Everything that the sources want to read, read in few requests: over a cable each of them takes milliseconds."""

    def __init__(self, read: Read, sources: Sequence[Source], shell: Shell | None) -> None:
        self._got: dict[str, Text] = {}
        folders = [_folder(source.path) for source in sources if "*" in source.path]
        self._fetch(read, folders)
        patterns = [p for source in sources for p in (source.only, source.path, source.constant) if p]
        self._fetch(read, [path for pattern in patterns for path in self.expand(pattern)])
        for command in dict.fromkeys(source.command for source in sources if source.command):
            self._got[command] = _tried(lambda command=command: shell(command)) if shell else (None, NO_SHELL)  # type: ignore[misc]

    def _fetch(self, read: Read, paths: Iterable[str]) -> None:
        wanted = [path for path in dict.fromkeys(paths) if path not in self._got]
        if wanted:
            self._got.update(zip(wanted, read(wanted), strict=True))

    def __getitem__(self, path: str) -> Text:
        return self._got[path]

    def expand(self, pattern: str) -> list[str]:
        """The paths that a pattern stands for; of a folder that cannot be listed none."""
        if found := _RANGE.search(pattern):
            numbers = range(int(found[1]), int(found[2]) + 1)
            return [pattern[: found.start()] + str(n) + pattern[found.end() :] for n in numbers]
        if found := _WORDS.search(pattern):
            return [pattern[: found.start()] + word + pattern[found.end() :] for word in found[1].split(",")]
        if "*" not in pattern:
            return [pattern]
        folder = _folder(pattern)
        name, _, rest = pattern[len(folder) :].partition("/")
        return [f"{folder}{one}/{rest}" for one in (self[folder][0] or "").split() if fnmatchcase(one, name)]


def _first(candidates: Sequence[Source], texts: _Texts) -> Probed:
    """The first source that gives a value now; where there is none, the reason of each in one sentence."""
    reasons = []
    for source in candidates:
        members, why = _members(source, texts)
        if members:
            return Probed(source, members)
        reasons.append((source.where, why))
    first = reasons[0][1]  # its path stands beside it
    return Probed(candidates[0], (), "; ".join([first, *(f"{where}: {why}" for where, why in reasons[1:])]))


def _members(source: Source, texts: _Texts) -> tuple[tuple[Member, ...], str]:
    """The files of a source that can be read and understood, or why none can."""
    if source.command:
        why = _cannot(source, texts[source.command])
        return ((Member(source.command),), "") if why is None else ((), why)
    members, reasons = [], []
    paths = texts.expand(source.path)
    for index, path in enumerate(paths):
        if source.only:
            kind, why = texts[texts.expand(source.only)[index]]
            if kind is None or not kind.strip().lower().startswith(tuple(word.lower() for word in source.words)):
                reasons += [why] if why else []
                continue
        constant: Reading = ()
        if source.constant:
            text, why = texts[texts.expand(source.constant)[index]]
            constant = _constant(text)
            if not constant:
                reasons.append(why or f"no numbers in {source.constant}")
                continue
        if (why := _cannot(source, texts[path])) is None:
            members.append(Member(path, constant))
        else:
            reasons.append(why)
    if members:
        return tuple(members), ""
    if "*" in source.path and not paths:
        return (), texts[_folder(source.path)][1] or "nothing there has such a name"
    telling = [why for why in reasons if not why.startswith("ENOENT")]  # a number that is not there tells nothing
    if source.only and not telling and len(reasons) < len(paths):
        return (), f"there is none of {', '.join(source.words)}"
    return (), (telling or reasons)[0]


def _cannot(source: Source, text: Text) -> str | None:
    """Why a text is no reading of a source, or None."""
    if text[0] is None:
        return text[1] or "no text"
    parse: Mapping[str, Callable[[str], object]] = {**GAUGES, **{name: meter.read for name, meter in METERS.items()}}
    try:
        parse[source.parser](text[0])
    except (ValueError, ArithmeticError, LookupError, TypeError) as error:
        return f"not understood: {error}"
    return None


def _constant(text: str | None) -> Reading:
    try:
        return tuple(numbers(text)) if text is not None else ()
    except ValueError:
        return ()


def _tried(get: Callable[[], str]) -> Text:
    try:
        return get(), None
    except OSError as error:
        return None, reason(error)


def _folder(pattern: str) -> str:
    return pattern[: pattern.index("*")].rpartition("/")[0] + "/"
