"""harness/candidate.py and harness/case.py: what names a candidate, how it is bound, what is prepared once."""

import dataclasses

import numpy as np
import pytest
import toy_family as toy

from harness.candidate import Candidate, launches
from harness.case import CaseStore
from kernels.spec import Case, Ceil, ImageView, Launch, Rule, Schedule, Workload

CANDIDATE = Candidate(toy.FAMILY, toy.workload(100), toy.PLAIN.config())
REFS = {name: {"buf": name} for name in ("x", "w", "y", "acc", "s")}


def test_equal_candidates_have_equal_keys() -> None:
    again = Candidate(toy.FAMILY, toy.workload(100), toy.PLAIN.config())
    assert again.key == CANDIDATE.key
    assert again == CANDIDATE
    assert len({again, CANDIDATE}) == 1
    turned = Candidate(toy.FAMILY, toy.workload(100), dict(reversed(toy.PLAIN.config().items())))
    assert turned.key == CANDIDATE.key  # a database gives parameters in an order of its own


def test_what_changes_the_run_changes_the_key() -> None:
    other = Candidate(toy.FAMILY, toy.workload(100), toy.PLAIN.config(WG=64))
    bigger = Candidate(toy.FAMILY, toy.workload(200), toy.PLAIN.config())
    free = Candidate(toy.FAMILY, toy.workload(100), toy.PLAIN.config(), driver_local=True)
    assert len({CANDIDATE.key, other.key, bigger.key, free.key}) == 4
    assert CANDIDATE.program == bigger.program == free.program != other.program


def test_launches_are_evaluated_and_bound() -> None:
    first, second = launches(CANDIDATE, REFS)
    assert first == {
        "entry": "multiply",
        "global": [112],  # seven groups of sixteen for a hundred
        "local": [16],
        "args": [{"buf": "x"}, {"buf": "w"}, {"buf": "s"}, {"i32": 100}],
    }
    assert second["entry"] == "add"


def test_the_drivers_local_size_is_null_and_refused_where_it_would_be_wrong() -> None:
    free = Candidate(toy.FAMILY, toy.workload(100), toy.PLAIN.config(), driver_local=True)
    assert [launch["local"] for launch in launches(free, REFS)] == [None, None]
    fixed = dataclasses.replace(toy.PLAIN, any_local=False)
    family = dataclasses.replace(toy.FAMILY, variants=(fixed,))
    with pytest.raises(ValueError, match="not right at every work-group size"):
        Candidate(family, toy.workload(), toy.PLAIN.config(), driver_local=True)


def test_images_are_bound_over_their_buffer() -> None:
    view = ImageView("w", "RGBA", "uint32", (2, Ceil("N", 8)), (3,))
    schedule = Schedule((Launch("multiply", ((16,),), None, (view,)),))
    variant = dataclasses.replace(toy.PLAIN, schedule=lambda config, workload: schedule)
    candidate = Candidate(dataclasses.replace(toy.FAMILY, variants=(variant,)), toy.workload(20), toy.PLAIN.config())
    image = launches(candidate, {"w": {"buf": "weights", "offset": 4096, "bytes": 80}})[0]["args"][0]["image"]
    assert image == {
        "buf": "weights",
        "offset": 4096,
        "channels": "RGBA",
        "type": "uint32",
        "width": 6,
        "height": 3,
    }


def test_an_unbound_argument_is_a_mistake_in_the_family() -> None:
    with pytest.raises(KeyError, match="argument w is neither"):
        launches(CANDIDATE, {"x": {"buf": "x"}})


def test_another_shape_keeps_the_program_or_is_refused() -> None:
    other = CANDIDATE.at(toy.workload(33), toy.SHEET)
    assert other is not None
    assert other.program == CANDIDATE.program
    assert other.workload.dims["N"] == 33
    even = Rule("N is even", (), lambda config, workload, sheet: workload.dims["N"] % 2 == 0)
    variant = dataclasses.replace(toy.PLAIN, workload_rules=(even,))
    picky = Candidate(dataclasses.replace(toy.FAMILY, variants=(variant,)), toy.workload(100), toy.PLAIN.config())
    assert picky.at(toy.workload(33), toy.SHEET) is None
    sized = dataclasses.replace(toy.FAMILY, defines=lambda workload: {"SIZE": workload.dims["N"]})
    assert Candidate(sized, toy.workload(100), toy.PLAIN.config()).at(toy.workload(33), toy.SHEET) is None


# ---------------------------------------------------------------- cases


def counted(made: list[str]) -> Case:
    """A case of 1000 bytes in every layout, which tells when it is packed."""

    def pack(layouts: dict[str, str]) -> dict[str, np.ndarray]:
        made.append(layouts["w"])
        return {"w": np.full(1000, len(made), np.uint8)}

    return Case(pack, {}, {}, toy.case(toy.workload(1), 0).tolerance)  # type: ignore[arg-type]


def test_cases_are_made_and_packed_once() -> None:
    made: list[str] = []
    family = dataclasses.replace(toy.FAMILY, case=lambda workload, seed: counted(made))
    store = CaseStore()
    first = store.packed(family, toy.workload(), {"w": "a"})
    assert store.packed(family, toy.workload(), {"w": "a"}) is first
    store.packed(family, toy.workload(), {"w": "b"})
    assert made == ["a", "b"]
    assert store.case(family, toy.workload()) is store.case(family, toy.workload())


def test_the_oldest_packings_are_forgotten_and_the_newest_never() -> None:
    made: list[str] = []
    family = dataclasses.replace(toy.FAMILY, case=lambda workload, seed: counted(made))
    store = CaseStore(bound_bytes=3500)  # the case itself counts as one packing
    for layout in "abc":
        store.packed(family, toy.workload(), {"w": layout})
    assert store.bytes <= 3500
    store.packed(family, toy.workload(), {"w": "a"})
    assert made == ["a", "b", "c", "a"]
    tiny = CaseStore(bound_bytes=10)
    assert tiny.packed(family, toy.workload(), {"w": "a"})["w"].size == 1000


def test_a_case_that_is_packed_again_counts_once() -> None:
    family = dataclasses.replace(toy.FAMILY, case=lambda workload, seed: counted([]))
    store = CaseStore(bound_bytes=3500)
    for first, second in ((1, 2), (2, 1)) * 3:  # each takes 2000 bytes, so that one loses its packing to the other
        store.packed(family, toy.workload(first), {"w": "a"})
        store.packed(family, toy.workload(second), {"w": "a"})
        assert 3000 <= store.bytes <= 3500


def test_whole_cases_go_when_their_packings_are_not_enough() -> None:
    made: list[str] = []
    family = dataclasses.replace(toy.FAMILY, case=lambda workload, seed: counted(made))
    store = CaseStore(bound_bytes=2500)

    def ask(workload: Workload) -> None:
        store.packed(family, workload, {"w": "a"})

    ask(toy.workload(1))
    ask(toy.workload(2))
    assert store.bytes <= 2500
    assert store.case(family, toy.workload(2))
