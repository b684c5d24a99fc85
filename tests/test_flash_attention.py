"""flash_attention: its reference by hand, its cases and rules, and its kernels beyond what the conformance kit asks."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

import kernels
from harness.candidate import Candidate
from harness.check import check
from harness.devices import DeviceChoice
from harness.measure import Meter
from harness.supervisor import Supervisor
from kernels.cache import CacheLayout, unpack_tensor
from kernels.flash_attention.problem import keys_read, tolerance, visible_pairs
from kernels.flash_attention.team import SUBGROUP
from kernels.jobs import Ask
from kernels.models import load_model
from kernels.space import Space
from kernels.spec import DTypes, Errors, Rule, Workload
from reference.attention import attention, visible

FAMILY = kernels.families()["flash_attention"]
FLOAT = DTypes("fp32", "fp32", "fp32", "fp16")


def job(
    M: int, T: int, H: int = 2, G: int = 1, D: int = 64, S: int = 0, dtypes: DTypes = FLOAT, **options: object
) -> Workload:
    dims = {"M": M, "T": T, "H": H, "G": G, "D": D, "S": S or T}
    return Workload("flash_attention", dims, dtypes, options=options)


# ---------------------------------------------------------------- reference


def test_two_keys_by_hand():
    q, k = np.array([[[1.0, 0.0]]]), np.array([[[np.log(3.0), 5.0]], [[0.0, -7.0]]])
    v = np.array([[[4.0, 0.0]], [[0.0, 8.0]]])
    assert np.allclose(attention(q, k, v, scale=1.0), [[[3.0, 2.0]]])  # weights 3/4 and 1/4


def test_scale_is_one_over_the_root_of_d_unless_given():
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((3, 1, 16)) for _ in range(3))
    assert np.allclose(attention(q, k, v), attention(q, k, v, scale=0.25))


def test_softcap_by_hand():
    q, k, v = np.ones((1, 1, 1)), np.array([[[3.0]], [[0.0]]]), np.array([[[1.0]], [[0.0]]])
    capped = 2 * np.tanh(1.5)
    assert attention(q, k, v, scale=1.0, softcap=2.0)[0, 0, 0] == pytest.approx(1 / (1 + np.exp(-capped)))


def test_heads_share_their_kv_head():
    rng = np.random.default_rng(1)
    q, k, v = rng.standard_normal((2, 6, 8)), rng.standard_normal((5, 3, 8)), rng.standard_normal((5, 3, 8))
    grouped = attention(q, k, v)
    for h in range(6):
        alone = attention(q[:, h : h + 1], k[:, h // 2 : h // 2 + 1], v[:, h // 2 : h // 2 + 1])
        assert np.allclose(grouped[:, h], alone[:, 0])


def test_masks_by_hand():
    assert visible(2, 4, causal=True).tolist() == [[True, True, True, False], [True, True, True, True]]
    assert visible(2, 4, causal=True, window=2).tolist() == [[False, True, True, False], [False, False, True, True]]
    assert visible(1, 3, valid=[1, 0, 1]).tolist() == [[True, False, True]]
    assert visible(3, 3, causal=True, window=1).tolist() == np.eye(3, dtype=bool).tolist()


def test_a_query_that_sees_no_key_gives_zeros():
    q = k = v = np.ones((3, 1, 4))
    o = attention(q, k, v, causal=True, valid=[0, 0, 1])
    assert np.array_equal(o[:2], np.zeros((2, 1, 4)))
    assert np.allclose(o[2], 1.0)


def test_huge_logits_are_safe():
    q, k = np.full((1, 1, 1), 1e4), np.array([[[1.0]], [[-1.0]], [[1.0]]])
    v = np.array([[[2.0]], [[100.0]], [[4.0]]])
    assert attention(q, k, v, scale=1.0)[0, 0, 0] == 3.0


@pytest.mark.parametrize(
    ("shapes", "options", "why"),
    [
        (((3, 1, 4), (2, 1, 4)), {}, "cannot be the last"),
        (((1, 1, 4), (2, 1, 4)), {"window": 2}, "only causal"),
        (((1, 1, 4), (2, 1, 4)), {"causal": True, "window": 0}, "at least one key"),
        (((1, 3, 4), (2, 2, 4)), {}, "do not divide"),
        (((1, 1, 4), (2, 1, 8)), {}, "are not"),
        (((1, 1, 4), (2, 1, 4)), {"valid": [1]}, "one flag for each"),
    ],
)
def test_contradictions_are_refused(shapes, options, why):
    q, k = (np.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=why):
        attention(q, k, k, **options)


# ---------------------------------------------------------------- cases and cost


@pytest.mark.parametrize("cache", ["fp16", "int8", "int4"])
@pytest.mark.parametrize("layout", ["sgd", "gsd", "gpd16"])
def test_what_is_packed_is_what_the_answer_was_computed_from(cache: str, layout: str):
    workload = job(3, 21, H=4, G=2, S=30, dtypes=replace(FLOAT, cache=cache), causal=True)  # type: ignore[arg-type]
    case = FAMILY.case(workload, 3)
    tensors = case.pack({"k": layout, "v": layout})
    k, v = (unpack_tensor(name, tensors, CacheLayout(layout), 30).values[:21] for name in ("k", "v"))
    assert np.allclose(attention(tensors["q"], k, v, causal=True), case.expected["o"], rtol=1e-12)


@pytest.mark.parametrize("cache", ["fp16", "int8"])
def test_what_lies_beyond_the_last_position_is_not_a_number(cache: str):
    case = FAMILY.case(job(1, 5, S=9, dtypes=replace(FLOAT, cache=cache)), 0)  # type: ignore[arg-type]
    tensors = case.pack({"k": "sgd", "v": "sgd"})
    beyond = tensors["k"] if cache == "fp16" else tensors["ks"]
    assert np.isnan(beyond[5:]).all()
    assert np.isfinite(beyond[:5]).all()


def test_a_case_has_logits_of_ten_thousand():
    workload = job(8, 64)
    tensors = FAMILY.case(workload, 0).pack({"k": "sgd", "v": "sgd"})
    logits = np.einsum("mhd,tgd->mht", tensors["q"], tensors["k"].astype(np.float64)) / 8
    assert 1e3 < np.abs(logits).max() < 3e4


def test_padding_hides_some_keys_and_early_queries_see_none():
    case = FAMILY.case(job(30, 30, causal=True, padding=True), 0)
    valid = case.pack({"k": "gsd", "v": "gsd"})["valid"]
    assert valid.dtype == np.uint8
    assert 0 < valid.sum() < 20
    assert not case.expected["o"][:10].any()


def test_tolerance_grows_with_what_the_policy_gives_up():
    rng = np.random.default_rng(0)
    q, keys, o = rng.standard_normal((4, 2, 64)), rng.standard_normal((32, 1, 64)), rng.standard_normal((4, 2, 64))
    policies = (FLOAT, DTypes("fp16", "fp32", "fp32"), DTypes("fp16", "fp16", "fp32"), DTypes("fp16", "fp16", "fp16"))
    limits = [tolerance(job(4, 32, dtypes=dtypes), q, keys, o).nmse for dtypes in policies]
    assert limits == sorted(limits)
    assert limits[0] < 1e-7 < limits[-1] < 1e-2


@pytest.mark.parametrize(
    ("M", "T", "options"),
    [
        (7, 7, {}),
        (7, 7, {"causal": True}),
        (3, 9, {"causal": True}),
        (1, 9, {"causal": True, "window": 4}),
        (6, 9, {"causal": True, "window": 4}),
        (9, 9, {"causal": True, "window": 1}),
        (5, 6, {"causal": True, "window": 100}),
    ],
)
def test_cost_counts_visible_pairs_and_keys_alone(M: int, T: int, options: dict):
    workload = job(M, T, H=2, G=1, D=64, **options)
    seen = visible(M, T, **options)
    assert visible_pairs(workload) == seen.sum()
    assert keys_read(workload) == seen.any(axis=0).sum()
    cost = FAMILY.cost(workload)
    assert cost.flops == 4 * 64 * seen.sum() * 2
    assert cost.bytes == 2 * M * 2 * 64 * 4 + 2 * seen.any(axis=0).sum() * 64 * 2


# ---------------------------------------------------------------- what is refused, what is asked


@pytest.mark.parametrize(
    ("workload", "why"),
    [
        (job(1, 8, D=65), "head_dim D is one of"),
        (job(1, 8, H=3, G=2), "heads H are a multiple of the kv heads G"),
        (job(9, 8), "M ≤ T"),
        (job(1, 8, S=7), "T ≤ S"),
        (job(1, 8, window=4), "only causal ones have a window"),
        (job(1, 8, dtypes=DTypes("fp16", "int8", "int32", "fp16")), "products in floating point"),
        (job(1, 8, dtypes=DTypes("fp16", "fp32", "fp32")), "a cache type"),
    ],
)
def test_workloads_outside_the_contract_are_refused_in_words(workload: Workload, why: str, device: DeviceChoice):
    refused = [rule.why for rule in FAMILY.workload_rules if not rule.holds({}, workload, device.sheet)]
    assert refused
    assert why in refused[0]


def test_an_unknown_option_is_refused():
    with pytest.raises(ValueError, match="no option rotary"):
        FAMILY.defines(job(1, 8, rotary=4))


def test_what_models_ask():
    ask = Ask(("int4/g128",), "fp16", "fp32", "int8", (1, 128), 2048)
    found, notes = FAMILY.jobs(load_model("gemma-2b"), ask)
    assert notes == []
    decode, prefill = found
    assert dict(decode.workload.dims) == {"M": 1, "T": 2048, "H": 8, "G": 1, "D": 256, "S": 2048}
    assert dict(prefill.workload.dims) == {"M": 128, "T": 128, "H": 8, "G": 1, "D": 256, "S": 128}
    assert (decode.phase, prefill.phase, decode.count) == ("decode", "prefill 128", 18)
    assert decode.workload.options == {"causal": True}
    assert decode.workload.dtypes.cache == "int8"


def test_towers_attend_to_all_their_tokens_in_fp16():
    ask = Ask(("int4/g128",), "fp16", "fp32", "int8", (1,), 1024)
    found, _ = FAMILY.jobs(load_model("clip-vit-b-32"), ask)
    image, text = (job.workload for job in found)
    assert dict(image.dims) == {"M": 50, "T": 50, "H": 12, "G": 12, "D": 64, "S": 50}
    assert (image.options, text.options) == ({}, {"causal": True})
    assert image.dtypes.cache == "fp16"


# ---------------------------------------------------------------- kernels


def _errors(candidate: Candidate, device: DeviceChoice, supervisor: Supervisor) -> None:
    meter = Meter(supervisor, device.sheet)
    meter.build(candidate)
    found = check(meter.bench, candidate)
    meter.release(candidate)
    assert isinstance(found, Errors), (str(candidate), candidate.workload.key, found.log)


SAMPLED = (
    job(1, 700, H=8, G=1, D=128, causal=True),  # several ranges, the last one short
    job(4, 600, H=4, G=2, causal=True, window=40),  # ranges that no query sees
    job(3, 520, H=2, G=2, causal=True, padding=True),
    job(20, 70, H=6, G=2, D=80, dtypes=replace(FLOAT, cache="int8"), causal=True),
    job(40, 40, H=2, G=2, D=72, dtypes=replace(FLOAT, cache="int4"), padding=True, softcap=15.0),
)


@pytest.mark.parametrize(
    "workload", SAMPLED, ids=lambda w: ",".join(f"{n}={v}" for n, v in [*w.dims.items(), *w.options.items()])
)
def test_sampled_configurations_are_right(workload: Workload, device: DeviceChoice, supervisor: Supervisor):
    """A corner of each variant's space, in turn of the device as it is and as if it were a GPU, so that each variant is
    run as both where it can be; the tuner checks every candidate it times."""
    sheets = (device.sheet, replace(device.sheet, kind="gpu", max_work_group=1024))
    for number, variant in enumerate(FAMILY.variants, SAMPLED.index(workload)):
        configs = list(Space(replace(FAMILY, variants=(variant,)), workload, sheets[number % 2]).configs())
        for config in random.Random(f"{workload.key} {variant.name}").sample(configs, min(1, len(configs))):
            _errors(Candidate(FAMILY, workload, config), device, supervisor)


def test_the_default_is_right_from_one_query_to_many(device: DeviceChoice, supervisor: Supervisor):
    for M, T in ((1, 40), (1, 1500), (4, 70), (5, 70), (70, 70)):
        workload = job(M, T, H=8, G=2, D=64, causal=True)
        _errors(Candidate(FAMILY, workload, FAMILY.default(workload, device.sheet)), device, supervisor)


@pytest.mark.parametrize("cache", ["fp16", "int4"])
def test_the_emulated_subgroup_is_right(cache: str, device: DeviceChoice, supervisor: Supervisor):
    """The form in which a device without subgroups, or a sanitizer, runs the variant."""
    anywhere = Rule("", ("LANES",), lambda c, w, s: True)
    variant = replace(
        SUBGROUP, source="#define EMULATE_SUBGROUPS\n" + SUBGROUP.source, rules=(anywhere,), workload_rules=()
    )
    family = replace(FAMILY, variants=(variant,))
    workload = job(3, 300, H=4, G=2, D=96, dtypes=replace(FLOAT, cache=cache), causal=True)  # type: ignore[arg-type]
    config = variant.config(KL=16, VL=1, HEADS=2, MT=2, LANES=16, DV=2, SPLIT=128)
    _errors(Candidate(family, workload, config), device, supervisor)
