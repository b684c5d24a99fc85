"""Runs an OpenCL program that is no Python in this process, with every driver that Kiln finds: for hosts built here.

    python -m harness.hosted build/engine/kiln-example.so BUNDLE Portable

A process of its own would see PyPI's drivers through OCL_ICD_VENDORS, but not the repair that PyPI's PoCL needs on CPUs
newer than its LLVM (`harness.pocl_repair`), which is made in memory. So the program is linked a second time as a
library and its `main` is called. `--folder` prints a folder of .icd files for OCL_ICD_VENDORS instead, and keeps it.
"""

from __future__ import annotations

import ctypes
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness import runtimes
from harness.errors import DeviceMissing, UsageError, ended
from harness.tables import say


def main(words: Sequence[str]) -> int:
    """The command; the program's own exit code where it ran."""
    codes = [0]

    def command() -> None:
        if list(words) == ["--folder"]:
            say(folder())
        elif words and not words[0].startswith("-"):
            codes.append(_call(Path(words[0]), words[1:]))
        else:
            raise UsageError("usage: python -m harness.hosted LIBRARY ARGUMENT… | --folder")

    return ended(command) or codes[-1]


def folder() -> str:
    """A new folder with an .icd file for each driver that is here."""
    drivers = runtimes.find().drivers
    if not drivers:
        raise DeviceMissing("no OpenCL driver is here; install one with pip install 'kiln-workbench[cpu]'")
    made = Path(tempfile.mkdtemp(prefix="kiln-vendors-"))
    for driver in drivers:
        (made / f"{driver.name}.icd").write_text(driver.library + "\n", encoding="utf-8")
    return str(made)


def _call(library: Path, arguments: Sequence[str]) -> int:
    if not library.is_file():
        raise UsageError(f"{library} is not there; make engine-example builds it")
    if not runtimes.prepare().drivers:
        raise DeviceMissing("no OpenCL driver is here; install one with pip install 'kiln-workbench[cpu]'")
    try:
        program = ctypes.CDLL(str(library.resolve()))
    except OSError as error:
        raise UsageError(f"{library} does not load: {error}") from error
    argv = [str(library), *arguments]
    array = (ctypes.c_char_p * (len(argv) + 1))(*(word.encode() for word in argv), None)
    code = int(program.main(len(argv), array))
    sys.stdout.flush()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
