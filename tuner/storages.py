"""Opens what `--storage` names, and says in one sentence what is wrong with it.

journal:PATH                       a file that all workers reach, on one machine or a shared file system
postgresql+psycopg://user@host/db  a database, or any other SQLAlchemy URL that Optuna takes
grpc://host:port                   Optuna's proxy before such a database
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from harness.errors import KilnError, UsageError

EXTRA = "pip install 'kiln-workbench[scale]'"
_FORMS = "journal:PATH, postgresql+psycopg://USER@HOST/DATABASE or grpc://HOST:PORT"
_READY_S = 5.0  # for a proxy to answer at all
_ATTEMPTS = 6  # at what workers that start together can spoil for each other: tables, studies
_PAUSE_S = 0.3

_T = TypeVar("_T")


def check(url: str) -> None:
    """Raise UsageError where this can be no storage, before anything is opened."""
    scheme, colon, rest = url.partition(":")
    if scheme == "journal" and rest:
        return
    if scheme == "grpc":
        _host_and_port(url)
    elif not colon or not re.match(r"\w+(\+\w+)?://", url):
        raise UsageError(f'--storage "{shown(url)}" is none; give {_FORMS}')


def open_storage(url: str) -> BaseStorage:
    """The storage of a URL that `check` let pass.

    Raises UsageError for one that names nothing, KilnError where a package is missing or nobody answers.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with speaking(url):
        if url.startswith("journal:"):
            return _journal(Path(url.removeprefix("journal:")))
        if url.startswith("grpc:"):
            return _proxy(url)
        return again(lambda: _database(url))


def shown(url: str) -> str:
    """The URL without its password, whatever characters that has."""
    return re.sub(r"(://[^/@:]*):.*@", r"\1:…@", url)


@contextlib.contextmanager
def speaking(url: str) -> Iterator[None]:
    """Around calls of a storage: what it raises when it is away becomes a KilnError of one sentence."""
    try:
        yield
    except _failures() as error:
        raise KilnError(
            f"the storage {shown(url)} does not work ({_reason(error)}); what is finished is in the journal beside "
            "--out: see that the server is up and the address right, then run the same command again"
        ) from error


def _reason(error: BaseException) -> str:
    """The first line that says something."""
    details = getattr(error, "details", None)  # of gRPC, whose text is a table
    text = str(details() if callable(details) else error.__cause__ or error)
    return next((line.strip()[:200] for line in text.splitlines() if line.strip()), type(error).__name__)


def _failures() -> tuple[type[BaseException], ...]:
    """What storages raise for causes outside this program."""
    found: list[type[BaseException]] = [StorageInternalError, OSError, json.JSONDecodeError]
    if importlib.util.find_spec("sqlalchemy"):
        from sqlalchemy.exc import SQLAlchemyError

        found.append(SQLAlchemyError)
    if importlib.util.find_spec("grpc"):
        import grpc

        found.append(grpc.RpcError)
    return tuple(found)


def again(call: Callable[[], _T]) -> _T:
    """Do what fails when another worker makes the same thing at the same moment, a few times."""
    for left in reversed(range(_ATTEMPTS)):
        try:
            return call()
        except _failures() as error:
            if not left or not _spoilt(error):
                raise
            time.sleep(_PAUSE_S)
    raise AssertionError("the last attempt returns or raises")


def _spoilt(error: BaseException) -> bool:
    """Whether a database says that something is there already."""
    kinds = {type(error).__name__, type(error.__cause__).__name__}
    return bool(kinds & {"IntegrityError", "ProgrammingError"}) or "already exists" in f"{error} {error.__cause__}"


# ---------------------------------------------------------------- a file


class _FileLock(JournalFileOpenLock):
    """The kernel's lock on a file beside the journal: it goes with its process, however that ends.

    Optuna's own are files that a killed worker leaves behind, for half a minute in which everybody waits. What it was
    writing when a machine went down is cut off here: without its end the line was never read by anyone, and the next
    one appended to it would make the journal unreadable.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._fd = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o644)

    def acquire(self) -> bool:
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        with self._path.open("rb+") as journal:
            size = journal.seek(0, os.SEEK_END)
            if size:
                journal.seek(-1, os.SEEK_END)
                if journal.read(1) != b"\n":
                    journal.seek(0)
                    journal.truncate(journal.read().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the lock and of its file. Closing twice is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    __del__ = close


def _journal(path: Path) -> BaseStorage:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with path.open("rb") as file:
        first = file.readline()
    try:  # Optuna would write into whatever it is, and fail at the next reading
        if first.endswith(b"\n") and "op_code" not in json.loads(first):
            raise ValueError("no operation")
        return JournalStorage(JournalFileBackend(str(path), lock_obj=_FileLock(path)))
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise UsageError(f"{path} is no journal of Optuna's; name a new file in --storage journal:…") from error


# ---------------------------------------------------------------- a proxy


def _host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.path not in ("", "/"):
        raise UsageError(f'--storage "{shown(url)}" is no proxy; give grpc://HOST:PORT')
    return host, port


def _proxy(url: str) -> BaseStorage:
    host, port = _host_and_port(url)
    for package in ("grpc", "google.protobuf"):
        if not _installed(package):
            raise KilnError(f"--storage grpc://… needs Python packages that are not here: {EXTRA}")
    if not hasattr(optuna.storages, "GrpcStorageProxy"):
        raise KilnError(f"--storage grpc://… needs Optuna 4.2 or later, here is {optuna.__version__}: {EXTRA}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls itself experimental
        proxy = optuna.storages.GrpcStorageProxy(host=host, port=port)
    proxy.wait_server_ready(timeout=_READY_S)  # ConnectionError where nobody answers
    return proxy


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


# ---------------------------------------------------------------- a database


def _database(url: str) -> BaseStorage:
    from sqlalchemy.exc import ArgumentError

    try:
        return optuna.storages.get_storage(url)
    except ImportError as error:
        cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        name = (cause.name or "its driver").partition(".")[0]
        remedy = EXTRA if name == "psycopg" else f"pip install {name}"
        raise KilnError(f"--storage {url.partition(':')[0]}://… needs {name}, which is not here: {remedy}") from error
    except RuntimeError as error:  # its tables are another Optuna's; the text says which command upgrades them
        raise KilnError(f"the storage {shown(url)} cannot be used: {_reason(error)}") from error
    except (ArgumentError, ValueError) as error:
        raise UsageError(f'--storage "{shown(url)}" names no database that SQLAlchemy knows; give {_FORMS}') from error
