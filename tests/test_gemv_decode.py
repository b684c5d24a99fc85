"""gemv_decode: its cases and tolerances, and its kernels on the devices here beyond what the conformance kit asks."""

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
from kernels.gemv_decode.lanes_k import SUBGROUP
from kernels.layouts import CODES, Layout, unpack_scales, unpack_words
from kernels.linear import tolerance
from kernels.source import parameters, source
from kernels.space import Space
from kernels.spec import DTypes, Errors, Rule, Workload, build_options
from reference.matmul import gemv_quantized

FAMILY = kernels.families()["gemv_decode"]
FLOAT = DTypes("fp16", "fp32", "fp32")
FORMATS = ("int4/g128", "int4/g32", "e0m4/g64", "int8", "fp16")


def job(M: int, N: int, K: int, weights: str = "int4/g128", dtypes: DTypes = FLOAT) -> Workload:
    return Workload("gemv_decode", {"M": M, "N": N, "K": K}, dtypes, weights)


# ---------------------------------------------------------------- cases


@pytest.mark.parametrize("weights", FORMATS)
def test_what_is_packed_is_what_the_answer_was_computed_from(weights: str):
    workload = job(3, 37, 256, weights)
    case = FAMILY.case(workload, 7)
    layout = Layout(8, CODES[workload.format.kind])
    tensors = case.pack({"w": str(layout)})
    codes = unpack_words(tensors["w"], layout, 37)
    scale = bias = None
    if workload.format.group:
        scale, bias = unpack_scales(tensors["sb"], 37)
    elif weights == "int8":
        scale = tensors["sb"][:37].reshape(37, 1)
    again = gemv_quantized(tensors["x"], workload.format.kind, codes, scale, bias, workload.format.group)
    assert np.allclose(again, case.expected["y"], rtol=1e-12)


@pytest.mark.parametrize("weights", FORMATS)
def test_weights_look_like_a_models(weights: str):
    workload = job(1, 64, 512, weights, DTypes("fp32", "fp32", "fp32"))
    case = FAMILY.case(workload, 0)
    x = case.pack({"w": f"n1k{CODES[workload.format.kind]}"})["x"]
    spread = case.expected["y"].std() / np.linalg.norm(x)
    assert 0.012 < spread < 0.04
    assert np.abs(x).max() > 10  # outliers are there


def test_a_case_is_a_function_of_its_seed():
    workload = job(2, 32, 128)
    first, again, other = (FAMILY.case(workload, seed).expected["y"] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_tolerance_grows_with_what_the_policy_gives_up():
    x = np.random.default_rng(0).standard_normal((1, 1024))
    y = np.full((1, 64), 0.02 * np.linalg.norm(x))
    policies = (
        DTypes("fp32", "fp32", "fp32"),
        FLOAT,
        DTypes("fp16", "fp16", "fp32"),
        DTypes("fp16", "fp16", "fp16"),
    )
    limits = [tolerance(job(1, 64, 1024, dtypes=dtypes), x, y).nmse for dtypes in policies]
    assert limits == sorted(limits)
    assert limits[0] < 1e-8 < limits[-1] < 1e-2


def test_tolerance_of_int8_activations_is_that_of_rounding_them():
    dtypes = DTypes("fp16", "int8", "int32")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 4096))
    y = np.full((1, 64), 0.02 * np.linalg.norm(x))
    steps = np.abs(x.reshape(-1, 32)).max(axis=1) / 127
    rounded = (np.rint(x.reshape(-1, 32) / steps[:, None]) * steps[:, None]).reshape(1, -1)
    error = ((rounded - x) ** 2).sum() / (x**2).sum()
    limit = tolerance(job(1, 64, 4096, dtypes=dtypes), x, y).nmse
    assert 2 * error < limit < 8 * error


def test_outputs_that_cancel_are_given_the_error_of_their_terms():
    x = np.ones((1, 1024))
    usual = tolerance(job(1, 64, 1024), x, np.full((1, 64), 0.64)).nmse
    assert tolerance(job(1, 64, 1024), x, np.full((1, 64), 0.064)).nmse == pytest.approx(100 * usual)


def test_cost_counts_every_tensor_once():
    cost = FAMILY.cost(job(2, 256, 512))
    assert cost.flops == 2 * 2 * 256 * 512
    assert cost.bytes == 256 * 512 * 4.25 / 8 + 2 * 2 * (256 + 512)


# ---------------------------------------------------------------- spaces


def test_default_runs_everywhere_in_every_format(device: DeviceChoice):
    for weights in FORMATS:
        for M in range(1, 17):
            workload = job(M, 2048, 2048, weights)
            assert Space(FAMILY, workload, device.sheet).reject(FAMILY.default(workload, device.sheet)) is None


def test_m_beyond_the_contract_is_refused(device: DeviceChoice):
    assert Space(FAMILY, job(17, 64, 128), device.sheet).reject(FAMILY.default(job(1, 64, 128), device.sheet)) == (
        "M is 1 to 16"
    )


def test_includes_are_flattened_once():
    text = source("gemv_decode", "panel.cl")
    assert "#include" not in text
    assert text.count("#define KILN_TYPES") == 1
    assert {"VEC", "BLOCKS", "P"} <= parameters(text)


# ---------------------------------------------------------------- kernels


@pytest.mark.parametrize("weights", FORMATS)
@pytest.mark.parametrize("M", [1, 3])
def test_sampled_configurations_are_right(weights: str, M: int, device: DeviceChoice, supervisor: Supervisor):
    """A few corners of the space per format; the tuner checks every candidate it times."""
    workload = job(M, 80, 256, weights)
    configs = list(Space(FAMILY, workload, device.sheet).configs())
    meter = Meter(supervisor, device.sheet)
    for config in random.Random(f"{weights} {M}").sample(configs, 2):
        candidate = Candidate(FAMILY, workload, config)
        meter.build(candidate)
        found = check(meter.bench, candidate)
        meter.release(candidate)
        assert isinstance(found, Errors), (str(candidate), found.log)


@pytest.mark.parametrize("panel", [1, 2, 4])
def test_the_emulated_subgroup_is_right(panel: int, device: DeviceChoice, supervisor: Supervisor):
    """The form in which a device without subgroups, or a sanitizer, runs the variant."""
    anywhere = Rule("", ("LANES",), lambda c, w, s: True)
    variant = replace(
        SUBGROUP,
        source="#define EMULATE_SUBGROUPS\n" + SUBGROUP.source,
        rules=(anywhere,),
        workload_rules=(),
    )
    family = replace(FAMILY, variants=(variant,))
    candidate = Candidate(family, job(3, 50, 384), variant.config(P=panel, LANES=8, WG=32, BLOCKS=2, MT=2))
    meter = Meter(supervisor, device.sheet)
    meter.build(candidate)
    found = check(meter.bench, candidate)
    meter.release(candidate)
    assert isinstance(found, Errors), found.log


def test_every_format_has_its_own_build():
    built = {build_options(FAMILY, FAMILY.variant("panel").config(), job(1, 8, 128, weights)) for weights in FORMATS}
    assert len(built) == len(FORMATS)
