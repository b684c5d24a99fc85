"""The model's suggestions: legal, one a variant, the same every time, and never before the default."""

from dataclasses import replace

from test_predict import FAMILY, GEMV, PEAKS, PHONE

import kernels
from kernels.jobs import dtype_policy
from kernels.space import Space
from kernels.spec import Workload
from tuner.predict import predict
from tuner.search import first_tries
from tuner.suggestions import MOST, suggestions

SPACE = Space(FAMILY, GEMV, PHONE)


def test_suggestions_are_legal_and_of_different_variants() -> None:
    found = suggestions(SPACE, PEAKS)
    assert len(found) == MOST
    assert all(SPACE.reject(config) is None for config in found)
    assert len({config["variant"] for config in found}) == MOST
    times = [predict(FAMILY, GEMV, config, PHONE, PEAKS).ns for config in found]
    assert times == sorted(times)
    assert suggestions(SPACE, PEAKS) == found


def test_a_small_space_is_ranked_whole() -> None:
    workload = Workload("rmsnorm", {"M": 1, "N": 2048}, dtype_policy("fp16", "fp32", None), None, {"norm": "rms"})
    space = Space(kernels.families()["rmsnorm"], workload, PHONE)
    best = min(predict(space.family, workload, config, PHONE, PEAKS).ns for config in space.configs())
    assert predict(space.family, workload, suggestions(space, PEAKS)[0], PHONE, PEAKS).ns == best


def test_suggestions_keep_to_a_settled_layout() -> None:
    layout = next(iter(sorted(SPACE.reachable_layouts())))
    narrow = replace(SPACE, layouts=frozenset([layout]))
    assert all(narrow.reject(config) is None for config in suggestions(narrow, PEAKS))


def test_the_default_stays_first() -> None:
    seeds = [*first_tries(SPACE, []), *suggestions(SPACE, PEAKS)]
    assert seeds[0] == dict(FAMILY.default(GEMV, PHONE))


def test_a_cpu_gets_none() -> None:
    assert suggestions(Space(FAMILY, GEMV, replace(PHONE, kind="cpu")), PEAKS) == []
