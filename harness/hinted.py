"""A device with hints: the same device, its runner asked for a priority and a performance level."""

from __future__ import annotations

from dataclasses import replace

from harness.devices import DeviceChoice
from harness.errors import UsageError

LEVELS = ("low", "normal", "high")  # as harness.runner.hints has them, which loads OpenCL


def hinted(choice: DeviceChoice, *, priority: str | None, performance: str | None) -> DeviceChoice:
    """The device with its runner started with these hints; unchanged where none is asked for.

    The description then has `hints`, what was asked for, so that no time of it passes for one without. What came of
    them the runner tells (`Hello.hints`), and every measurement has it among its conditions. Raises UsageError for a
    native runner that is not Kiln's own: its command line is its own.
    """
    asked = {name: level for name, level in (("priority", priority), ("performance", performance)) if level}
    if not asked:
        return choice
    if not choice.python_runner and choice.link is None:
        names = " and ".join(f"--{name}" for name in asked)
        raise UsageError(f"{names}: a native runner takes its hints on its own command line, inside exec:'…'")
    words = [word for name, level in asked.items() for word in (f"--{name}", level)]
    return replace(choice, command=(*choice.command, *words), description={**choice.description, "hints": asked})
