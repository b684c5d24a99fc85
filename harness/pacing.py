"""A study's reference, bound beside the candidate that is being timed, so that the device's pace can be told."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness.answers import Refused, Run, RunnerLost
from harness.racing import Beside, Rival
from kernels.spec import Measurement, Verdict

if TYPE_CHECKING:
    from harness.measure import Lane, Meter


@contextlib.contextmanager
def beside(meter: Meter, rival: Rival | None, lane: Lane) -> Iterator[Beside | None]:
    """The rival ready to run while `lane` is; None where there is none or its reference does not run any more.

    Raises RunnerLost, as nobody's fault, where the runner dies of the reference: the candidate will be tried again.
    """
    other = _place(meter, rival)
    if rival is None or other is None:
        yield None
        return

    def run(warmup: int, samples: int) -> Run:
        with _nobodys(meter):
            return meter.run(other, warmup=warmup, samples=samples)

    try:
        yield Beside(run, rival.reference_ns, rival.best_ns)
    finally:
        alone = [name for name in other.bound.buffers if name not in lane.bound.buffers]  # outputs are shared by name
        with contextlib.suppress(Refused, RunnerLost):
            meter.bench.supervisor.drop(bufs=alone)


def _place(meter: Meter, rival: Rival | None) -> Lane | None:
    if rival is None:
        return None
    try:
        with _nobodys(meter):
            return None if isinstance(meter.build(rival.reference), Measurement) else meter.place(rival.reference)
    except Refused:
        return None
    finally:
        meter.release(rival.reference)


@contextlib.contextmanager
def _nobodys(meter: Meter) -> Iterator[None]:
    """Around what is done with the reference: a runner that is lost over it is lost, whoever's turn it is."""
    try:
        yield
    except RunnerLost as failure:
        raise RunnerLost(Verdict.WORKER_LOST, failure.op, failure.log) from failure
    except Refused as refusal:
        if meter.bench.supervisor.alive:
            raise
        raise RunnerLost(Verdict.WORKER_LOST, "run", refusal.message) from refusal
