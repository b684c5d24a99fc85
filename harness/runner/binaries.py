"""Program binaries in a folder, so that what one runner has built another need not: by source, options and driver.

PoCL compiles most of a kernel at its first launch, and asking it for a binary compiles every kernel in every form (0.2
to 3.2 s where the build took 0.2 to 0.7, GEMVs on Zen 5). But it has such a folder of its own, which holds just what
was launched; it is told to keep that one here, and of ours a name remains that says what was built.

Intel's CPU runtime takes 10 to 40 ms for a binary where it builds for 0.5 to 4.4 s, and runs both alike: of 14 GEMVs of
gemma-2b, timed in turn in 12 rounds, the medians' ratios were 0.96 to 1.07, half of them below 1.01 (Zen 3, a busy
machine). PoCL loads what it would have compiled, the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyopencl as cl

_POCL = "Portable Computing Language"
_DIGEST_BYTES = 32


def share_pocl_cache(folder: Path) -> None:
    """Have PoCL keep what it compiles in `folder`. Before the driver is loaded."""
    os.environ |= {"POCL_CACHE_DIR": str(folder / "pocl"), "POCL_KERNEL_CACHE": "1"}


class Binaries:
    """The folder, for one device. What cannot be read, is torn, or is refused by the driver is built and replaced."""

    def __init__(self, folder: Path, device: cl.Device) -> None:
        self._folder, self._device = folder, device
        self._driver_keeps = device.platform.name == _POCL
        self._identity = [device.name, device.version, device.driver_version]
        self._identity += [device.platform.name, device.platform.version]

    def find(self, context: cl.Context, source: str, options: Sequence[str]) -> cl.Program | None:
        """The program, built from its binary, or None where there is no good one."""
        if self._driver_keeps:
            return None
        return self._load(context, self._path(source, options), options)

    def keep(self, program: cl.Program, source: str, options: Sequence[str]) -> bool:
        """Keep what was built from source. True: it was here already, and the driver took it from its own part."""
        path = self._path(source, options)
        if self._driver_keeps and path.exists():
            return True
        self._store(path, program)
        return False

    def _path(self, source: str, options: Sequence[str]) -> Path:
        digest = hashlib.sha256()
        for text in (source, *options, "", *self._identity):
            digest.update(len(text.encode()).to_bytes(8, "little") + text.encode())
        return self._folder / digest.hexdigest()

    def _load(self, context: cl.Context, path: Path, options: Sequence[str]) -> cl.Program | None:
        try:
            data = path.read_bytes()
        except OSError:
            return None
        digest, binary = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if hashlib.sha256(binary).digest() != digest:
            return None
        try:
            program = cl.Program(context, [self._device], [binary])
            program.build(options=list(options))
        except cl.Error:
            return None
        return program

    def _store(self, path: Path, program: cl.Program) -> None:
        """Atomically, for readers beside; a full disk costs the next runner a build, and nobody a result."""
        try:
            binary = b"" if self._driver_keeps else _binary(program)
        except cl.Error:
            return
        with contextlib.suppress(OSError):
            handle, name = tempfile.mkstemp(dir=self._folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(hashlib.sha256(binary).digest() + binary)
                os.replace(name, path)
            except OSError:
                os.unlink(name)
                raise


def _binary(program: cl.Program) -> bytes:
    binaries: list[bytes] = program.get_info(cl.program_info.BINARIES)  # type: ignore[assignment]
    return binaries[0]
