"""Relates a device's event stamps to the host's CLOCK_MONOTONIC, and says how well.

The QUEUED stamp of a launch is, by OpenCL, taken while clEnqueueNDRangeKernel runs; the runner reads CLOCK_MONOTONIC
right before and right after that call. Each launch so bounds the difference of the two clocks from both sides, and the
bounds of hundreds of launches together leave microseconds. clGetDeviceAndHostTimer would give one pair, but of a host
clock that OpenCL leaves open, and phones' drivers below OpenCL 2.1 lack it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

ENQUEUES = (
    "each launch's QUEUED stamp lies between CLOCK_MONOTONIC before and after its clEnqueueNDRangeKernel; the "
    "intersection of these bounds over a step's launches"
)
REQUEST = (
    "the runner gives no host times: a step's QUEUED stamps and ENDs lie between CLOCK_MONOTONIC when it was asked for "
    "and when the answer came"
)

Bound = tuple[int, int]


@dataclass(frozen=True)
class Relation:
    """What to take from a stamp to get the host's time, ns."""

    offset_ns: int
    uncertainty_ns: int  # half of what the bounds leave open
    agrees: bool  # the bounds have a time in common; else the offset is their median and the uncertainty their spread

    def host_ns(self, stamp_ns: int) -> int:
        """A stamp of the device on the host's clock."""
        return stamp_ns - self.offset_ns


def intersect(bounds: Iterable[Bound]) -> Relation:
    """From lower and upper bounds of (device − host). Raises ValueError for none."""
    found = np.array(list(bounds), dtype=np.int64).reshape(-1, 2)
    if not len(found):
        raise ValueError("no launch, no relation of clocks")
    low, high = int(found[:, 0].max()), int(found[:, 1].min())
    if low <= high:
        return Relation((low + high) // 2, -(-(high - low) // 2), True)
    middles = found.sum(axis=1) // 2
    return Relation(int(np.median(middles)), int(found[:, 1].max() - found[:, 0].min()) // 2, False)


def of_enqueues(queued_ns: Sequence[int], host_ns: Sequence[Bound], end_ns: int, finished_ns: int) -> Relation:
    """A step's device clock against the clock of the runner's machine.

    `end_ns` is the last END and `finished_ns` when the queue had finished: no END can come after that.
    """
    bounds = [(queued - after, queued - before) for queued, (before, after) in zip(queued_ns, host_ns, strict=True)]
    lowest = end_ns - finished_ns
    return intersect([(max(low, lowest), high) if lowest <= high else (low, high) for low, high in bounds])


def of_request(queued_ns: int, end_ns: int, asked_ns: int, answered_ns: int) -> Relation:
    """The same where a runner tells nothing: its whole answer bounds it."""
    return intersect([(end_ns - answered_ns, queued_ns - asked_ns)])


def machines(spans: Iterable[tuple[Bound, Bound]]) -> Relation:
    """(runner's clock − host's), from pairs of what a runner saw (first enqueue, finished) and when it was asked.

    Where 0 is among what the bounds allow, the two are one machine's clock and the offset is 0 exactly.
    """
    found = intersect((seen[1] - asked[1], seen[0] - asked[0]) for seen, asked in spans)
    one = found.agrees and abs(found.offset_ns) <= found.uncertainty_ns
    return Relation(0, 0, True) if one else found
