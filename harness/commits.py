"""`compare --commits A B`: the kernels of two commits, measured interleaved on this machine, workload by workload.

Each side is a process of its own with that commit's kernels (harness.side), and each session gives every side a fresh
runner. In a round every side has its turn, in an order that goes through all permutations; harness.verdicts decides.
A workload whose default has the same source, options and launches in both commits is the same program: it is not
measured unless that is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from harness.checkouts import Side, checked_out
from harness.devices import DeviceChoice
from harness.errors import KilnError
from harness.peer import Peer
from harness.sessions import BASE, CONTROL, OTHER, Round, Session, Turn, anchor_differences
from harness.verdicts import Change, Failure, Finding
from harness.verdicts import decide as decide_on

ROUNDS, LEAST_ROUNDS = 36, 6  # of a session: multiples of the permutations of two sides and of three
_SESSION_NS = 4e9  # of rounds, within these bounds
_TURN_NS = 5e6  # of a kernel in a turn, within the bounds that contests have too
_LEAST, _MOST = 3, 25
_SLOW_NS = 100e6  # a launch this long is sampled once a turn, without a warm-up
SECONDS = 900.0  # in which workloads are begun; suspects are confirmed in any case

Tell = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """What to compare."""

    base: str
    other: str | None  # None: the working tree
    models: tuple[str, ...]
    formats: tuple[str, ...]
    families: tuple[str, ...] | None = None
    act: str = "fp16"
    compute: str = "fp32"
    cache: str = "fp16"
    heaviest: int | None = None  # so many workloads of each family alone
    everything: bool = False  # measure what is identical too
    seconds: float = SECONDS


@dataclass(frozen=True)
class Compared:
    """One workload of both commits."""

    workload: str
    label: str
    family: str
    configs: tuple[str, str]
    finding: Finding | None  # None: identical, and not measured
    identical: bool


@dataclass(frozen=True)
class Report:
    """The whole comparison."""

    device: DeviceChoice
    base: str
    other: str
    compared: tuple[Compared, ...]
    gone: tuple[str, ...]  # workloads of the base alone
    new: tuple[str, ...]
    unreached: tuple[str, ...]  # not begun in time
    anchors: Mapping[
        str, tuple[float, float]
    ]  # A/A: the anchors' median ratio over sessions, and the largest |ratio - 1|
    seconds: float

    @property
    def rows(self) -> tuple[Compared, ...]:
        """What was measured."""
        return tuple(one for one in self.compared if one.finding)

    @property
    def worse(self) -> tuple[Compared, ...]:
        """What a regression test fails for."""
        return self.having(Change.REGRESSED, Change.BROKEN)

    @property
    def undecided(self) -> bool:
        """Whether something was to be measured and nothing came of any of it."""
        wanted = len(self.rows) + len(self.unreached)
        return wanted > 0 and not any(one.finding and one.finding.effect for one in self.rows)

    def having(self, *changes: Change) -> tuple[Compared, ...]:
        """The workloads of which one of these came."""
        return tuple(one for one in self.compared if one.finding and one.finding.change in changes)


def compare(asked: Asked, device: DeviceChoice, tell: Tell, start: Path | None = None) -> Report:
    """Check out, measure, decide. Raises UsageError and KilnError; leaves nothing behind, an interrupt included."""
    began = time.monotonic()
    with checked_out(asked.base, asked.other, start) as (base, other, built), _Floor(device, built, tell) as floor:
        plans = floor.plans(base, other, asked)
        able = [{key: item for key, item in plan.items() if item["candidate"]} for plan in plans]
        both = {key: (item, able[1][key]) for key, item in able[0].items() if key in able[1]}
        lost = {key: (item, plans[1][key]) for key, item in able[0].items() if key in plans[1] and key not in able[1]}
        chosen = _heaviest(both, asked.heaviest)
        same = {key for key in chosen if both[key][0]["candidate"] == both[key][1]["candidate"]}
        wanted = [key for key in chosen if asked.everything or key not in same]
        tell(f"{len(same)} of {len(chosen)} workloads are identical in both; {len(wanted)} are measured")
        floor.until = began + asked.seconds
        findings = decide_on(wanted, floor.measure) if wanted else {}
        compared = tuple(
            Compared(
                key,
                both[key][1]["label"],
                both[key][1]["family"],
                (both[key][0]["config"], both[key][1]["config"]),
                findings.get(key),
                key in same,
            )
            for key in chosen
            if key not in floor.unreached
        )
        compared += tuple(
            Compared(
                key,
                now["label"],
                now["family"],
                (before["config"], ""),
                Finding(Change.BROKEN, log=f"its default is no longer legal here: not so that {now['why']}"),
                False,
            )
            for key, (before, now) in lost.items()
        )
        return Report(
            device,
            base.name,
            other.name,
            compared,
            tuple(key for key in able[0] if key not in plans[1]),
            tuple(key for key in able[1] if key not in able[0]),
            tuple(floor.unreached),
            floor.anchors_apart(),
            time.monotonic() - began,
        )


def _heaviest(both: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]], most: int | None) -> list[str]:
    """The workloads' keys, families in turn, each one's heaviest first: time that runs out hits no family alone."""
    ranked: dict[str, list[str]] = {}
    for key, (_, item) in sorted(both.items(), key=lambda pair: -pair[1][1]["share"]):
        ranked.setdefault(item["family"], []).append(key)
    kept = [keys[:most] for keys in ranked.values()]
    return [keys[i] for i in range(max(map(len, kept), default=0)) for keys in kept if i < len(keys)]


class _Floor:
    """The peers of a run and what they have ready. A context manager."""

    def __init__(self, device: DeviceChoice, built: Path, tell: Tell) -> None:
        self._device, self._tell = device, tell
        keeps = ("--binaries", str(built)) if device.python_runner else ()
        self._command = [*device.command, *keeps]
        self._peers: dict[str, Peer] = {}
        self._anchors: dict[str, Any] | None = None
        self._pool = ThreadPoolExecutor(max_workers=3)
        self._checked: set[str] = set()
        self._measured: list[list[Session]] = []
        self._session = 0
        self.until = float("inf")
        self.unreached: list[str] = []

    def __enter__(self) -> _Floor:
        return self

    def __exit__(self, *error: object) -> None:
        for peer in self._peers.values():
            peer.kill()  # whoever waits for an answer in the pool has lost it
        self._pool.shutdown()
        for peer in self._peers.values():
            peer.close()

    def plans(self, base: Side, other: Side, asked: Asked) -> list[dict[str, Mapping[str, Any]]]:
        """Start both sides; the workloads of each by key. One that its default cannot serve here has no candidate."""
        for name, side in ((BASE, base), (OTHER, other)):
            self._start(name, side)
        self._asked = {
            "models": list(asked.models),
            "formats": list(asked.formats),
            "act": asked.act,
            "compute": asked.compute,
            "cache": asked.cache,
            "families": list(asked.families) if asked.families else None,
        }
        found = self._all((BASE, OTHER), "plan", **self._asked)
        return [{item["workload"]: item for item in answer["items"]} for answer in found.values()]

    def _start(self, name: str, side: Side) -> None:
        peer = self._peers[name] = Peer(side)
        description = dict(self._device.description)
        answer = peer.ask("open", command=self._command, description=description, anchors=self._anchors)
        if failed := answer.get("failed"):
            raise KilnError(f"{side.name}: {failed}")
        self._anchors = self._anchors or answer["anchors"]

    def _all(self, names: Sequence[str], op: str, **fields: Any) -> dict[str, Mapping[str, Any]]:
        """The same request to several sides at once: none of them is timed."""
        asked = {name: self._pool.submit(self._peers[name].ask, op, **fields) for name in names}
        return {name: future.result() for name, future in asked.items()}

    def measure(self, workload: str, sessions: int, control: bool) -> list[Session] | Failure:
        """So many sessions of one workload, all sides' results checked before the first."""
        sides = (BASE, OTHER, CONTROL) if control else (BASE, OTHER)
        if not control and time.monotonic() > self.until:
            self.unreached.append(workload)
            return Failure((), "not begun in time")
        if control and CONTROL not in self._peers:
            self._start(CONTROL, self._peers[BASE].side)
            self._peers[CONTROL].ask("plan", **self._asked)
        if workload not in self._checked:
            self._checked.add(workload)
            failure = self._twice(lambda: _failure(self._all((BASE, OTHER), "check", workload=workload)))
            if failure is not None:
                return failure
        taken: list[Session] = []
        for number in range(sessions):
            what = "again, with a control" if control else "first look"
            self._tell(f"{workload}: {what}, session {number + 1} of {sessions}")
            session = self._twice(lambda: self._take(workload, sides))
            if isinstance(session, Failure):
                return session
            taken.append(session)
        self._measured.append(taken)
        return taken

    @staticmethod
    def _twice(attempt: Callable[[], T]) -> T:
        """A failure counts when it comes twice: a host under load may kill or starve any process once."""
        found = attempt()
        return attempt() if isinstance(found, Failure) else found

    def _take(self, workload: str, sides: tuple[str, ...]) -> Session | Failure:
        """One session: fresh runners, then rounds in an order that goes through all permutations of the sides."""
        orders = list(permutations(sides))
        self._session += 1
        # Who is first changes from session to session: the base, when it always was, had its anchor's memory filled
        # first, and read it 2 to 7 % slower in six runs of six.
        orders = orders[self._session % len(orders) :] + orders[: self._session % len(orders)]
        ready = self._all(orders[0], "prepare", workload=workload)
        if failure := _failure(ready):
            return failure
        wall_ns = float(np.median([answer["wall_ns"] for answer in ready.values()]))
        slow = wall_ns > _SLOW_NS
        samples = 1 if slow else max(_LEAST, min(_MOST, round(_TURN_NS / max(1.0, wall_ns))))
        turn = {"warmup": 0 if slow else 1, "samples": samples}
        round_ns = len(sides) * wall_ns * (samples + turn["warmup"])
        rounds = ROUNDS if round_ns * ROUNDS <= _SESSION_NS else LEAST_ROUNDS
        taken: list[Round] = []
        for number in range(rounds):
            answers = {name: self._peers[name].ask("turn", **turn) for name in orders[number % len(orders)]}
            if failure := _failure(answers):
                return failure
            taken.append({name: Turn(one["kernel_ns"], one["anchors_ns"]) for name, one in answers.items()})
        return taken

    def anchors_apart(self) -> dict[str, tuple[float, float]]:
        """How far the anchors, one code on both sides, were apart: the median session, and the largest difference."""
        found = {}
        for name in self._anchors or ():
            logs = [value for sessions in self._measured for value in anchor_differences(sessions, name)]
            if logs:
                ratios = np.exp(logs)
                found[name] = float(np.median(ratios)), float(np.abs(ratios - 1).max())
        return found


def _failure(answers: Mapping[str, Mapping[str, Any]]) -> Failure | None:
    """Which sides failed, the control counted as base, and what the first of them said."""
    failed = {name: answer["failed"] for name, answer in answers.items() if "failed" in answer}
    if not failed:
        return None
    sides = tuple(dict.fromkeys(BASE if name == CONTROL else name for name in failed))
    return Failure(sides, next(iter(failed.values())))
