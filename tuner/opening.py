"""The first record of a journal: what is asked, on which device, and what that device can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from harness.devices import DeviceChoice
from harness.journal import PROTOCOL, Journal, same_device
from harness.probe import ProbeResult, probe
from harness.supervisor import Supervisor


def opened(
    journal: Journal,
    supervisor: Supervisor,
    device: DeviceChoice,
    request: Mapping[str, Any],
    say: Callable[[str], None],
) -> ProbeResult:
    """Probe the device, unless an earlier run of this journal has, and write the study down; returns the probe.

    The probe serves as orientation and says which kernels are the anchors; finals take their limits from those anchors,
    timed again beside the candidates.
    """
    found = _known(journal, device)
    say("the device's limits were probed in an earlier run" if found else "probing the device's limits")
    found = found or probe(supervisor, device.sheet)
    for failure in found.failures:
        say(f"note: probe: {failure}")
    journal.study(
        request=request,
        device=dict(device.description),
        probe=found.to_json(),
        rates=found.headline(),
        protocol=f"kiln-{PROTOCOL}",
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return found


def _known(journal: Journal, device: DeviceChoice) -> ProbeResult | None:
    """What an earlier run found on this device with this driver."""
    for record in reversed(list(journal.of_kind("study"))):
        if same_device(record["device"], device.description):
            return ProbeResult.from_json(record["probe"])
    return None
