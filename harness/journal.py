"""The journal of a study: append-only JSON lines, each on disk before the next trial starts; the only truth about it.

One record a line, `kind` says which: `study` (request, device, probe), `begin` (written ahead: about to run this),
`trial` (what came of it), `interrupted` (a `begin` taken back by Ctrl-C), `final`, `note`. A `begin` that nothing
follows, written before the last boot of the machine that the candidate runs on (this one, or a phone on a cable), means
that it went down with that candidate: it counts as crashed and is not tried again unless asked. Where others were being
built beside it (`ahead`), nobody can tell which of them it was: the candidate is measured again, and a study that has
met this builds nothing ahead any more. Within one boot only this program was killed: the runner is a process of its
own, whose end would have been noticed, so the candidate is not to blame and is measured again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from harness.candidate import Candidate
from harness.errors import KilnError
from harness.records import VERSION, Record, from_json, read, to_json
from kernels.spec import Measurement, Verdict

PROTOCOL = 1  # how trials are measured; a change that makes old times incomparable raises it
# Of a runner's raw description: what identifies silicon, driver and compiler.
IDENTITY = ("name", "vendor", "version", "driver_version", "platform_name", "platform_version", "vector_floats")
_LOST_LOG = "the machine went down while this candidate was being measured; --retry-crashed tries it again"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


Boot = Callable[[], str | None]


def trial_key(candidate: Candidate, device: Mapping[str, Any]) -> str:
    """What must be equal for a finished trial to be reused: source, options, schedule, workload, device and driver.

    `device` is the runner's raw description; only what identifies silicon, driver and compiler enters.
    """
    return _digest([candidate.key, candidate.workload.key, identity(device), PROTOCOL])


def identity(device: Mapping[str, Any]) -> list[str]:
    """What tells silicon, driver, compiler and the hints that a runner was started with from others."""
    hints = sorted(f"{name}={level}" for name, level in device.get("hints", {}).items())
    return [*(str(device.get(name, "")) for name in IDENTITY), *hints]


def same_device(device: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two raw descriptions are of one silicon, driver and compiler, so that times of one hold for the other."""
    return identity(device) == identity(other)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def boot_id() -> str | None:
    """What changes with every boot of this machine (Linux), or None where nothing tells."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return None


class Journal:
    """A journal open for appending, locked against a second writer. Use it as a context manager."""

    def __init__(
        self, path: Path, *, retry_crashed: bool = False, boot: Callable[[], str | None] | None = None
    ) -> None:
        """Open or create. `boot` tells the present boot of the machine that candidates run on, this one if None.

        Raises KilnError when it is locked by another run, unwritable or of a newer version.
        """
        self.path = path
        self._retry_crashed = retry_crashed
        self._boot = boot
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            created = not path.exists()
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise KilnError(f"the journal {path} cannot be opened: {error.strerror}") from error
        try:
            self._lock()
            contents = read(path)
            if created:
                _sync_folder(path.parent)
            self.damaged = contents.damaged
            self.records: list[Record] = list(contents.records)
            if not contents.ends_clean:
                self._write(b"\n")  # the torn line stays, alone on its line; whatever comes next is whole
        except BaseException:
            os.close(self._fd)
            raise
        self._trials: dict[str, Measurement] = {}
        self._open: dict[str, Record] = {}
        for record in self.records:
            self._remember(record)
        now = self._present_boot()
        lost = {key: begun for key, begun in self._open.items() if now is None or begun.get("boot") != now}
        self._lost = {key: begun for key, begun in lost.items() if not begun.get("ahead")}
        self.doubted = len(lost) > len(self._lost)
        self._open.clear()

    def _present_boot(self) -> str | None:
        return self._boot() if self._boot else boot_id()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise KilnError(
                f"another run is writing {self.path}; wait for it to end or choose another --out"
            ) from error
        except OSError as error:  # some network file systems
            raise KilnError(
                f"the journal {self.path} cannot be locked: {error.strerror}; choose an --out on a local disk"
            ) from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock and the file. Closing twice is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # ------------------------------------------------------------ writing

    def study(self, **facts: Any) -> None:
        """Record what is asked and on what: request, device, probe."""
        self._append({"kind": "study", "version": VERSION, **facts})

    def begin(self, key: str, candidate: Candidate, *, ahead: bool = False) -> None:
        """Write ahead that this candidate is about to run, and whether others are built meanwhile."""
        workload, config = candidate.workload.key, dict(candidate.config)
        beside = {"ahead": True} if ahead else {}
        self._append(
            {
                "kind": "begin",
                "key": key,
                "workload": workload,
                "config": config,
                "boot": self._present_boot(),
                **beside,
            }
        )

    def trial(self, key: str, candidate: Candidate, measurement: Measurement, worker: str | None = None) -> None:
        """Record what came of a candidate; on disk when this returns. `worker` measured it, if not this run."""
        what = {"workload": candidate.workload.key, "config": dict(candidate.config)}
        more = ({"driver_local": True} if candidate.driver_local else {}) | ({"worker": worker} if worker else {})
        self._append({"kind": "trial", "key": key, **what, **more, "measurement": to_json(measurement)})

    def interrupted(self, key: str) -> None:
        """Take a `begin` back: the user stopped the run, the candidate is not to blame."""
        self._append({"kind": "interrupted", "key": key})

    def final(self, **facts: Any) -> None:
        """Record the outcome of the finals of one workload."""
        self._append({"kind": "final", **facts})

    def note(self, text: str, **facts: Any) -> None:
        """Record something that a reader of the study should know."""
        self._append({"kind": "note", "text": text, **facts})

    def _append(self, record: dict[str, Any]) -> None:
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=plain)
        self._write(line.encode() + b"\n")
        self.records.append(record)
        self._remember(record)

    def _write(self, data: bytes) -> None:
        """Append all of `data` and sync it, or leave the file as it was and raise KilnError."""
        before = os.fstat(self._fd).st_size
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            os.fsync(self._fd)
        except OSError as error:
            with contextlib.suppress(OSError):  # a torn line can be read past, so this is only tidying
                os.ftruncate(self._fd, before)
            raise KilnError(
                f"the journal {self.path} cannot be written: {error.strerror}; what is finished is kept: "
                "free some space and run the same command again"
            ) from error

    # ------------------------------------------------------------ asking

    def _remember(self, record: Record) -> None:
        kind = record["kind"]
        if kind == "begin":
            self._open[record["key"]] = record
        elif kind == "interrupted":
            self._open.pop(record["key"], None)
        elif kind == "trial":
            self._open.pop(record["key"], None)
            self._trials[record["key"]] = from_json(record["measurement"])

    def lookup(self, key: str) -> Measurement | None:
        """What came of a trial, or None if it must still be measured.

        A candidate that took the machine down counts as crashed. Crashed ones are forgotten under `retry_crashed`;
        a lost worker is nobody's verdict and is always tried again.
        """
        found = self._trials.get(key)
        if found is None and key in self._lost:
            found = Measurement.failed(Verdict.CRASHED, _LOST_LOG)
        if found is None or found.verdict is Verdict.WORKER_LOST:
            return None
        return None if self._retry_crashed and found.verdict is Verdict.CRASHED else found

    @property
    def lost(self) -> tuple[Record, ...]:
        """The `begin` records that the machine went down with."""
        return tuple(record for key, record in self._lost.items() if key not in self._trials)

    def of_kind(self, kind: str) -> Iterator[Record]:
        """The records of one kind, oldest first."""
        return (record for record in self.records if record["kind"] == kind)


def plain(value: Any) -> Any:
    """What json does not know: NumPy scalars and mapping proxies come out as plain numbers and objects."""
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} does not go into a journal")


def _sync_folder(folder: Path) -> None:
    """Make a new file's name as durable as its content, where the file system can."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(fd)
    finally:
        os.close(fd)
