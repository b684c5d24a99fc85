"""Locks a rooted phone's GPU and memory clocks for a run: verified by reading back, undone however the run ends.

Before anything is written, a note on the phone keeps what was there; whoever finds the note of a run that is dead puts
it back. What is written where, and why not elsewhere (`max_gpuclk` is the thermal limit, `gpuclk` does not last,
`force_clk_on` returns early where a GMU owns the clocks), follows Qualcomm's KGSL driver (kgsl_pwrctrl.c), Linux'
devfreq, Arm's kbase (power_policy) and MediaTek's gpufreqv2. Nothing here has met a phone yet: what a phone does not
keep is an error with its values, never a lock that is believed.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shlex
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType

from harness.adb.client import Adb
from harness.adb.condition import tell
from harness.adb.phone_link import FOLDER
from harness.errors import KilnError, UsageError
from harness.journal import boot_id

NOTE = f"{FOLDER}/clocks.json"
UNROOTED = "adb shell cmd power set-fixed-performance-mode-enabled true"
_KGSL, _MALI, _MTK = "/sys/class/kgsl/kgsl-3d0", "/sys/class/misc/mali0/device", "/proc/gpufreqv2"
_DEVFREQ = ("min_freq", "max_freq", "available_frequencies")
_FILES = (
    *(f"{_KGSL}/{name}" for name in ("min_pwrlevel", "max_pwrlevel", "gpu_available_frequencies")),
    *(f"{_MTK}/{name}" for name in ("fix_target_opp_index", "gpu_working_opp_table")),
    f"{_MALI}/power_policy",
    *(f"{_MALI}/devfreq/*/{name}" for name in _DEVFREQ),
    *(f"/sys/class/devfreq/{kind}/{name}" for kind in ("*gpubw*", "*dmc*") for name in _DEVFREQ),  # memory's
)
_ROOTS = ("{}", "su -c {}", "su 0 sh -c {}")  # adbd is root; Magisk's su; that of Android's own debugging builds
_Handler = Callable[[int, FrameType | None], None] | signal.Handlers
_PASSES = 2  # a lower limit cannot rise above an upper one that has not risen yet


@dataclass(frozen=True)
class Knob:
    """A file of the phone and what it is to hold."""

    path: str
    value: str


@dataclass(frozen=True)
class Lock:
    """What is to be written, and at what clock the GPU then stays."""

    knobs: tuple[Knob, ...]
    gpu_mhz: float


# ---------------------------------------------------------------- what to write


def plan(files: Mapping[str, str], most_mhz: float = math.inf) -> Lock:
    """What locks the GPU at its fastest step of at most `most_mhz`, and the memory at its fastest.

    `files` are path → text. Raises KilnError for a phone with none of the known files, UsageError naming the steps.
    """
    memory = [knob for folder in _folders(files, "/sys/class/devfreq/") for knob in _devfreq(files, folder)[0]]
    if f"{_KGSL}/min_pwrlevel" in files and f"{_KGSL}/max_pwrlevel" in files:
        steps = [int(hz) / 1e6 for hz in files.get(f"{_KGSL}/gpu_available_frequencies", "").split()]
        level, mhz = _step(steps, most_mhz)  # power level 0 is the fastest, as is the first of the frequencies
        return Lock((*(Knob(f"{_KGSL}/{end}_pwrlevel", str(level)) for end in ("max", "min")), *memory), mhz)
    if f"{_MTK}/fix_target_opp_index" in files:
        table = re.findall(r"\[\s*(\d+)\]\s*freq:\s*(\d+)", files.get(f"{_MTK}/gpu_working_opp_table", ""))
        place, mhz = _step([int(khz) / 1e3 for _, khz in table], most_mhz)
        return Lock((Knob(f"{_MTK}/fix_target_opp_index", str(int(table[place][0]))), *memory), mhz)
    for folder in _folders(files, f"{_MALI}/devfreq/"):
        knobs, mhz = _devfreq(files, folder, most_mhz)
        policy = [Knob(f"{_MALI}/power_policy", "always_on")] if f"{_MALI}/power_policy" in files else []
        return Lock((*policy, *knobs, *memory), mhz)
    raise KilnError(f"this phone has none of the files that lock a GPU's clock ({_KGSL}, {_MALI}/devfreq, {_MTK})")


def _folders(files: Mapping[str, str], below: str) -> list[str]:
    return sorted({path.rpartition("/")[0] for path in files if path.startswith(below) and path.endswith("/max_freq")})


def _devfreq(files: Mapping[str, str], folder: str, most_mhz: float = math.inf) -> tuple[list[Knob], float]:
    steps = sorted(map(int, files.get(f"{folder}/available_frequencies", "").split()), reverse=True)
    place, mhz = _step([hz / 1e6 for hz in steps], most_mhz)
    return [Knob(f"{folder}/{end}_freq", str(steps[place])) for end in ("max", "min")], mhz


def _step(steps_mhz: list[float], most_mhz: float) -> tuple[int, float]:
    """The place and clock of the fastest step allowed; steps come fastest first."""
    if not steps_mhz:
        raise KilnError("this phone does not list the clocks that it can be locked at")
    for place, mhz in enumerate(steps_mhz):
        if mhz <= most_mhz + 0.5:
            return place, mhz
    raise UsageError(f"no clock of at most {most_mhz:g} MHz; there are {', '.join(f'{mhz:g}' for mhz in steps_mhz)}")


def held(path: str, text: str) -> str:
    """The value in force, of what reading a file gives."""
    if path.endswith("power_policy"):  # all policies, the one in force in brackets
        chosen = re.search(r"\[(\w+)\]", text)
        return chosen[1] if chosen else text.strip()
    if path.endswith("fix_target_opp_index"):  # a sentence with the number, or one without where none is fixed
        numbers = re.findall(r"-?\d+", text)
        return str(numbers[-1]) if numbers else "-1"
    return text.strip()


# ---------------------------------------------------------------- on the phone


class Clocks:
    """The clocks of one phone."""

    def __init__(self, phone: Adb, say: Callable[[str], None] = tell) -> None:
        self._phone, self._say = phone, say
        self._root: str | None = None  # how a line of shell is run as root
        self._now: tuple[list[Knob], Lock] | None = None  # what was there, and what is in force

    @contextlib.contextmanager
    def locked(self, most_mhz: float = math.inf) -> Iterator[Lock]:
        """Locked clocks, and what was there before after that, Ctrl-C and SIGTERM included.

        Raises KilnError for a phone that is not rooted, has no such files or does not keep what is written.
        """
        self.restore_left(must=True)
        self._be_root()
        files = self._read(_FILES)
        lock = plan(files, most_mhz)
        old = [Knob(knob.path, held(knob.path, files[knob.path])) for knob in lock.knobs]
        with _terminating():
            try:
                self._now = old, lock
                self.again()
                yield lock
            finally:
                self._now = None
                with _uninterrupted():
                    self._put_back(old)

    def again(self) -> None:
        """Lock as before: a reboot has undone it. Raises KilnError where the phone does not keep it."""
        if self._now is None:
            return
        old, lock = self._now
        self._root = None
        self._be_root()
        self._keep(old)
        if other := self._written(lock.knobs):
            raise KilnError(
                f"phone {self._phone.serial} does not keep its clocks: {other}; they are put back as they were; "
                f"without --lock-clocks, its fixed-performance mode steadies them: {UNROOTED}"
            )

    def restore_left(self, must: bool = False) -> None:
        """Undo what a dead run left. `must`: raises KilnError where a run that lives holds the clocks, or no root."""
        done = self._phone.shell(f"cat /proc/sys/kernel/random/boot_id; cat {NOTE} 2>/dev/null")
        boot, _, text = (done.out if done else "").partition("\n")
        if not text.strip():
            return
        try:
            note = json.loads(text)
            old = [Knob(path, value) for path, value in note["old"]]
            alive = note["host_boot"] == boot_id() and _alive(note["pid"])
        except (ValueError, LookupError, TypeError):
            self._say(f"{NOTE} on phone {self._phone.serial} is no note of its clocks; rebooting resets them")
            return
        if alive and note["pid"] != os.getpid():
            if must:
                raise KilnError(
                    f"another run (process {note['pid']}) has locked this phone's clocks; wait for its end, or "
                    "reboot the phone"
                )
            return
        if note["boot"] == boot.strip():  # a reboot has reset them
            self._say(f"putting back the clocks of phone {self._phone.serial}, which a run left locked that was killed")
            try:
                self._be_root()
            except KilnError as error:
                if must:
                    raise
                self._say(f"not possible: {error}; rebooting the phone resets them")
                return
        self._put_back(old if note["boot"] == boot.strip() else [])

    @property
    def rooted(self) -> bool:
        """Whether adb's shell can be root."""
        with contextlib.suppress(KilnError):
            self._be_root()
        return self._root is not None

    def _be_root(self) -> None:
        if self._root is None:
            for how in _ROOTS:
                done = self._phone.shell(_as_root(how, "id -u"))
                if done is not None and done.status == 0 and done.out.strip() == "0":
                    self._root = how
                    return
            raise KilnError(
                f"phone {self._phone.serial} is not rooted, or refuses root to adb's shell, and only root may lock "
                f"clocks; without root, its fixed-performance mode steadies them (Android 11 and later): {UNROOTED}"
            )

    def _read(self, paths: tuple[str, ...]) -> dict[str, str]:
        script = f'for f in {" ".join(paths)}; do [ -e $f ] || continue; echo "== $f"; cat $f 2>/dev/null; echo; done'
        answer = self._phone.ask(_as_root(self._root or "{}", script))
        blocks = re.split(r"^== (\S+)\n", answer, flags=re.M)
        return dict(zip(blocks[1::2], blocks[2::2], strict=True))

    def _written(self, knobs: tuple[Knob, ...]) -> str | None:
        """Write, read back; None, or what is there instead."""
        lines = [f"echo {knob.value} > {knob.path}" for knob in knobs] * _PASSES
        self._phone.shell(_as_root(self._root or "{}", "; ".join(lines)))
        now = self._read(tuple(knob.path for knob in knobs))
        for knob in knobs:
            if (is_ := held(knob.path, now.get(knob.path, ""))) != knob.value:
                return f"{knob.path} is {is_ or 'not readable'} after {knob.value} was written"
        return None

    def _keep(self, old: list[Knob]) -> None:
        boot = self._phone.ask("cat /proc/sys/kernel/random/boot_id").strip()
        note = {"boot": boot, "host_boot": boot_id(), "pid": os.getpid(), "old": [[k.path, k.value] for k in old]}
        self._phone.ask(f"mkdir -p {FOLDER} && echo {shlex.quote(json.dumps(note))} > {NOTE}")

    def _put_back(self, old: list[Knob]) -> None:
        """Restore and remove the note; where that fails the note stays, and a sentence tells."""
        try:
            other = self._written(tuple(old)) if old else None
            if other is None:
                self._phone.ask(f"rm -f {NOTE}")
                return
        except KilnError as error:
            other = str(error)
        self._say(f"the clocks of phone {self._phone.serial} are not as they were: {other}; rebooting it resets them")


def _as_root(how: str, text: str) -> str:
    return text if how == "{}" else how.format(shlex.quote(text))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextlib.contextmanager
def _terminating() -> Iterator[None]:
    """SIGTERM and a terminal that is closed end the block as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handling(signal.SIGTERM, interrupt), _handling(signal.SIGHUP, interrupt):
        yield


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            stack.enter_context(_handling(number, signal.SIG_IGN))
        yield


@contextlib.contextmanager
def _handling(number: signal.Signals, handler: _Handler) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only that one may
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)
