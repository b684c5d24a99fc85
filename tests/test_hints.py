"""The model's hints: legal, one a variant, the same every time, and never before the default."""

from dataclasses import replace

from test_predict import FAMILY, GEMV, PEAKS, PHONE

import kernels
from kernels.jobs import dtype_policy
from kernels.space import Space
from kernels.spec import Workload
from tuner.hints import HINTS, hints
from tuner.predict import predict
from tuner.search import first_tries

SPACE = Space(FAMILY, GEMV, PHONE)


def test_hints_are_legal_and_of_different_variants() -> None:
    found = hints(SPACE, PEAKS)
    assert len(found) == HINTS
    assert all(SPACE.reject(config) is None for config in found)
    assert len({config["variant"] for config in found}) == HINTS
    times = [predict(FAMILY, GEMV, config, PHONE, PEAKS).ns for config in found]
    assert times == sorted(times)
    assert hints(SPACE, PEAKS) == found


def test_a_small_space_is_ranked_whole() -> None:
    workload = Workload("rmsnorm", {"M": 1, "N": 2048}, dtype_policy("fp16", "fp32", None), None, {"norm": "rms"})
    space = Space(kernels.families()["rmsnorm"], workload, PHONE)
    best = min(predict(space.family, workload, config, PHONE, PEAKS).ns for config in space.configs())
    assert predict(space.family, workload, hints(space, PEAKS)[0], PHONE, PEAKS).ns == best


def test_hints_keep_to_a_settled_layout() -> None:
    layout = next(iter(sorted(SPACE.reachable_layouts())))
    narrow = replace(SPACE, layouts=frozenset([layout]))
    assert all(narrow.reject(config) is None for config in hints(narrow, PEAKS))


def test_the_default_stays_first() -> None:
    seeds = [*first_tries(SPACE, []), *hints(SPACE, PEAKS)]
    assert seeds[0] == dict(FAMILY.default(GEMV, PHONE))
