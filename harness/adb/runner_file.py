"""The native runner for phones, as it lies on this machine."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from harness.errors import DeviceMissing


@dataclass(frozen=True)
class RunnerFile:
    """The native runner on this machine."""

    path: Path
    sha256: str

    @property
    def name(self) -> str:
        """Its file's name on a phone: the content is in it, so that another runner is another file."""
        return f"kiln-runner-{self.sha256[:16]}"

    @staticmethod
    def find() -> RunnerFile:
        """What KILN_RUNNER names, else build/kiln-runner-android here or in the checkout. Raises DeviceMissing."""
        named = os.environ.get("KILN_RUNNER")
        usual = Path("build") / "kiln-runner-android"
        places = [Path(named)] if named else [usual, Path(__file__).resolve().parents[2] / usual]
        for path in places:
            try:
                return RunnerFile(path, hashlib.sha256(path.read_bytes()).hexdigest())
            except OSError:
                continue
        where = f"KILN_RUNNER names {named}, which cannot be read" if named else f"{usual} is not there"
        raise DeviceMissing(
            f"the runner for phones is not built ({where}): make runner-android NDK=…, see harness/PHONES.md"
        )
