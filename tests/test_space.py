from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from fakes import FAMILY, SHEET, WORKLOAD

import kernels
from kernels import space as space_module
from kernels.space import Space, layout_of
from kernels.spec import DTypes, Workload

SPACE = Space(FAMILY, WORKLOAD, SHEET)


def brute_force() -> list[dict[str, object]]:
    found = []
    for variant in FAMILY.variants:
        for values in product(*variant.params.values()):
            config = {"variant": variant.name, **dict(zip(variant.params, values, strict=True))}
            if SPACE.reject(config) is None:
                found.append(config)
    return found


def test_enumeration_is_the_filtered_product() -> None:
    key = lambda c: (c["variant"], c["WG"], c["VEC"])  # noqa: E731
    assert sorted(SPACE.configs(), key=key) == sorted(brute_force(), key=key)
    assert SPACE.size == len(brute_force()) == 23
    assert SPACE.exact


def test_enumeration_keeps_its_order() -> None:
    assert list(SPACE.configs()) == list(SPACE.configs())


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"variant": "plain", "WG": 64, "VEC": 1}, None),
        ({"variant": "wide", "WG": 256, "VEC": 16}, "a group handles at most 512 elements"),
        ({"variant": "nonsense", "WG": 64, "VEC": 1}, "variant is one of plain, wide"),
        ({"variant": "plain", "WG": 64}, "parameters are exactly WG, VEC"),
        ({"variant": "plain", "WG": 65, "VEC": 1}, "WG is one of 32, 64, 128, 256"),
    ],
)
def test_reject_gives_the_reason(config: dict[str, object], why: str | None) -> None:
    assert SPACE.reject(config) == why


def test_large_spaces_are_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space_module, "EXACT_LIMIT", 10)
    space = Space(FAMILY, WORKLOAD, SHEET)
    assert not space.exact
    assert space.size == pytest.approx(23, rel=0.1)


@pytest.mark.parametrize(
    ("family", "dims", "weights"),
    [
        ("gemv_decode", {"M": 1, "N": 512, "K": 2048}, "int4/g128"),
        ("kv_concat", {"M": 1, "T": 64, "G": 1, "H": 4, "D": 64, "S": 64}, None),
    ],
)
def test_a_space_keeps_to_layouts(family: str, dims: dict[str, int], weights: str | None) -> None:
    dtypes = DTypes("fp16", "fp32", "fp32") if weights else DTypes("fp16", "fp32", "fp32", "int8")
    workload = Workload(family, dims, dtypes, weights)
    whole = Space(kernels.families()[family], workload, SHEET)
    variants = {variant.name: variant for variant in whole.family.variants}
    by_layout = {
        repr(config): layout_of(variants[str(config["variant"])], config, workload) for config in whole.configs()
    }
    assert whole.reachable_layouts() >= set(by_layout.values())
    some = frozenset(sorted(set(by_layout.values()))[::2])
    narrow = replace(whole, layouts=some)
    assert {repr(config) for config in narrow.configs()} == {c for c, layout in by_layout.items() if layout in some}
    assert 0 < narrow.size < whole.size
    rng = np.random.default_rng(0)
    drawn = [config for config in (narrow.draw(rng) for _ in range(200)) if config]
    assert drawn
    assert all(by_layout[repr(config)] in some for config in drawn)
    outside = next(config for config in whole.configs() if by_layout[repr(config)] not in some)
    assert narrow.reject(outside) == "everything that reads the same tensors can read this layout"
    assert narrow.illegal(outside) is None  # an engine that packs for it alone may run it
