"""Sessions of paired rounds, and how the rounds of one become one difference between its two sides.

A *round* times the sides right after each other, each with the same anchor kernels; a *session* is some rounds of one
set of processes. Two processes of the very same program differ by some percent for as long as they live, by where
their pages and code happen to lie; so the unit of all statistics is the session, whose processes are fresh, and not
the round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log

import numpy as np

BASE, OTHER, CONTROL = "base", "other", "control"
MEDIAN, FASTEST = "median", "fastest sixth"


@dataclass(frozen=True)
class Turn:
    """One side's part of a round: median device times, ns."""

    kernel_ns: float
    anchors_ns: Mapping[str, float]


Round = Mapping[str, Turn]  # by side
Session = Sequence[Round]

_KERNEL = "kernel"
_Times = Mapping[str, np.ndarray]  # a side's rounds, by kernel or anchor


def best_way(sessions: Sequence[Session]) -> str:
    """How to get a session's difference from its rounds: the way by which the halves of a session agree best.

    MEDIAN of the rounds' ratios suits a quiet device; divided by an anchor, one whose pace changes within a round;
    FASTEST, the mean of each side's fastest sixth of turns, a host that takes the processor away again and again, which
    only ever adds. (Two cores kept busy by others, PoCL, one program on both sides, 24 sessions: the standard deviation
    of a session was 7 to 12 % by medians and 2 to 5 % by the fastest sixth; an anchor's 3 to 11 and 0.2 to 1.4 %.)
    An anchor's memory lies somewhere too: what its two processes differ by, up to 27 % for a session, would be the
    kernel's, and counts against it. None of this tells which side is faster, so that choosing by it favours none.
    """
    every = [(_times(session, BASE), _times(session, OTHER)) for session in sessions]
    anchors = set.intersection(*(set(base) & set(other) for base, other in every)) - {_KERNEL}
    ways = [FASTEST, MEDIAN, *(f"{MEDIAN} / {anchor}" for anchor in sorted(anchors))]

    def doubt(way: str) -> float:
        halves = float(np.mean([_disagreement(base, other, way) for base, other in every]))
        if way in (FASTEST, MEDIAN):
            return halves
        apart = [np.median(np.log(other[_anchor(way)] / base[_anchor(way)])) for base, other in every]
        return halves + float(np.sqrt(np.mean(np.square(apart))))

    return min(ways, key=doubt)


def _anchor(way: str) -> str:
    return way.removeprefix(f"{MEDIAN} / ")


def _times(session: Session, side: str) -> _Times:
    anchors = {name: np.array([one[side].anchors_ns[name] for one in session]) for name in session[0][side].anchors_ns}
    return {_KERNEL: np.array([one[side].kernel_ns for one in session]), **anchors}


def _disagreement(base: _Times, other: _Times, way: str) -> float:
    """How far the halves of a session are apart, over several ways to halve it: every 2nd round, every 2nd pair, …"""
    rounds = np.arange(base[_KERNEL].size)
    found = []
    for stride in (1, 2, 3):
        first = rounds // stride % 2 == 0
        found.append(abs(_difference(base, other, way, first) - _difference(base, other, way, ~first)))
    return float(np.mean(found))


def _difference(base: _Times, other: _Times, way: str, rounds: np.ndarray | slice = slice(None)) -> float:
    """log(other / base) of a session, or of some of its rounds."""
    before, after = base[_KERNEL][rounds], other[_KERNEL][rounds]
    if way == FASTEST:
        count = max(1, round(before.size / 6))
        return log(np.sort(after)[:count].sum() / np.sort(before)[:count].sum())
    ratios = after / before
    if way != MEDIAN:
        ratios = ratios * base[_anchor(way)][rounds] / other[_anchor(way)][rounds]
    return float(np.median(np.log(ratios)))


def differences(sessions: Sequence[Session], side: str, way: str, against: str = BASE) -> list[float]:
    """log(side / against) of each session."""
    return [_difference(_times(session, against), _times(session, side), way) for session in sessions]


def anchor_differences(sessions: Sequence[Session], anchor: str) -> list[float]:
    """log(other / base) of an anchor in each session: the same code on both sides, so that all of it is noise."""
    alone = [
        [{side: Turn(turn.anchors_ns[anchor], {}) for side, turn in one.items()} for one in session]
        for session in sessions
    ]
    return differences(alone, OTHER, best_way(alone))
