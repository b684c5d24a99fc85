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
        try:
            return meter.run(other, warmup=warmup, samples=samples)
        except RunnerLost as failure:
            raise _nobodys(failure) from failure

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
        return None if isinstance(meter.build(rival.reference), Measurement) else meter.place(rival.reference)
    except Refused:
        return None
    except RunnerLost as failure:
        raise _nobodys(failure) from failure
    finally:
        meter.release(rival.reference)


def _nobodys(failure: RunnerLost) -> RunnerLost:
    return RunnerLost(Verdict.WORKER_LOST, failure.op, failure.log)
