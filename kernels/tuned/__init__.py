"""The tuned config: the document that an engine loads. Write it atomically; load it or say in one sentence why not.

`nouns` are its parts, `encode` and `decode` turn them into JSON values and back, `check` holds the parts together, and
`kernels.select` picks an entry. The format is described by results/schema/tuned-config.schema.json.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kernels.tuned.check import check
from kernels.tuned.decode import decode
from kernels.tuned.encode import encode
from kernels.tuned.nouns import (
    FORMAT,
    READER,
    SCHEMA_VERSION,
    Bucket,
    ConfigError,
    Deny,
    DeviceFacts,
    Entry,
    EntryStats,
    Evidence,
    Interval,
    KernelSection,
    Match,
    Needs,
    Prediction,
    Programs,
    ProvenOn,
    Route,
    TunedConfig,
    Verification,
)

__all__ = [
    "FORMAT",
    "READER",
    "SCHEMA_VERSION",
    "Bucket",
    "ConfigError",
    "Deny",
    "DeviceFacts",
    "Entry",
    "EntryStats",
    "Evidence",
    "Interval",
    "KernelSection",
    "Match",
    "Needs",
    "Prediction",
    "Programs",
    "ProvenOn",
    "Route",
    "TunedConfig",
    "Verification",
    "dumps",
    "load",
    "loads",
    "write",
]


def write(path: Path, config: TunedConfig) -> None:
    """Replace the document at `path` by this one, or leave it as it was.

    The same config always gives the same bytes. Raises ConfigError (a ValueError) where the config breaks a rule of the
    format, and OSError where the disk refuses.
    """
    text = dumps(config)
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, because a rename is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power loss, where folders can be opened (not on Windows)."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def dumps(config: TunedConfig) -> str:
    """The document's text. Raises ConfigError where the config breaks a rule of the format."""
    document = encode(config)
    try:
        # What is written must be what a reader accepts, so the reader's own checks are the writer's too.
        check(decode(json.loads(json.dumps(document, allow_nan=False))))
    except ConfigError as error:
        raise ConfigError(f"this tuned config may not be written: {error}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"this tuned config holds a value that JSON has no form for: {error}") from error
    head = {name: document.pop(name) for name in ("format", "schema_version", "min_reader")}
    document = {**head, "content_sha256": _checksum({**head, **document}), **document}
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def load(path: Path) -> TunedConfig:
    """Read a document. Raises ConfigError with one sentence where it is not there, not whole, not ours or too new.

    A document that is well formed but differs from its checksum loads with `edited` set; `kernels.select` then trusts
    it less and says so.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is not there; make it with python -m tuner --out {path}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; check the path and its permissions") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text; tune again or restore the file") from error
    try:
        return loads(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def loads(text: str) -> TunedConfig:
    """Read a document's text, as `load` does; for engines without a file system."""
    try:
        document = json.loads(
            text,
            object_pairs_hook=_without_doubles,
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=_real,
        )
    except json.JSONDecodeError as error:
        cut_string = error.msg.startswith("Unterminated") and "\n" not in text[error.pos :]
        truncated = cut_string or error.pos >= len(text.rstrip())
        what = "ends in the middle" if truncated else f"is not JSON ({error.msg})"
        raise ConfigError(
            f"line {error.lineno}, column {error.colno}: the document {what}; tune again or restore the file"
        ) from error
    except ConfigError:
        raise
    except RecursionError as error:
        raise ConfigError(_TOO_DEEP) from error
    _check_values(document)
    config = decode(document)
    check(config)
    given = document.pop("content_sha256", None)
    if not isinstance(given, str):
        raise ConfigError("$.content_sha256 should be a text; tune again or restore the file")
    return replace(config, edited=given != _checksum(document))


def _checksum(document: Mapping[str, Any]) -> str:
    """SHA-256 of the document without its checksum, keys sorted and without spaces."""
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f'the document has "{twice}" twice in one object; remove one')
    return found


def _no_constant(name: str) -> Any:
    raise ConfigError(f"the document holds {name}, which JSON has no form for; tune again or restore the file")


# What JSON allows and readers differ in: integers beyond 64 bits, floats beyond a double's range, nesting, and escapes
# of half a character. kernels/engine/kiln.hpp refuses the same, so that a document is good everywhere or nowhere.
_TOO_LONG = "the document holds a number too long; tune again or restore the file"
_TOO_DEEP = "$ is nested too deeply to be a tuned config; restore the file"
_MAX_DEPTH = 64  # of lists and objects within each other; a document has ten


def _integer(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
        raise ConfigError(_TOO_LONG)
    return int(text)


def _real(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ConfigError(_TOO_LONG)
    return value


def _check_values(document: Any) -> None:
    """Raise ConfigError where values nest too deeply or a text holds half of a surrogate pair."""
    pending = [(document, 1)]
    while pending:
        value, depth = pending.pop()
        if isinstance(value, str):
            if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
                raise ConfigError("the document holds half of a character (\\ud800 to \\udfff); restore the file")
        elif isinstance(value, dict | list):
            if depth > _MAX_DEPTH:
                raise ConfigError(_TOO_DEEP)
            inner = [*value, *value.values()] if isinstance(value, dict) else value
            pending += [(item, depth + 1) for item in inner]
