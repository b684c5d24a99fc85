"""A folder for a runner's temporary files, which does not outlive its host, however that ends.

A compiler leaves tens of kilobytes for each program; a host that is killed cannot remove them. So each folder holds a
lock that its host keeps, and whoever makes a folder first removes those of the same user that nobody keeps any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.errors import KilnError

PREFIX = "kiln-runner-"
_LOCK = "lock"
_YOUNG_S = 60.0  # between its making and its locking a folder is nobody's


class Scratch:
    """The folder at `path`. Use it as a context manager, or call `remove`."""

    def __init__(self) -> None:
        """Make and lock it. Raises KilnError where there is no room for it."""
        try:
            _sweep(Path(tempfile.gettempdir()))
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
            lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            raise KilnError(f"no temporary folder can be made: {error}; free some space or set TMPDIR") from error
        self._finalizer = weakref.finalize(self, _remove, self.path, lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove the folder and what is in it; again is fine."""
        self._finalizer()


def _remove(path: Path, lock: int) -> None:
    shutil.rmtree(path, ignore_errors=True)
    os.close(lock)


def _sweep(parent: Path) -> None:
    for path in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, or another sweep was first, or its host lives
            if time.time() - path.stat().st_mtime < _YOUNG_S:
                continue
            lock = os.open(path / _LOCK, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
