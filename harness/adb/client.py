"""The adb client: which phones it sees, in which state, and commands for one of them.

Listing, states and messages are as in AOSP's adb (transport.cpp, client/commandline.cpp) and Debian's 29.0.6.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import DeviceMissing, KilnError

CALL_S = 30.0  # of a command that does no work: a busy phone answers `dumpsys` in seconds, adb's server starts in one
_LINE = re.compile(
    r"(?P<serial>\(no serial number\)|\S+)\s+"
    r"(?P<state>no permissions|device|offline|unauthorized|authorizing|connecting|recovery|rescue|sideload|bootloader"
    r"|host|\S+)(?P<rest>.*)"
)
_REMEDIES = {
    "unauthorized": (
        'has not authorised this computer: unlock it, answer "Allow USB debugging?" with yes, and run this again; '
        "where it does not ask, revoke the authorisations in its developer options and plug it in again"
    ),
    "offline": ("is offline: plug it in again or run `adb reconnect offline`; after a reboot it takes half a minute"),
    "no permissions": (
        "may not be opened by this user: install the udev rules (Debian and Ubuntu: apt install "
        "android-sdk-platform-tools-common), join the group plugdev, and plug it in again"
    ),
    "authorizing": "is still connecting: wait a few seconds and run this again",
    "connecting": "is still connecting: wait a few seconds and run this again",
}
NO_ADB = (
    "adb is not on the PATH: install it (Debian and Ubuntu: apt install adb; elsewhere Google's SDK Platform Tools), "
    "or run Kiln on the device itself, see harness/PHONES.md"
)
NO_PHONE = (
    "no phone is attached: connect one with a cable that carries data, switch on USB debugging in its developer "
    "options, and look whether `adb devices` lists it"
)


@dataclass(frozen=True)
class Phone:
    """A line of `adb devices -l`."""

    serial: str
    state: str  # "device" where it can be used
    model: str = ""

    @property
    def wrong(self) -> str | None:
        """Why it cannot be used and what mends that, as a sentence; None where it can."""
        if self.state == "device":
            return None
        words = _REMEDIES.get(self.state, f"is in state {self.state}: boot it as usual (`adb reboot`)")
        return f"phone {self.serial} {words}"

    def __str__(self) -> str:
        return f"{self.serial} ({self.model})" if self.model else self.serial


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """Its last line of complaint, for a sentence."""
        lines = [line.strip() for line in (*self.out.splitlines(), *self.err.splitlines()) if line.strip()]
        return lines[-1] if lines else f"exit status {self.status} and no word"


def find() -> str | None:
    """The adb client on the PATH."""
    return shutil.which("adb")


def phones(adb: str) -> list[Phone]:
    """What `adb devices -l` lists. Raises DeviceMissing where adb itself fails."""
    done = _run([adb, "devices", "-l"], CALL_S)
    if done is None or done.status:
        words = f"did not answer within {CALL_S:.0f} s" if done is None else done.last
        raise DeviceMissing(f"adb does not list its devices: {words}; try `adb kill-server` and run this again")
    return listed(done.out)


def version(adb: str) -> str:
    """What the client says of its version."""
    done = _run([adb, "version"], CALL_S)
    return done.out.strip() if done and not done.status else "adb does not tell its version"


def listed(text: str) -> list[Phone]:
    """The phones in the output of `adb devices -l`."""
    _, _, body = text.partition("List of devices attached")
    found = []
    for line in body.splitlines():
        if match := _LINE.fullmatch(line.strip()):
            told = dict(re.findall(r"\b(model|product|device):(\S+)", match["rest"]))
            found.append(Phone(match["serial"], match["state"], told.get("model", "").replace("_", " ")))
    return found


class Silent(KilnError):
    """A phone does not answer."""


class Adb:
    """One phone, by serial."""

    def __init__(self, adb: str, serial: str) -> None:
        self.adb, self.serial = adb, serial

    def words(self, *words: str) -> tuple[str, ...]:
        """A command line of the adb client for this phone."""
        return (self.adb, "-s", self.serial, *words)

    def run(self, *words: str, timeout_s: float = CALL_S) -> Done | None:
        """Run the adb client; None where it does not end in time."""
        return _run(self.words(*words), timeout_s)

    def shell(self, text: str, timeout_s: float = CALL_S) -> Done | None:
        """Run a line of shell on the phone; None where that does not end in time."""
        return self.run("shell", "-T", text, timeout_s=timeout_s)

    def ask(self, text: str, timeout_s: float = CALL_S) -> str:
        """What a line of shell prints on the phone. Raises Silent where it fails."""
        done = self.shell(text, timeout_s)
        if done is None or done.status:
            raise Silent(f"phone {self.serial} does not answer: {done.last if done else f'not in {timeout_s:g} s'}")
        return done.out


def _run(words: Sequence[str], timeout_s: float) -> Done | None:
    try:
        done = subprocess.run(
            words,
            check=False,
            capture_output=True,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
            errors="replace",
            start_new_session=True,  # Ctrl-C in the terminal is for Kiln, which has things to put back
        )
    except subprocess.TimeoutExpired:
        return None
    except OSError as error:
        raise DeviceMissing(f"adb does not start: {error}") from error
    return Done(done.returncode, done.stdout, done.stderr)
