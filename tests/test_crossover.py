"""tuner/crossover.py and tuner/edges.py: where one kernel gives way to another, measured on a simulated device."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import RIGHT, Clock, SimulatedMeter, probed, simulate
from test_export import DESCRIPTION, FACTS, STUDY

import kernels
from harness.candidate import Candidate
from harness.devices import sheet_from
from kernels.explain import explain
from kernels.select import Level, select
from kernels.spec import DTypes, Workload
from tuner import edges
from tuner.choose import boxes
from tuner.crossover import at, last_of, meet
from tuner.decisions import final_record
from tuner.export import tuned_config
from tuner.finals import Finalist

ATTENTION = kernels.families()["flash_attention"]
SHEET = sheet_from(DESCRIPTION)
TRUE_EDGE = 700  # positions at which two ranges of keys become faster than one, on the device simulated here


def decode(length: int, room: int | None = None) -> Workload:
    dims = {"M": 1, "T": length, "H": 8, "G": 1, "D": 256, "S": room or length}
    return Workload("flash_attention", dims, DTypes("fp16", "fp32", "fp32", "fp16"), options={"causal": True})


def kernel(split: int, workload: Workload) -> Candidate:
    return Candidate(ATTENTION, workload, {**ATTENTION.default(decode(1024), SHEET), "SPLIT": split})


def true_ns(candidate: Candidate) -> float:
    """One range: 100 ns a position. Ranges halve that, and their joining costs what TRUE_EDGE positions do."""
    length = candidate.workload.dims["T"]
    return 100.0 * length if candidate.config["SPLIT"] == 0 else 50.0 * (length + TRUE_EDGE)


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> SimulatedMeter:
    clock = Clock(5, noise=0.01, drift=0.1)
    simulate(monkeypatch, clock)
    return SimulatedMeter(SHEET, clock, true_ns)


# ---------------------------------------------------------------- what any two sides share


@given(st.dictionaries(st.integers(1, 5000), st.sampled_from(["small", "large"]), max_size=6), st.integers(1, 5000))
def test_the_edge_lies_where_the_large_side_wins_from_there_on(won: dict[int, str], size: int) -> None:
    won = {0: "small", **won, 6000: "large"}
    edge = last_of("small", won)
    assert all(side == "large" for size, side in won.items() if size > edge)
    assert any(side == "small" for size, side in won.items() if size <= edge)
    assert edge < 6000


def test_an_edge_needs_a_winner_on_either_side() -> None:
    with pytest.raises(ValueError, match="won every size up to 9"):
        last_of("small", {1: "small", 9: "small"})
    with pytest.raises(ValueError, match="won no size"):
        last_of("small", {9: "large"})


def test_sides_meet_where_both_are_legal(meter: Any) -> None:
    one, many = kernel(0, decode(256)), kernel(512, decode(4096))
    found = meet(meter, {"low": [one], "high": [many]}, {"T": 2048, "S": 2048}, probed(), SHEET)
    assert found is not None
    assert set(found) == {"low", "high"}
    assert len(found["low"]) == len(found["high"]) >= 7
    assert at(one, {"T": 300}, SHEET) is None  # more positions than the cache has room for
    assert meet(meter, {"low": [one], "high": [many]}, {"T": 5000}, probed(), SHEET) is None


# ---------------------------------------------------------------- neighbouring buckets


def test_neighbours_are_adjacent_lengths_with_different_winners() -> None:
    short, middle, long = kernel(0, decode(256)), kernel(0, decode(1024)), kernel(512, decode(4096))
    other_rows = kernel(512, decode(4096).with_dims(M=2))
    (pair,) = edges.neighbours([long, short, middle, other_rows])
    assert (pair.low, pair.high) == (middle, long)
    assert edges.neighbours([short, middle]) == []
    assert pair.between(2048) == {"T": 2048, "S": 2048}
    assert edges.Neighbours(kernel(0, decode(256, 1024)), kernel(512, decode(4096, 1 << 20))).between(1024) == {
        "T": 1024,
        "S": 32768,
    }


def test_sizes_between_are_halved_towards_the_true_edge(meter: Any) -> None:
    pair = edges.Neighbours(kernel(0, decode(256)), kernel(512, decode(1024)))
    records = list(edges.race(meter, pair, probed(), SHEET))
    assert 2 <= len(records) <= edges.TRIES
    found = edges.edges(records, [decode(256), decode(1024)])
    ((dim, edge),) = found.values()
    assert dim == "T"
    assert TRUE_EDGE / 1.2 < edge < TRUE_EDGE * 1.2
    assert edges.edges(records, [decode(256)]) == {}  # of another study


def test_near_sizes_need_no_other_between(meter: Any) -> None:
    pair = edges.Neighbours(kernel(0, decode(1000)), kernel(512, decode(1100)))
    assert list(edges.race(meter, pair, probed(), SHEET)) == []


# ---------------------------------------------------------------- in the document

LENGTHS = (256, 1024, 4096)


def final(workload: Workload, split: int) -> dict[str, Any]:
    """The kernel with `split` won; the default is it or half as fast."""
    default, winner = Candidate(ATTENTION, workload, ATTENTION.default(workload, SHEET)), kernel(split, workload)
    found = [Finalist(default, tuple(2000.0 + i for i in range(9)), RIGHT)]
    if winner != default:
        found.append(Finalist(winner, tuple(1000.0 + i for i in range(9)), RIGHT))
    return {"kind": "final", **final_record(18, found, FACTS)}


def note(size: int, high_ns: int, between: tuple[int, int] = (1024, 4096)) -> dict[str, Any]:
    keys = dict(zip((edges.LOW, edges.HIGH), (decode(length).key for length in between), strict=True))
    samples = {"low": [1000 + i for i in range(7)], "high": [high_ns + i for i in range(7)]}
    return {"kind": "note", "text": edges.NOTE, "between": keys, "dim": "T", "size": size, "samples_ns": samples}


def buckets(records: list[Mapping[str, Any]]) -> dict[int, tuple[int, int | None]]:
    """Interval of T by the length that an entry was tuned at; writing checks that buckets are a partition."""
    entries = tuned_config(records, "0").kernels["flash_attention"].entries
    return {int(e.id.split("-t")[1].split("-")[0]): e.bucket["T"] for e in entries if e.bucket}


FINALS = [STUDY, final(decode(256), 0), final(decode(1024), 0), final(decode(4096), 512)]


def test_measured_edges_replace_geometric_means() -> None:
    assert buckets(FINALS) == {256: (1, 512), 1024: (513, 2048), 4096: (2049, None)}
    measured = [note(2048, 800), note(1448, 900), note(1217, 1100)]
    assert buckets([*FINALS, *measured])[1024] == (513, 1327)  # between 1217, which the short one won, and 1448
    late = [note(2048, 1100), note(2896, 1100), note(3444, 1100)]
    assert buckets([*FINALS, *late])[4096] == (3756, None)


def test_an_engine_gets_the_ranges_that_won_at_its_length() -> None:
    config = tuned_config([*FINALS, note(2048, 800), note(1448, 900), note(1217, 1100)], "0")
    for length, split in ((1000, 0), (1327, 0), (1328, 512), (100_000, 512)):
        chosen = select([config], decode(length), config.device, ATTENTION)
        assert chosen.level is Level.EXACT
        assert chosen.entry.params["SPLIT"] == split
    assert any("T 1328…" in line for line in explain([config], decode(2000), config.device, ATTENTION))


SIZES = st.fixed_dictionaries({"M": st.integers(1, 3), "T": st.integers(1, 5000)})


@given(st.lists(SIZES, min_size=2, max_size=6, unique_by=lambda d: tuple(sorted(d.items()))), SIZES, st.data())
def test_buckets_stay_a_partition_wherever_the_edges_are(
    points: list[dict[str, int]], other: dict[str, int], data: st.DataObject
) -> None:
    ends = st.integers(0, len(points) - 1)
    measured = data.draw(st.dictionaries(st.tuples(ends, ends), st.tuples(st.just("T"), st.integers(0, 6000))))
    found = boxes(points, {}, {}, measured)

    def holds(box: Mapping[str, tuple[int, int | None]], point: Mapping[str, int]) -> bool:
        return all(low <= point[d] and (high is None or point[d] <= high) for d, (low, high) in box.items())

    for point, box in zip(points, found, strict=True):
        assert holds(box, point)
    assert sum(holds(box, other) for box in found) == 1


def test_an_edge_counts_between_its_own_two_points_alone() -> None:
    points = [{"M": 1, "T": 256}, {"M": 1, "T": 1024}, {"M": 64, "T": 256}, {"M": 64, "T": 1024}]
    found = boxes(points, {}, {}, {(0, 1): ("T", 700)})
    assert [box["T"] for box in found] == [(1, 700), (701, None), (1, 512), (513, None)]
