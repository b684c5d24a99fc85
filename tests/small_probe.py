"""A probe of seconds instead of half a minute, for tests that look at none of its figures."""

import pytest

from harness import probe as probing
from harness.probe import ProbeResult
from harness.supervisor import Supervisor
from kernels.spec import DeviceSheet

_KINDS = ("cpu", "gpu", "other")
_PROBED: dict[str, ProbeResult] = {}


def shrink(patch: pytest.MonkeyPatch) -> None:
    """Have what `harness.probe` reads, copies and multiplies be little, in one width, few times."""
    patch.setattr(probing, "READ_BYTES", dict.fromkeys(_KINDS, 1 << 20))
    patch.setattr(probing, "COLD_BYTES", 2 << 20)
    patch.setattr(probing, "_CACHES", 0)
    patch.setattr(probing, "_MADD_NS", 1e5)
    patch.setattr(probing, "_FINAL_ROUNDS", 2)
    patch.setattr(probing, "_WIDTHS", dict.fromkeys(_KINDS, (4,)))


def probe_once(supervisor: Supervisor, sheet: DeviceSheet) -> ProbeResult:
    """A small probe of each device, once in a process: its limits do not change from test to test."""
    if sheet.name not in _PROBED:
        with pytest.MonkeyPatch.context() as patch:
            shrink(patch)
            _PROBED[sheet.name] = probing.probe(supervisor, sheet)
    return _PROBED[sheet.name]
