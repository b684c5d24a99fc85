"""harness/pacing.py: the reference beside a candidate, on a meter that only notes what it is asked."""

from types import SimpleNamespace
from typing import Any

import pytest
from fakes import FAMILY, WORKLOAD

from harness.answers import Build, Refused, Run, RunnerLost
from harness.candidate import Candidate
from harness.pacing import beside
from harness.racing import Rival
from harness.runner.protocol import Kind
from kernels.spec import Measurement, Verdict

RIVAL = Rival(Candidate(FAMILY, WORKLOAD, {"variant": "plain", "WG": 64, "VEC": 1}), 100.0, 80.0)
LANE: Any = SimpleNamespace(bound=SimpleNamespace(buffers=("guarded:y:16384",)))
RUN = Run((((0, 0, 0, 150),),), (200,), False)


class Meter:
    """Builds, places and runs; each may be made to fail."""

    def __init__(self, alive: bool = True, **failures: Exception | Measurement) -> None:
        self.failures = failures
        self.dropped: list[str] = []
        self.released: list[Candidate] = []
        self.bench = SimpleNamespace(supervisor=SimpleNamespace(drop=self._drop, alive=alive))

    def _may_fail(self, what: str) -> None:
        failure = self.failures.get(what)
        if isinstance(failure, Exception):
            raise failure

    def _drop(self, bufs: list[str]) -> None:
        self.dropped += bufs

    def build(self, candidate: Candidate) -> Build | Measurement:
        self._may_fail("build")
        failure = self.failures.get("build")
        return failure if isinstance(failure, Measurement) else Build("", 1.0, {})

    def place(self, candidate: Candidate) -> Any:
        self._may_fail("place")
        return SimpleNamespace(bound=SimpleNamespace(buffers=("guarded:y:16384", "guarded:partial:64")))

    def run(self, lane: Any, *, warmup: int, samples: int) -> Run:
        self._may_fail("run")
        return RUN

    def release(self, candidate: Candidate) -> None:
        self.released.append(candidate)


def test_the_reference_runs_and_leaves_the_candidates_buffers_alone() -> None:
    meter: Any = Meter()
    with beside(meter, RIVAL, LANE) as found:
        assert found is not None
        assert found.pace() == 1.5
        assert found.best_ns == 80.0
        assert not meter.dropped
    assert meter.dropped == ["guarded:partial:64"]
    assert meter.released == [RIVAL.reference]


@pytest.mark.parametrize(
    "failures",
    [
        {"build": Measurement.failed(Verdict.OUT_OF_RESOURCES, "too large")},
        {"build": Refused(Kind.BUILD_FAILED, "no")},
        {"place": Refused(Kind.OUT_OF_RESOURCES, "full")},
    ],
)
def test_a_reference_that_does_not_run_any_more_tells_nothing(failures: dict[str, Any]) -> None:
    meter: Any = Meter(**failures)
    with beside(meter, RIVAL, LANE) as found:
        assert found is None
    with beside(meter, None, LANE) as found:
        assert found is None


def _pace(meter: Any) -> float | None:
    with beside(meter, RIVAL, LANE) as found:
        return found.pace() if found else None


@pytest.mark.parametrize("where", ["build", "place", "run"])
def test_a_runner_that_dies_of_the_reference_is_not_the_candidates_fault(where: str) -> None:
    meter: Any = Meter(**{where: RunnerLost(Verdict.CRASHED, where, "segmentation fault")})
    with pytest.raises(RunnerLost) as lost:
        _pace(meter)
    assert lost.value.verdict is Verdict.WORKER_LOST
    assert lost.value.log == "segmentation fault"


def test_what_the_candidate_does_wrong_stays_its_own() -> None:
    meter: Any = Meter()
    with pytest.raises(RunnerLost) as lost, beside(meter, RIVAL, LANE):
        raise RunnerLost(Verdict.CRASHED, "run", "the candidate")
    assert lost.value.verdict is Verdict.CRASHED
    assert meter.dropped == ["guarded:partial:64"]


def test_a_reference_that_is_refused_while_it_runs_tells_nothing() -> None:
    meter: Any = Meter(run=Refused(Kind.OUT_OF_RESOURCES, "no room for its copies"))
    with beside(meter, RIVAL, LANE) as found:
        assert found is not None
        assert found.pace() == 1.0


@pytest.mark.parametrize("where", ["place", "run"])
def test_a_refusal_that_ends_the_runner_is_no_candidates_fault(where: str) -> None:
    meter: Any = Meter(alive=False, **{where: Refused(Kind.INTERNAL, "the context is gone")})

    def pace() -> None:
        with beside(meter, RIVAL, LANE) as found:
            assert found is not None
            found.pace()

    with pytest.raises(RunnerLost) as lost:
        pace()
    assert lost.value.verdict is Verdict.WORKER_LOST
