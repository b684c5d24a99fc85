"""rmsnorm: its reference by hand, its cases and jobs, its kernels beyond the kit, and loopy's part in it."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from typing import Any

import numpy as np
import pytest

import kernels
from harness.candidate import Candidate
from harness.check import check, distance
from harness.devices import DeviceChoice
from harness.measure import Meter
from harness.supervisor import Supervisor
from kernels.plan import plan
from kernels.rmsnorm import loopy_generate
from kernels.rmsnorm.norm import Options
from kernels.rmsnorm.teams import SUBGROUP
from kernels.space import Space
from kernels.spec import Config, DTypes, Errors, Family, Rule, Workload
from reference.norms import add_residual, int8_steps, layer_norm, rms_norm

FAMILY = kernels.families()["rmsnorm"]
FP16, FP32 = DTypes("fp16", "fp32", "fp32"), DTypes("fp32", "fp32", "fp32")


def job(M: int, N: int, dtypes: DTypes = FP16, **options: Any) -> Workload:
    return Workload("rmsnorm", {"M": M, "N": N}, dtypes, options=options)


# ---------------------------------------------------------------- the reference, by hand


def test_rms_norm_by_hand():
    assert np.allclose(rms_norm([[3, 4]], [1, 2], 1e-12), [[3 / 12.5**0.5, 8 / 12.5**0.5]], rtol=1e-12)
    assert np.allclose(rms_norm([[3, 4]], [0, 1], 1e-12, offset=1.0), [[3 / 12.5**0.5, 8 / 12.5**0.5]], rtol=1e-12)
    assert np.allclose(rms_norm([[2.0]], [5.0], 12.0), [[2.5]], rtol=1e-12)  # 2 / sqrt(4 + 12) * 5


def test_layer_norm_by_hand():
    y = layer_norm([[1, 3], [10, 10]], [2, 1], [0, 100], 3.0)
    assert np.allclose(y, [[-1, 100.5], [0, 100]], rtol=1e-12)  # deviations of 1 over sqrt(1 + 3)


def test_layer_norm_keeps_its_digits_far_from_zero():
    near = layer_norm([[1, 2, 4]], [1, 1, 1], [0, 0, 0], 1e-6)
    far = layer_norm([[1e6 + 1, 1e6 + 2, 1e6 + 4]], [1, 1, 1], [0, 0, 0], 1e-6)
    assert np.allclose(near, far, rtol=1e-9)


def test_rows_of_zeros_stay_zeros():
    assert not rms_norm(np.zeros((2, 4)), np.ones(4), 1e-6).any()
    assert np.array_equal(layer_norm(np.zeros((1, 2)), np.ones(2), [1, 2], 1e-6), [[1, 2]])


def test_the_sum_is_rounded_as_it_is_stored():
    x, r = np.array([[2048.0, 1.0]], np.float16), np.array([[1.0, 0.5]], np.float16)
    assert np.array_equal(add_residual(x, r), np.array([[2048.0, 1.5]], np.float16))  # halves step by 2 there
    assert add_residual(x, r).dtype == np.float16


def test_int8_steps_by_hand():
    assert np.array_equal(int8_steps([[-254, 127], [0, 0]]), [2, 0])


def test_contradictions_are_refused():
    with pytest.raises(ValueError, match="w of shape"):
        rms_norm(np.ones((1, 3)), np.ones(2), 1e-6)
    with pytest.raises(ValueError, match="b of shape"):
        layer_norm(np.ones((1, 3)), np.ones(3), np.ones(4), 1e-6)
    with pytest.raises(ValueError, match="eps is above 0"):
        rms_norm(np.ones((1, 3)), np.ones(3), 0.0)
    with pytest.raises(ValueError, match="rows"):
        rms_norm(np.ones(3), np.ones(3), 1e-6)
    with pytest.raises(ValueError, match="one type and shape"):
        add_residual(np.ones((1, 2), np.float16), np.ones((1, 2), np.float32))


# ---------------------------------------------------------------- options, cases, tolerances


@pytest.mark.parametrize(
    ("options", "why"),
    [({"eps": 0}, "eps"), ({"norm": "batch"}, "rms"), ({"out": "int4"}, "int8"), ({"gain": 1}, "unknown option")],
)
def test_bad_options_are_refused_before_anything_is_built(options: dict[str, Any], why: str):
    for refuses in (FAMILY.defines, FAMILY.cost, lambda w: FAMILY.case(w, 0)):
        with pytest.raises(ValueError, match=why):
            refuses(job(1, 8, **options))


def test_integer_products_are_refused(device: DeviceChoice):
    space = Space(FAMILY, job(1, 8, DTypes("fp16", "int8", "int32")), device.sheet)
    assert space.reject(FAMILY.default(job(1, 8), device.sheet)) == "norms have no integer products"


def test_cases_are_hard():
    tensors = FAMILY.case(job(4, 512, FP32, norm="layer", residual=True), 3).pack({})
    assert list(tensors) == ["x", "r", "w", "b"]
    assert np.abs(tensors["x"][0]).max() > 40  # outliers
    assert tensors["x"][0].mean() > 10 * tensors["r"][0].std()  # a large mean
    assert not tensors["x"][1].any()
    assert not tensors["r"][1].any()


def test_a_case_is_a_function_of_its_seed():
    first, again, other = (FAMILY.case(job(2, 32), seed).expected["y"] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def float32_layer_norm(x: np.ndarray, case_tensors: Any, *, one_pass: bool) -> np.ndarray:
    mean = x.mean(axis=1, keepdims=True, dtype=np.float32)
    variance = (x * x).mean(axis=1, keepdims=True) - mean * mean if one_pass else np.square(x - mean).mean(1)[:, None]
    scale = 1 / np.sqrt(np.maximum(variance, 0) + np.float32(1e-6))
    return (x - mean) * scale * case_tensors["w"] + case_tensors["b"]


def test_tolerance_tells_a_one_pass_variance():
    case = FAMILY.case(job(1, 63, FP32, norm="layer"), 0)  # too short for outliers, which would widen the deviation
    tensors = case.pack({})
    for one_pass in (False, True):
        y = float32_layer_norm(tensors["x"], tensors, one_pass=one_pass)
        assert (distance(y, case.expected["y"]).nmse > case.tolerance.nmse) == one_pass


def test_tolerance_tells_a_forgotten_eps_and_offset():
    for options, wrong in (({}, {"eps": 1e-12}), ({"norm": "rms1p"}, {"offset": 1.0001})):
        case = FAMILY.case(job(3, 256, FP32, **options), 0)
        tensors = case.pack({})
        call = {"eps": 1e-6, "offset": float("norm" in options)} | wrong
        y = rms_norm(tensors["x"], tensors["w"], call["eps"], offset=call["offset"])
        assert distance(y, case.expected["y"]).nmse > case.tolerance.nmse


def test_codes_are_read_with_their_scales():
    case = FAMILY.case(job(3, 96, out="int8"), 0)
    assert case.read is not None
    steps = case.expected["ys"]
    codes = np.rint(case.expected["y"] / np.where(steps, steps, 1)[:, None]).astype(np.int8)
    assert np.abs(codes).max() == 127
    back = case.read({"y": codes, "ys": steps.astype(np.float32)}, {})
    found = distance(back["y"], case.expected["y"])
    assert case.tolerance.nmse / 20 < found.nmse < case.tolerance.nmse
    assert found.max_scaled < case.tolerance.max_scaled


def test_cost_counts_every_tensor_once():
    cost = FAMILY.cost(job(3, 100, FP16, norm="layer", residual=True))
    assert (cost.bytes, cost.written) == (2 * (4 * 300 + 2 * 100), 2 * 2 * 300)
    quantised = FAMILY.cost(job(3, 100, FP16, out="int8"))
    assert (quantised.bytes, quantised.written) == (2 * (300 + 100) + 300 + 3 * 4, 300 + 3 * 4)


# ---------------------------------------------------------------- what a model asks


def calls(model: str) -> dict[tuple[int, int, bool], int]:
    found = plan([model], families=["rmsnorm"], m=(1,))
    return {(p.workload.dims["M"], p.workload.dims["N"], "residual" in p.workload.options): p.count for p in found}


def test_a_decoder_has_two_norms_a_block_and_one_at_the_end():
    assert calls("gemma-2b") == {(1, 2048, True): 36, (1, 2048, False): 1}
    asked = plan(["gemma-2b"], families=["rmsnorm"], m=(1,))
    assert {Options.of(p.workload).norm for p in asked} == {"rms1p"}


def test_towers_are_layer_normed_and_those_cut_short_have_no_last_norm():
    assert calls("clip-vit-b-32") == {
        (50, 768, True): 24,
        (50, 768, False): 1,
        (77, 512, True): 24,
        (77, 512, False): 1,
    }
    assert calls("imp-v1.5-3b")[729, 1152, True] == 2 * 26 - 1


def test_int8_activations_leave_the_norms_in_float():
    asked = plan(["gemma-2b"], families=["rmsnorm"], compute="int8")
    assert {p.workload.dtypes for p in asked} == {FP16}


# ---------------------------------------------------------------- kernels


def proven(
    family: Family, workload: Workload, config: Config, device: DeviceChoice, supervisor: Supervisor
) -> Errors | str:
    meter = Meter(supervisor, device.sheet)
    candidate = Candidate(family, workload, config)
    meter.build(candidate)
    found = check(meter.bench, candidate)
    meter.release(candidate)
    return found if isinstance(found, Errors) else f"{candidate} {workload.key}: {found.log}"


HARD = (
    job(3, 16383, FP32, residual=True),
    job(17, 257, norm="layer", residual=True),
    job(2, 40, norm="rms1p", residual=True, out="int8"),
    job(5, 1001, FP32, norm="layer", out="int8", eps=1e-3),
)


@pytest.mark.parametrize("workload", HARD, ids=lambda workload: workload.key)
def test_sampled_configurations_are_right(workload: Workload, device: DeviceChoice, supervisor: Supervisor):
    """A few corners of the space; the tuner checks every candidate it times."""
    sheets = device.sheet, replace(device.sheet, kind="gpu", max_work_group=1024)
    for sheet in sheets:
        configs = list(Space(FAMILY, workload, sheet).configs())
        for config in random.Random(workload.key).sample(configs, 2):
            found = proven(FAMILY, workload, config, device, supervisor)
            assert isinstance(found, Errors), found


def test_the_emulated_subgroup_is_right(device: DeviceChoice, supervisor: Supervisor):
    """The form in which a device without subgroups, or a sanitizer, runs the variant."""
    anywhere = Rule("", ("LANES",), lambda c, w, s: True)
    source = "#define EMULATE_SUBGROUPS\n" + SUBGROUP.source
    variant = replace(SUBGROUP, source=source, rules=(anywhere,), workload_rules=())
    family = replace(FAMILY, variants=(variant,))
    for workload in HARD:
        config = variant.config(VEC=2, LANES=8, WG=32, KEEP=2)
        found = proven(family, workload, config, device, supervisor)
        assert isinstance(found, Errors), found


def test_a_change_of_eps_is_a_change_of_build():
    built = {FAMILY.defines(job(1, 8, eps=eps))["EPS"] for eps in (1e-6, 1e-5, 1)}
    assert built == {1e-6, 1e-5, 1.0}


# ---------------------------------------------------------------- loopy


@pytest.fixture
def loopy() -> Iterator[Any]:
    found = pytest.importorskip("loopy", reason="loopy is not installed: pip install 'kiln-workbench[loopy]'")
    with warnings.catch_warnings(), found.CacheMode(False):
        warnings.simplefilter("ignore")
        yield found


def test_the_committed_source_is_what_loopy_generates(loopy: Any):
    committed = (files("kernels.rmsnorm") / "loopy_rows.cl").read_text(encoding="utf-8")
    assert loopy_generate.generate() == committed, "run python -m kernels.rmsnorm.loopy_generate"


@pytest.mark.parametrize("layer", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_loopy_counts_the_cost(loopy: Any, layer: bool, residual: bool):
    """Bytes agree exactly. Operations do where each number is computed once: loopy counts a sum or a deviation as often
    as the formula mentions it (the square has it twice), and one division per mean."""
    sizes = {"M": 8, "N": 1000}
    workload = job(**sizes, dtypes=FP32, norm="layer" if layer else "rms", residual=residual)
    cost = FAMILY.cost(workload)
    kernel = loopy_generate.textbook(residual=residual, layer=layer, plain=True)

    touched = {
        access: loopy.statistics.count(kernel["norm"], elements).eval_with_dict(sizes)
        for access, elements in loopy.gather_access_footprints(kernel).items()
    }
    assert 4 * sum(touched.values()) == cost.bytes
    assert 4 * sum(count for (_, way), count in touched.items() if way == "write") == cost.written

    operations = loopy.get_op_map(kernel, subgroup_size=1, count_redundant_work=True).eval_and_sum(sizes)
    divisions = (1 + layer) * sizes["M"]
    mentions_of_the_sum = (1 + (4 if layer else 3)) * residual  # once for the output, once wherever s stands
    mentions_of_the_deviation = 3 * layer
    again = max(0, mentions_of_the_sum - 1) + max(0, mentions_of_the_deviation - 1)
    assert operations - divisions - again * sizes["M"] * sizes["N"] == cost.flops
