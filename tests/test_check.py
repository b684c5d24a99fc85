"""harness/check.py: every kind of wrong result is found, named and placed."""

from collections.abc import Mapping

import numpy as np
import pytest
import toy_family as toy

from harness.binding import POISON, Bench, Guarded
from harness.buffers import BufferStore
from harness.candidate import Candidate
from harness.case import CaseStore
from harness.check import check, distance, judge
from harness.devices import DeviceChoice
from harness.supervisor import Supervisor
from kernels.spec import Case, Errors, Measurement, Stored, Tolerance, Verdict

EXPECTED = np.arange(1.0, 7.0).reshape(2, 3)
STORED = Stored(np.dtype(np.float32), EXPECTED.shape)


def case(tolerance: Tolerance = Tolerance(1e-6, 1e-3)) -> Case:  # noqa: B008  frozen data
    return Case(lambda layouts: {}, {"y": STORED}, {"y": EXPECTED}, tolerance)


def guarded(values: np.ndarray, margin: int = 16) -> tuple[Guarded, bytearray]:
    content = values.astype(np.float32).tobytes()
    edge = bytes([POISON]) * margin
    return Guarded("y", "guarded:y", len(content), margin, STORED), bytearray(edge + content + edge)


def judged(values: np.ndarray) -> Errors | Measurement:
    part, data = guarded(values)
    return judge(case(), "M=2 N=3", {}, {"y": part}, {"y": data}, {})


def log_of(result: Errors | Measurement) -> str:
    assert isinstance(result, Measurement)
    assert result.verdict is Verdict.WRONG_RESULT
    return result.log


def test_distance_by_hand() -> None:
    got = EXPECTED.copy()
    got[1, 0] += 0.5
    found = distance(got, EXPECTED)
    assert found.nmse == pytest.approx(0.25 / 91)  # 1 + 4 + 9 + 16 + 25 + 36 = 91
    assert found.max_scaled == pytest.approx(0.5 / np.sqrt(91 / 6))
    assert found.worst == (1, 0)
    assert found.bad == 0


def test_distance_from_zeros() -> None:
    zeros = np.zeros(4)
    assert distance(zeros, zeros).nmse == 0.0
    assert distance(np.array([0.0, 1e-30, 0, 0]), zeros).nmse == np.inf


def test_the_reference_itself_is_right() -> None:
    assert judged(EXPECTED) == Errors(0.0, 0.0, case().tolerance, ("M=2 N=3",))


def test_a_wrong_element_is_named_with_metric_value_limit_and_place() -> None:
    wrong = EXPECTED.copy()
    wrong[0, 2] = 3.5
    log = log_of(judged(wrong))
    assert log == "at M=2 N=3: y: nmse 0.00275 exceeds 1e-06; worst at [0, 2]: 3.5 where 3 is expected"


def test_one_outlier_that_nmse_would_forgive_is_found() -> None:
    wrong = EXPECTED.copy()
    wrong[1, 2] += 6e-3
    assert "max_scaled 0.00154 exceeds 0.001" in log_of(judged(wrong))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_wrong(value: float) -> None:
    wrong = EXPECTED.copy()
    wrong[0, 1] = value
    assert f"1 of 6 elements are not finite, the first at [0, 1] ({value})" in log_of(judged(wrong))


def test_poison_that_is_left_was_never_written() -> None:
    part, data = guarded(EXPECTED)
    data[16 + 4 : 16 + 8] = bytes([POISON] * 4)
    log = log_of(judge(case(), "M=2 N=3", {}, {"y": part}, {"y": data}, {}))
    assert "the first at [0, 1] (never written)" in log


@pytest.mark.parametrize(
    ("at", "words"),
    [(15, "at byte 1 before its begin"), (10, "at byte 6 before"), (16 + 24 + 2, "at byte 3 past its end")],
)
def test_touched_canaries_of_outputs_name_side_and_offset(at: int, words: str) -> None:
    part, data = guarded(EXPECTED)
    data[at] = 0
    assert f"y is written {words}" in log_of(judge(case(), "M=2 N=3", {}, {"y": part}, {"y": data}, {}))


def test_touched_canaries_of_scratch_count_too() -> None:
    part, data = guarded(EXPECTED)
    clean, touched = bytearray([POISON] * 8), bytearray([POISON] * 7 + [1])
    log = log_of(judge(case(), "M=2 N=3", {}, {"y": part}, {"y": data}, {"partials": (touched, clean)}))
    assert "partials is written at byte 1 before its begin" in log


def read_back(raw: np.ndarray, exact: frozenset[str] = frozenset()) -> Errors | Measurement:
    """A case that stores codes of half a unit and keeps its last column from everybody."""
    stored = Stored(np.dtype(np.int8), (2, 3))
    expected = {"values": EXPECTED[:, :2], "untouched": EXPECTED[:, 2:]}

    def read(arrays: Mapping[str, np.ndarray], layouts: Mapping[str, str]) -> Mapping[str, np.ndarray]:
        assert layouts == {"y": "rows"}
        values = arrays["y"] / 2
        return {"values": values[:, :2], "untouched": values[:, 2:]}

    made = Case(lambda layouts: {}, {"y": stored}, expected, Tolerance(1e-2, 0.2), read, exact)
    edge = bytes([POISON]) * 16
    part = Guarded("y", "guarded:y", raw.size, 16, stored)
    return judge(made, "M=2 N=3", {"y": "rows"}, {"y": part}, {"y": bytearray(edge + raw.tobytes() + edge)}, {})


def test_a_family_reads_its_own_storage_back() -> None:
    right = (2 * EXPECTED).astype(np.int8)
    assert isinstance(read_back(right), Errors)
    wrong = right.copy()
    wrong[0, 0] += 4
    assert "values: nmse" in log_of(read_back(wrong))


def test_what_nobody_may_write_is_exact() -> None:
    touched = (2 * EXPECTED).astype(np.int8)
    touched[1, 2] += 1
    assert isinstance(read_back(touched), Errors)  # within the tolerance
    assert "untouched: nmse" in log_of(read_back(touched, frozenset({"untouched"})))


# ---------------------------------------------------------------- on devices


@pytest.fixture
def bench(device: DeviceChoice, supervisor: Supervisor) -> Bench:
    return Bench(supervisor, device.sheet, BufferStore(supervisor), CaseStore())


def checked(bench: Bench, bug: int, n: int = 1000) -> Errors | Measurement:
    candidate = Candidate(toy.FAMILY, toy.workload(n), toy.PLAIN.config(BUG=bug))
    bench.supervisor.build(candidate.program, candidate.source, candidate.options)
    return check(bench, candidate)


def test_a_right_candidate_passes_on_all_shapes(bench: Bench) -> None:
    found = checked(bench, toy.FINE)
    assert isinstance(found, Errors)
    assert found.shapes == ("N=1", "N=33", "N=1000")
    assert 0 < found.nmse < 1e-12
    again = checked(bench, toy.FINE)  # its in-place buffer was restored: the second run sees the same input
    assert again == found


@pytest.mark.parametrize(
    ("bug", "words"),
    [
        (toy.SCRATCH_OVERRUN, "at N=1: s is written at byte 1 past its end"),
        (toy.UNWRITTEN, "at N=1: y: 1 of 1 elements are not finite, the first at [0] (never written)"),
        (toy.WRONG_VALUE, "at N=33: y: nmse"),
        (toy.OUTPUT_OVERRUN, "at N=1: y is written at byte 9 past its end"),
        (toy.INOUT_UNDERRUN, "at N=1: acc is written at byte 1 before its begin"),
    ],
)
def test_each_bug_is_found_on_a_device(bench: Bench, bug: int, words: str) -> None:
    assert words in log_of(checked(bench, bug))


def test_errors_of_several_shapes_keep_what_came_nearest_to_its_own_limit() -> None:
    tiny = Errors(5e-4, 1e-3, Tolerance(1e-2, 1e-1), ("N=1",))
    large = Errors(4e-4, 9e-4, Tolerance(1e-3, 1e-2), ("N=4096",))
    both = tiny.and_also(large)
    assert both == Errors(4e-4, 9e-4, Tolerance(1e-3, 1e-2), ("N=1", "N=4096"))
