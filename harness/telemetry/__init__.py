"""Telemetry: what a device's sensors tell while something runs on it, with the phases of that on the same clock.

with telemetry.start() as recorder:
    with recorder.phase("prompt-eval", repeat):
        ...
recording = recorder.stop()
"""

from harness.telemetry.nouns import PHASES, Phase, Recording, Series, Signal, Spread, from_json, load
from harness.telemetry.recorder import Recorder, start

__all__ = [
    "PHASES",
    "Phase",
    "Recorder",
    "Recording",
    "Series",
    "Signal",
    "Spread",
    "from_json",
    "load",
    "start",
]
