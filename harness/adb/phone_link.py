"""The link to one phone: the runner pushed once, waited for after a reboot, and what its end says of a candidate."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from harness.adb.client import Adb, Silent, phones
from harness.adb.condition import COOL_C, Gate, tell
from harness.adb.runner_file import RunnerFile
from harness.errors import DeviceMissing, KilnError
from kernels.spec import Verdict

FOLDER = "/data/local/tmp/kiln"  # what adb's shell may write and execute on every Android, without root
WAIT_S = 300.0  # for a phone that is gone: a boot takes half a minute to two, and somebody may have to fetch the cable
LEAST_SDK = 24  # Android 7: the first with shell protocol 2, without which stdin, stdout and stderr are one terminal
RUNNER_SDK = 29  # Android 10: what `make runner-android` builds for; bionic has glob from 28 on
# The slowest that a transfer is given time for: `adb push` reached 17 MB/s in one report, USB 2 and old cables less.
BYTES_PER_S = 2e6
_POLL_S = 1.0
_PUSH_S = 120.0
# With which `adb shell` ends where the connection does: 0 where nothing told an exit status (AOSP's read_and_dump), 1
# where it could not connect, or the runner had nobody to answer; 255 for adb's own failures.
_LINK_STATUSES = (0, 1, 255)
_FULL = "No space left on device"


@dataclass(frozen=True)
class _Facts:
    boot: str | None  # changes with every boot; None where the phone does not tell
    up: bool  # whether it has booted to its end
    sdk: int  # Android's API level
    sha256: str  # of the runner there, "" = none


def _nothing() -> None:
    pass


class PhoneLink:
    """The link to one phone. For one supervisor at a time."""

    bytes_per_s = BYTES_PER_S

    def __init__(
        self,
        phone: Adb,
        runner: RunnerFile,
        *,
        cool_below_c: float = COOL_C,
        wait_s: float | None = None,
        say: Callable[[str], None] = tell,
    ) -> None:
        self.phone, self.runner = phone, runner
        self.gate = Gate(phone, cool_below_c, say)
        self._wait_s, self._say = WAIT_S if wait_s is None else wait_s, say
        self._gone_s = 0.0
        self._boot: str | None = None  # of the phone as it was last seen
        self._set_up: str | None = None  # the boot in which everything was put in its place
        self.after_reboot: Callable[[], None] = _nothing  # puts in place what a boot undoes

    def cooling_below(self, cool_below_c: float) -> PhoneLink:
        """The same link with another gate."""
        other = PhoneLink(self.phone, self.runner, cool_below_c=cool_below_c, wait_s=self._wait_s, say=self._say)
        other._boot, other._set_up = self._boot, self._set_up  # a journal asks for the boot before anything starts
        return other

    @property
    def command(self) -> tuple[str, ...]:
        """What gives the runner's stdin and stdout; more words at its end reach the runner."""
        return self.phone.words("shell", "-T", self.line(run="exec env"))

    def line(self, *more: str, run: str = "env") -> str:
        """The line of shell that starts the runner on the phone."""
        # `env`, not an assignment: the vendor's libraries are for the runner alone. `exec` leaves no shell in between.
        where = f"LD_LIBRARY_PATH=/vendor/lib64:/system/vendor/lib64 TMPDIR={FOLDER}"
        return " ".join((f"cd {FOLDER} && {run} {where} ./{self.runner.name}", *more))

    @property
    def waited_s(self) -> float:
        """For how long the phone was gone or too warm."""
        return self._gone_s + self.gate.waited_s

    def boot(self) -> str | None:
        """The boot in which the phone was last seen."""
        return self._boot

    def ready(self) -> None:
        """Have the phone here and the runner on it. Waits for one that was here before. Raises KilnError."""
        facts = self._look()
        if facts is None and self._boot is None:
            raise DeviceMissing(self._absence())
        if facts is None or not facts.up:
            facts = self._return(f"phone {self.phone.serial} does not answer")
        if facts.sdk < LEAST_SDK:
            raise DeviceMissing(
                f"phone {self.phone.serial} has Android API level {facts.sdk}, and adb passes bytes through unchanged "
                f"from {LEAST_SDK} (Android 7) on; run Kiln on the device itself, see harness/PHONES.md"
            )
        if facts.sdk < RUNNER_SDK:
            raise DeviceMissing(
                f"phone {self.phone.serial} has Android API level {facts.sdk}, and the runner is built for "
                f"{RUNNER_SDK} (Android 10) and later; run Kiln on the device itself, see harness/PHONES.md"
            )
        rebooted = self._set_up is not None and self._set_up != facts.boot
        self._boot = self._set_up = facts.boot
        if rebooted:
            self.after_reboot()
        if facts.sha256 != self.runner.sha256:
            self._push()

    def shell(self, text: str) -> str:
        """What a line of shell prints on the phone; raises OSError as reading a file of this machine would."""
        done = self.phone.shell(text)
        if done is None or done.status:
            raise OSError(f"phone {self.phone.serial}: {done.last if done else 'no answer'}")
        return done.out

    def settle(self) -> None:
        """Wait until the phone is here and cool; raises KilnError where its battery is low or its disk full."""
        try:
            self.gate.settle()
        except Silent:
            self.ready()
            self.gate.settle()

    def judge(self, op: str, verdict: Verdict, how: str, status: int | None) -> tuple[Verdict, str]:
        """Whose fault it was: the candidate's, where the phone stayed here or went down over it; else the cable's.

        Waits for a phone that is gone. Raises DeviceMissing where it stays away.
        """
        facts = self._look()
        was_here = facts is not None and facts.up
        if facts is None or not facts.up:
            facts = self._return(f"phone {self.phone.serial} is gone ({op})")
        before, self._boot = self._boot, facts.boot
        if before is not None and facts.boot != before:
            blamed = Verdict.CRASHED if op in ("build", "run") else Verdict.WORKER_LOST
            return blamed, "went down with the phone, which rebooted"
        if was_here and (status is None or (status > 0 and status not in _LINK_STATUSES)):
            return verdict, how
        return Verdict.WORKER_LOST, f"lost its link to the phone ({how})"

    def _look(self) -> _Facts | None:
        """The phone as it is now, None where it does not answer."""
        there = f"{FOLDER}/{self.runner.name}"
        done = self.phone.shell(
            "echo boot=$(cat /proc/sys/kernel/random/boot_id); echo up=$(getprop sys.boot_completed); "
            f"echo sdk=$(getprop ro.build.version.sdk); echo sum=$(sha256sum {there} 2>/dev/null)"
        )
        if done is None or done.status:
            if done is not None and "only supports allocating a pty" in done.err:
                return _Facts("", True, LEAST_SDK - 1, "")
            return None
        told = dict(line.split("=", 1) for line in done.out.split("\n") if "=" in line)
        sdk = told.get("sdk", "").strip()
        if not sdk.isdecimal():
            return None
        words = told.get("sum", "").split()
        return _Facts(
            told.get("boot", "").strip() or None, told.get("up", "").strip() == "1", int(sdk), words[0] if words else ""
        )

    def _return(self, why: str) -> _Facts:
        """Wait for the phone to come back. Raises DeviceMissing where it does not in time."""
        self._say(f"{why}: waiting up to {self._wait_s:.0f} s for it")
        start = time.monotonic()
        try:
            while (left := start + self._wait_s - time.monotonic()) > 0:
                self.phone.run("wait-for-device", timeout_s=left)
                facts = self._look()
                if facts is not None and facts.up:
                    self._say(f"phone {self.phone.serial} is back")
                    return facts
                time.sleep(min(_POLL_S, self._wait_s / 10))
        finally:
            self._gone_s += time.monotonic() - start
        raise DeviceMissing(
            f"{self._absence()}; it did not come back within {self._wait_s:.0f} s: everything finished is kept, "
            "run the same command again when it is here"
        )

    def _absence(self) -> str:
        """Why the phone cannot be used, in a sentence."""
        found = {phone.serial: phone for phone in phones(self.phone.adb)}
        phone = found.get(self.phone.serial)
        if phone is None:
            return f"phone {self.phone.serial} is not attached any more"
        return phone.wrong or f"phone {self.phone.serial} does not answer: unlock it, or plug it in again"

    def _push(self) -> None:
        """Put the runner there under a name that only a whole one has; those of other contents go."""
        name, part = f"{FOLDER}/{self.runner.name}", f"{FOLDER}/part-{os.getpid()}"
        size = f"{self.runner.path.stat().st_size >> 10} KiB"
        done = self.phone.shell(f"mkdir -p {FOLDER}")
        if done is not None and not done.status:
            done = self.phone.run("push", str(self.runner.path), part, timeout_s=_PUSH_S)
        if done is not None and not done.status:
            others = f"rm -f {FOLDER}/part-*; for f in {FOLDER}/kiln-runner-*; do [ $f = {name} ] || rm -f $f; done"
            done = self.phone.shell(f"chmod 755 {part} && mv {part} {name} && {others}")
        if done is not None and not done.status:
            return
        self.phone.shell(f"rm -f {part}")
        if done is not None and _FULL in done.out + done.err:
            raise KilnError(
                f"phone {self.phone.serial} has no room for the runner ({size}): free some space on it and run the "
                "same command again"
            )
        words = done.last if done else f"not done in {_PUSH_S:.0f} s"
        raise KilnError(f"the runner cannot be put on phone {self.phone.serial}: {words}")
