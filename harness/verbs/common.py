"""What several verbs share: naming a device, documents and families; a bar of progress."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

import kernels
from harness import bench
from harness.devices import DeviceChoice
from harness.errors import KilnError, UsageError
from kernels import tuned
from kernels.spec import Family
from kernels.tuned import TunedConfig

DEVICES = "auto, cpu, ocl:SUBSTRING, exec:'COMMAND', adb, adb:SERIAL or a GPU model such as adreno750"


def add_device(parser: argparse.ArgumentParser) -> None:
    """Declare --device, auto where it is not given."""
    parser.add_argument("--device", metavar="D", default="auto", help=f"{DEVICES} (default %(default)s)")


def add_families(parser: argparse.ArgumentParser) -> None:
    """Declare --kernels."""
    parser.add_argument("--kernels", metavar="A,B", help="families (default all)")


def add_documents(parser: argparse.ArgumentParser) -> None:
    """Declare --config."""
    add = parser.add_argument
    add("--config", action="append", type=Path, metavar="FILE", help="tuned configs (default: results/)")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Declare --json."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def documents(paths: Sequence[Path] | None, choice: DeviceChoice | None) -> list[TunedConfig]:
    """The tuned configs that are named, else those at hand for a device. Raises KilnError for one that is none."""
    try:
        return [tuned.load(path) for path in paths or (bench.documents(choice) if choice else [])]
    except (OSError, ValueError) as error:
        raise KilnError(str(error)) from error


def families(names: str | None) -> list[Family]:
    """The families that a comma-separated list names, all of them for None. Raises UsageError naming the choices."""
    known = kernels.families()
    wanted = names.split(",") if names is not None else list(known)
    if unknown := [name for name in wanted if name not in known]:
        raise UsageError(f'unknown kernel "{unknown[0]}"; choose from {", ".join(sorted(known))}')
    return [known[name] for name in dict.fromkeys(wanted)]


@contextmanager
def progress(unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr where that is a terminal; yields what to call with (done, of)."""
    with tqdm(disable=None, unit=unit) as bar:

        def tell(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        yield tell
