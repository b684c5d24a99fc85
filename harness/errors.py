"""What a command may end with: each error is one sentence for its user and the process's exit code.

KilnError            1  it failed
├── UsageError       2  wrong usage
└── DeviceMissing    3  the device is not there
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from harness.answers import RunnerLost

INTERRUPTED = 130


class KilnError(Exception):
    """Ends a command with one sentence: what, where, what next. Bugs raise other exceptions."""

    exit_code = 1


class UsageError(KilnError):
    """The request itself is wrong: an unknown name, an impossible option."""

    exit_code = 2


class DeviceMissing(KilnError):
    """The request is fine, but no such device is attached, or no OpenCL is installed."""

    exit_code = 3


def ended(command: Callable[[], None], interrupted: str = "interrupted") -> int:
    """Carry out a command; returns its exit code, its error as one sentence on stderr."""
    try:
        command()
    except RunnerLost as lost:  # between what is caught and judged, as when a driver fails at once
        print(f"kiln: {lost}; everything finished is kept, run the same command again", file=sys.stderr)
        return KilnError.exit_code
    except KilnError as error:
        print(f"kiln: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"kiln: {interrupted}", file=sys.stderr)
        return INTERRUPTED
    return 0
