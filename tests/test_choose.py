from dataclasses import replace

import pytest
from fakes import FAMILY, SHEET, WORKLOAD, ok
from hypothesis import given
from hypothesis import strategies as st

import kernels
from kernels.plan import Planned
from kernels.space import Space, layout_of
from kernels.spec import DTypes, Workload
from tuner import layouts
from tuner.choose import Searched, boxes, choose_layouts
from tuner.search import Outcome, Trial
from tuner.setting import Job

DEFAULT = {"variant": "plain", "WG": 64, "VEC": 1}


def trial(vec: int, median_ns: float) -> Trial:
    return Trial({"variant": "plain", "WG": 64, "VEC": vec}, ok(median_ns))


def searched(n: int, calls: float, *trials: Trial) -> Searched:
    return Searched(WORKLOAD.with_dims(N=n), calls, tuple(sorted(trials, key=lambda t: t.cost_ns)), DEFAULT)


def chosen(*items: Searched) -> str:
    ((_, layout),) = choose_layouts({FAMILY.name: FAMILY}, items).items()
    return dict(layout)["x"]


def test_layout_is_chosen_by_weighted_total_time() -> None:
    heavy = searched(4096, 18, trial(1, 200.0), trial(2, 100.0), trial(4, 150.0))
    light = searched(64, 1, trial(1, 200.0), trial(2, 190.0), trial(4, 20.0))
    assert chosen(heavy, light) == "v2"
    # The same measurements with the calls exchanged: now the small one decides.
    swapped = [Searched(i.workload, calls, i.ok, i.default) for i, calls in ((heavy, 1), (light, 18))]
    assert chosen(*swapped) == "v4"


def test_a_layout_that_slows_one_workload_below_its_default_cannot_win() -> None:
    heavy = searched(4096, 18, trial(1, 200.0), trial(2, 100.0))
    light = searched(64, 1, trial(1, 20.0), trial(2, 30.0))
    assert chosen(heavy, light) == "v1"


def test_a_layout_must_have_been_measured_everywhere() -> None:
    heavy = searched(4096, 18, trial(1, 200.0), trial(2, 100.0))
    light = searched(64, 1, trial(1, 20.0))
    assert chosen(heavy, light) == "v1"
    with pytest.raises(ValueError, match="no layout was measured for every workload"):
        chosen(searched(4096, 1, trial(2, 1.0)), searched(64, 1, trial(4, 1.0)))


def job(family: str, m: int, weights: str) -> Job:
    workload = Workload(family, {"M": m, "N": 512, "K": 2048}, DTypes("fp16", "fp32", "fp32"), weights)
    space = Space(kernels.families()[family], workload, SHEET)
    return Job(Planned(workload, 1, 1.0, 1.0), space, space.family.default(workload, SHEET), 1.0)


def test_no_search_looks_at_layouts_that_another_reader_of_the_weights_cannot_read() -> None:
    few, alone, many = (
        job("gemv_decode", 1, "int4/g128"),
        job("gemv_decode", 1, "int8"),
        job("gemm_prefill", 64, "int4/g128"),
    )
    before = few.space.reachable_layouts()
    layouts.agree([few, alone, many])
    assert few.space.layouts == many.space.layouts == before & many.space.reachable_layouts() < before
    assert alone.space.layouts is None  # nobody else of that format in this run
    read = {layout_of(few.space.family.variant(c["variant"]), c, few.workload) for c in few.space.configs()}
    assert read == few.space.layouts
    assert few.space.reject(few.default) is None
    assert many.space.reject(many.default) is None


def test_a_layout_that_one_family_likes_is_weighed_in_the_other() -> None:
    few, many = job("gemv_decode", 1, "int4/g128"), job("gemm_prefill", 64, "int4/g128")
    layouts.agree([few, many])
    assert layouts.liked_by_others(many, [few, many]) == []  # nobody has looked yet
    narrow = layouts.moved(few.space, few.default, (("w", "n32k8"),))
    assert narrow is not None
    assert {**narrow, "P": few.default["P"]} == few.default
    assert narrow["P"] == 32
    few.outcome = Outcome((Trial(few.default, ok(200.0)), Trial(narrow, ok(90.0))), 0, "time")
    (liked,) = layouts.liked_by_others(many, [few, many])
    assert {**liked, "P": many.default["P"]} == many.default
    assert liked["P"] == 32
    assert layouts.moved(few.space, few.default, (("w", "n7k8"),)) is None

    many.outcome = Outcome((Trial(many.default, ok(500.0)), Trial(liked, ok(490.0))), 0, "time")
    layouts.settle([few, many])
    assert few.space.layouts == many.space.layouts == {(("w", "n32k8"),)}
    assert not layouts.undecided(few)
    assert {config["P"] for config in few.space.configs()} == {32}


def test_nothing_measured_is_said() -> None:
    with pytest.raises(ValueError, match="no candidate of scale_add"):
        chosen(searched(64, 1))


SIZES = st.fixed_dictionaries({"M": st.integers(1, 16), "N": st.integers(1, 300_000), "K": st.integers(1, 20_000)})


@given(st.lists(SIZES, min_size=1, max_size=8, unique_by=lambda d: tuple(sorted(d.items()))), SIZES)
def test_boxes_tile_the_space(points: list[dict[str, int]], other: dict[str, int]) -> None:
    found = boxes(points, {"M": (1, 16)})

    def holds(box: dict[str, tuple[int, int | None]], point: dict[str, int]) -> bool:
        return all(low <= point[d] and (high is None or point[d] <= high) for d, (low, high) in box.items())

    for point, box in zip(points, found, strict=True):
        assert holds(box, point)
    assert sum(holds(box, other) for box in found) == 1


def test_boxes_are_cut_at_the_first_border_between_two_points() -> None:
    points = [{"M": 1}, {"M": 16}, {"M": 1024}]
    one, few, many = boxes(points, {"M": (1, 4096)}, {"M": (1, 16)})
    assert (one, few, many) == ({"M": (1, 1)}, {"M": (2, 16)}, {"M": (17, 4096)})
    assert boxes(points[1:], {}, {"M": (1,)})[0] == {"M": (1, 128)}  # no border in between: the geometric mean


def test_families_that_share_a_tensor_share_its_layout() -> None:
    other = replace(FAMILY, name="scale_more", shares="x")
    mine = replace(FAMILY, shares="x")
    workload = replace(WORKLOAD, family="scale_more", dims={"N": 64})
    heavy = searched(4096, 18, trial(1, 200.0), trial(2, 100.0))
    light = Searched(workload, 1, tuple(sorted((trial(1, 20.0), trial(2, 25.0)), key=lambda t: t.cost_ns)), DEFAULT)
    ((_, layout),) = choose_layouts({FAMILY.name: mine, "scale_more": other}, [heavy, light]).items()
    assert dict(layout) == {"x": "v1"}  # v2 would slow the second below its default
    assert len(choose_layouts({FAMILY.name: FAMILY, "scale_more": replace(other, shares="")}, [heavy, light])) == 2


def test_boxes_refuse_two_entries_for_one_size() -> None:
    with pytest.raises(ValueError, match="two entries for one size"):
        boxes([{"N": 4}, {"N": 4}], {})
