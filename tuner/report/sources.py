"""Which files a report is made from: documents, journals and telemetry, told apart by what is in them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import telemetry
from harness.errors import KilnError, UsageError
from harness.records import Contents, read
from harness.telemetry.nouns import FORMAT as TELEMETRY
from kernels import tuned
from kernels.tuned import TunedConfig
from tuner.run import journal_path

RESULTS = Path("results")  # with its local/, where runs write by default
_JOURNAL = ".journal.jsonl"


@dataclass(frozen=True)
class Pair:
    """A document and its journal, or one of them alone."""

    document: tuple[Path, TunedConfig] | None
    journal: tuple[Path, Contents] | None

    @property
    def files(self) -> tuple[str, ...]:
        """Their paths, for people."""
        return tuple(str(one[0]) for one in (self.document, self.journal) if one)


@dataclass(frozen=True)
class Sources:
    """All that was found, in the order of its names."""

    pairs: tuple[Pair, ...]
    recordings: tuple[tuple[Path, telemetry.Recording], ...]


def find(named: Sequence[Path]) -> Sources:
    """Load what is named; of a folder, every document, journal and telemetry recording in it.

    A document brings the journal beside it, and a journal its document. Raises UsageError where nothing is found, and
    KilnError naming a file that is damaged or of none of these kinds.
    """
    paths: dict[Path, None] = {}
    for path in named or [RESULTS, RESULTS / "local"]:
        if path.is_dir():
            paths |= dict.fromkeys(_inside(path))
        elif path.exists():
            paths[path] = None
        elif named:
            raise UsageError(f"{path} is not there; name a tuned config, its journal or a telemetry recording")
    if not paths:
        where = ", ".join(map(str, named)) if named else f"{RESULTS} and {RESULTS / 'local'}"
        raise UsageError(f"nothing to report in {where}; make a tuned config with python -m tuner, or name one")
    pairs: dict[Path, Pair] = {}  # by the document's path
    told: list[tuple[Path, telemetry.Recording]] = []
    for path in paths:
        if path.name.endswith(_JOURNAL) or path.suffix == ".jsonl":
            document = path.with_name(path.name.removesuffix(_JOURNAL) + ".json")
            own = document if path.name.endswith(_JOURNAL) else path
            pairs.setdefault(own, _pair(document if document.exists() else None, path))
        elif _format(path) == TELEMETRY:
            told.append((path, _recording(path)))
        else:
            journal = journal_path(path)
            pairs.setdefault(path, _pair(path, journal if journal.exists() else None))
    return Sources(tuple(pairs.values()), tuple(told))


def _inside(folder: Path) -> list[Path]:
    """Files of a folder that look like ours; other programs' JSON may lie there too."""
    found = [path for path in folder.iterdir() if path.name.endswith(_JOURNAL)]
    found += [path for path in folder.glob("*.json") if _format(path) in (None, tuned.FORMAT, TELEMETRY)]
    return sorted(found)


def _format(path: Path) -> str | None:
    """What a JSON file says it is; "" where it says nothing, None where it cannot be read as JSON."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return str(found.get("format", "")) if isinstance(found, dict) else ""


def _recording(path: Path) -> telemetry.Recording:
    try:
        return telemetry.load(path)
    except OSError as error:
        raise KilnError(f"{path} cannot be read: {error.strerror}; check its permissions") from error
    except ValueError as error:
        raise KilnError(f"{error}; record it again or name other files") from error


def _pair(document: Path | None, journal: Path | None) -> Pair:
    loaded = None
    if document is not None:
        try:
            loaded = document, tuned.load(document)
        except ValueError as error:
            raise KilnError(str(error)) from error
    contents = None
    if journal is not None:
        contents = journal, read(journal)
        if not any(record["kind"] == "study" for record in contents[1].records):
            torn = contents[1].damaged
            what = f"line {torn[0]} is the first that cannot be read" if torn else "it is empty"
            raise KilnError(f"{journal} is no journal of python -m tuner, or it is damaged: no study in it, {what}")
    return Pair(loaded, contents)
