"""What takes long is made by one worker of a test run; the others take it from a file."""

import fcntl
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

Made = TypeVar("Made")


def shared(factory: pytest.TempPathFactory) -> Path:
    """The folder that all workers of this run have in common."""
    mine = factory.getbasetemp()
    return mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[], Made]) -> Made:
    """What `make` gives, called by the first that asks in this run; those who ask meanwhile wait. A failure is tried
    again by the next."""
    file = shared(factory) / f"{name}.pickle"
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            made = make()
            file.with_suffix(".new").write_bytes(pickle.dumps(made))
            file.with_suffix(".new").replace(file)
        found: Made = pickle.loads(file.read_bytes())
    return found
