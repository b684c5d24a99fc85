from itertools import product

import pytest
from fakes import FAMILY, SHEET, WORKLOAD

from kernels import space as space_module
from kernels.space import Space

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
