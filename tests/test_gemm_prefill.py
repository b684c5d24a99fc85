"""gemm_prefill: activations and epilogues by hand, cases and tolerances, jobs, and its kernels on the devices here."""

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
from kernels.jobs import Ask
from kernels.layouts import CODES
from kernels.models import ACTIVATIONS as NAMES
from kernels.models import load_model
from kernels.source import parameters
from kernels.space import Space
from kernels.spec import DeviceSheet, DTypes, Errors, Measurement, Workload, build_options
from reference.activations import ACTIVATIONS, gelu, gelu_tanh, quick_gelu, silu
from reference.matmul import gemm_epilogue, gemv

FAMILY = kernels.families()["gemm_prefill"]
FLOAT = DTypes("fp16", "fp32", "fp32")
SINGLE = DTypes("fp32", "fp32", "fp32")
HALF = DTypes("fp16", "fp16", "fp16")
INT8 = DTypes("fp16", "int8", "int32")
ALL = {"act": "gelu_tanh", "bias": True, "gated": True, "residual": True}
ASK = Ask(("int4/g128",), "fp16", "fp32", "fp16", (1, 128), 1024, (4, 16))


def job(M: int, N: int, K: int, weights: str = "int4/g128", dtypes: DTypes = FLOAT, **options: object) -> Workload:
    return Workload("gemm_prefill", {"M": M, "N": N, "K": K}, dtypes, weights, options)


# ---------------------------------------------------------------- reference


def test_activations_by_hand():
    x = np.array([-1.0, 0.0, 2.0])
    assert np.allclose(silu(x), [-0.26894142, 0, 1.76159416], atol=1e-8)
    assert np.allclose(gelu(x), [-0.15865525, 0, 1.95449974], atol=1e-8)  # -Φ(-1) and 2·Φ(2) from tables
    assert np.allclose(gelu_tanh(x), [-0.15880801, 0, 1.95459769], atol=1e-8)
    assert np.allclose(quick_gelu(x), [-0.15420423, 0, 1.93565862], atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_activations_far_out_are_zero_and_identity(name: str):
    far = ACTIVATIONS[name](np.array([-1e4, 1e4], np.float32))
    assert far.dtype == np.float64
    assert far.tolist() == [0.0, 1e4]


def test_every_activation_of_the_model_sheets_has_a_reference_and_no_steeper_slope():
    assert set(ACTIVATIONS) == set(NAMES)
    x = np.linspace(-8, 8, 4001)
    for function in ACTIVATIONS.values():
        assert np.abs(np.diff(function(x)) / np.diff(x)).max() < 1.13  # what a case's tolerance counts on
        assert (np.abs(function(x)) <= np.abs(x)).all()


def test_epilogue_by_hand():
    product, up = np.array([[1.0, -2.0], [0.0, 3.0]]), np.array([[2.0, 2.0], [5.0, -1.0]])
    bias, bias_up, residual = [1, 2], [0.5, 0], np.array([[10, 20], [30, 40]])
    assert gemm_epilogue(product).tolist() == product.tolist()
    assert gemm_epilogue(product, bias=bias).tolist() == [[2, 0], [1, 5]]
    assert gemm_epilogue(product, up=up).tolist() == [[2, -4], [0, -3]]
    assert gemm_epilogue(product, residual=residual).tolist() == [[11, 18], [30, 43]]
    everything = gemm_epilogue(product, act="silu", bias=bias, up=up, bias_up=bias_up, residual=residual)
    expected = [[silu(2.0) * 2.5 + 10, 20], [silu(1.0) * 5.5 + 30, silu(5.0) * -1 + 40]]
    assert np.allclose(everything, expected, rtol=1e-14)


# ---------------------------------------------------------------- cases


@pytest.mark.parametrize("weights", ["int4/g128", "e0m4/g32", "int8", "fp16"])
def test_arguments_are_those_that_format_and_options_need(weights: str):
    scales = set() if weights == "fp16" else {"sb"}
    layout = {"w": f"n16k{CODES[job(1, 1, 128, weights).format.kind]}"}
    plain = FAMILY.case(job(3, 37, 256, weights), 0).pack(layout)
    assert set(plain) == {"x", "w"} | scales
    full = FAMILY.case(job(3, 37, 256, weights, **ALL), 0).pack(layout)
    assert set(full) == {"x", "w", "w_up", "bias", "bias_up", "r"} | scales | {f"{name}_up" for name in scales}
    assert full["w_up"].shape == full["w"].shape
    assert not np.array_equal(full["w_up"], full["w"])
    assert full["bias"].shape == full["bias_up"].shape == (37,)
    assert full["r"].shape == (3, 37)
    assert full["r"].dtype == full["bias"].dtype == np.float16


def test_the_answer_is_the_epilogue_of_the_packed_weights_products():
    case = FAMILY.case(job(3, 32, 64, "fp16", **ALL), 5)
    t = case.pack({"w": "n1k2"})
    w, w_up = (t[name].reshape(32, 32).view(np.float16) for name in ("w", "w_up"))
    expected = gemm_epilogue(
        gemv(t["x"], w),
        act="gelu_tanh",
        bias=t["bias"],
        up=gemv(t["x"], w_up),
        bias_up=t["bias_up"],
        residual=t["r"],
    )
    assert np.allclose(case.expected["y"], expected, rtol=1e-12)


def test_a_plain_job_is_the_gemvs():
    ours, theirs = job(4, 48, 256), replace(job(4, 48, 256), family="gemv_decode")
    case, other = FAMILY.case(ours, 3), kernels.families()["gemv_decode"].case(theirs, 3)
    assert np.array_equal(case.expected["y"], other.expected["y"])
    assert case.tolerance == other.tolerance


@pytest.mark.parametrize("options", [{}, {"act": "gelu"}, {"gated": True}, {"act": "silu", "gated": True}, ALL])
@pytest.mark.parametrize(("dtypes", "step"), [(HALF, 2.0**-6), (FLOAT, 2.0**-11)])
def test_tolerance_covers_errors_of_the_products_and_little_more(options: dict, dtypes: DTypes, step: float):
    """Products off by a little: the epilogue's own magnification must be what the limit assumes, within a few times."""
    workload = job(16, 256, 512, "fp16", dtypes, **options)
    case = FAMILY.case(workload, 1)
    t = case.pack({"w": "n1k2"})
    rng = np.random.default_rng(2)
    products = [gemv(t["x"], t[name].reshape(256, 256).view(np.float16)) for name in ("w", "w_up") if name in t]
    size = 0.02 * np.linalg.norm(t["x"].astype(np.float64), axis=1, keepdims=True)
    off = [p + step * size * rng.standard_normal(p.shape) for p in products]
    y = gemm_epilogue(
        off[0],
        act=options.get("act"),
        bias=t.get("bias"),
        up=off[1] if len(off) > 1 else None,
        bias_up=t.get("bias_up"),
        residual=t.get("r"),
    )
    expected = case.expected["y"]
    nmse = ((y - expected) ** 2).sum() / (expected**2).sum()
    assert nmse < case.tolerance.nmse < 300 * nmse
    assert np.abs(y - expected).max() / np.sqrt((expected**2).mean()) < case.tolerance.max_scaled


def test_cost_counts_both_matrices_and_what_is_added():
    plain, full = (FAMILY.cost(job(2, 256, 512, **options)) for options in ({}, ALL))
    assert plain.flops == 2 * 2 * 256 * 512
    assert full.flops == 2 * plain.flops
    assert full.bytes - plain.bytes == 256 * 512 * 4.25 / 8 + 2 * (2 * 256 + 2 * 256)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"epilogue": "silu"}, 'unknown option "epilogue" of gemm_prefill; choose from act, bias, gated, residual'),
        ({"act": "relu"}, 'unknown activation "relu"; choose one of silu, gelu, gelu_tanh, quick_gelu'),
    ],
)
def test_options_that_do_not_exist_are_named(options: dict, why: str):
    for refuse in (FAMILY.defines, lambda workload: FAMILY.case(workload, 0)):
        with pytest.raises(ValueError, match="unknown") as caught:
            refuse(job(1, 8, 128, **options))
        assert str(caught.value) == why


# ---------------------------------------------------------------- jobs


def found(model: str, ask: Ask = ASK) -> dict[str, tuple[tuple[int, ...], dict, int, str]]:
    jobs, _ = FAMILY.jobs(load_model(model), ask)
    return {
        f"{j.workload.label.partition(' ')[2]} {j.workload.dims['M']}": (
            tuple(j.workload.dims[d] for d in "NK"),
            dict(j.workload.options),
            j.count,
            f"{j.phase}, {j.workload.weights}",
        )
        for j in jobs
    }


def test_jobs_of_a_gated_decoder():
    four_bit = "prefill 128, int4/g128"
    assert found("gemma-2b") == {
        "q 128": ((2048, 2048), {}, 18, four_bit),
        "kv 128": ((512, 2048), {}, 18, four_bit),
        "o 128": ((2048, 2048), {"residual": True}, 18, four_bit),
        "gate/up 128": ((16384, 2048), {"act": "gelu_tanh", "gated": True}, 18, four_bit),
        "down 128": ((2048, 16384), {"residual": True}, 18, four_bit),
        "gate/up 4": ((16384, 2048), {}, 1, "overlap, int4/g128"),
        "gate/up 16": ((16384, 2048), {}, 1, "overlap, int4/g128"),
    }


def test_jobs_of_towers():
    clip = found("clip-vit-b-32")
    assert len(clip) == 8
    assert clip["image qkv 50"] == ((2304, 768), {"bias": True}, 12, "tower image, fp16")
    assert clip["image o 50"] == ((768, 768), {"bias": True, "residual": True}, 12, "tower image, fp16")
    assert clip["text fc1 77"] == ((2048, 512), {"bias": True, "act": "quick_gelu"}, 12, "tower text, fp16")
    assert clip["text fc2 77"] == ((512, 2048), {"bias": True, "residual": True}, 12, "tower text, fp16")


def test_jobs_of_a_decoder_with_biases_behind_a_tower():
    imp = found("imp-v1.5-3b")
    assert imp["fc1 128"] == ((10240, 2560), {"act": "gelu_tanh", "bias": True}, 32, "prefill 128, int4/g128")
    assert imp["fc2 128"][1] == {"residual": True, "bias": True}
    assert imp["kv 128"][:2] == ((5120, 2560), {"bias": True})
    assert imp["image fc2 729"] == ((1152, 4304), {"bias": True, "residual": True}, 26, "tower image, fp16")
    assert imp["projector 1 729"] == ((2560, 1152), {"bias": True, "act": "gelu"}, 1, "tower image, fp16")
    assert imp["projector 2 729"] == ((2560, 2560), {"bias": True}, 1, "tower image, fp16")
    assert "lm_head 128" not in imp


def test_few_rows_are_left_to_the_gemv():
    assert found("gemma-2b", replace(ASK, m=(1, 16), overlap=())) == {}


def test_a_group_that_does_not_divide_k_is_planned_in_fp16_with_a_note():
    decoder = replace(load_model("gemma-2b").decoder, inter=16400)
    sheet = replace(load_model("gemma-2b"), decoder=decoder)
    jobs, notes = FAMILY.jobs(sheet, ASK)
    assert {j.workload.weights for j in jobs if j.workload.dims["K"] == 16400} == {"fp16"}
    assert any("16400" in note for note in notes)


# ---------------------------------------------------------------- spaces


def refusal(workload: Workload, sheet: DeviceSheet) -> str | None:
    config = FAMILY.default(job(17, 64, 128, dtypes=workload.dtypes), sheet)
    return Space(FAMILY, workload, sheet).reject(config)


def test_workloads_outside_the_contract_are_refused(device: DeviceChoice):
    assert refusal(job(4097, 64, 128), device.sheet) == "M is 1 to 4096"
    assert refusal(job(17, 64, 192), device.sheet) == "K is a multiple of the group (of 8 for fp16 and int8)"
    assert refusal(job(17, 64, 128, "fp16", INT8), device.sheet) == ("integer products need integer weights")


@pytest.mark.parametrize("dtypes", [FLOAT, HALF, INT8])
@pytest.mark.parametrize("M", [1, 2, 7, 16, 50, 577, 1024, 4096])
def test_default_runs_everywhere(M: int, dtypes: DTypes, device: DeviceChoice):
    for claimed in (device.sheet, replace(device.sheet, kind="gpu", max_work_group=128)):
        for options in ({}, ALL):
            workload = job(M, 2048, 2048, dtypes=dtypes, **options)
            assert Space(FAMILY, workload, claimed).reject(FAMILY.default(workload, claimed)) is None


@pytest.mark.parametrize("M", [128, 1024])
def test_long_prompts_have_a_space_that_can_be_searched(M: int, device: DeviceChoice):
    for claimed in (device.sheet, replace(device.sheet, kind="gpu", max_work_group=1024)):
        assert 20 <= Space(FAMILY, job(M, 2048, 16384, residual=True), claimed).size <= 25_000


def test_untuned_families_share_one_layout(device: DeviceChoice):
    gemv_family = kernels.families()["gemv_decode"]
    for dtypes in (FLOAT, HALF, INT8):
        for claimed in (device.sheet, replace(device.sheet, kind="gpu", max_work_group=1024)):
            layouts = []
            for family in (FAMILY, gemv_family):
                workload = replace(job(4, 2048, 2048, dtypes=dtypes), family=family.name)
                config = family.default(workload, claimed)
                layouts.append(family.variant(config["variant"]).layouts(config, workload))
            assert layouts[0] == layouts[1], dtypes


def test_every_epilogue_has_its_own_build():
    options: list[dict] = [{}, {"bias": True}, {"gated": True}, {"residual": True}, *({"act": a} for a in NAMES)]
    config = FAMILY.variant("tile").config()
    assert len({build_options(FAMILY, config, job(1, 8, 128, **o)) for o in options}) == len(options)
    assert parameters(FAMILY.variant("tile").source) >= {"EPILOGUE_ACT", "EPILOGUE_BIAS", "EPILOGUE_GATED"}


# ---------------------------------------------------------------- kernels


def checked(supervisor: Supervisor, device: DeviceChoice, workload: Workload, config: dict) -> Errors | Measurement:
    meter = Meter(supervisor, device.sheet)
    candidate = Candidate(FAMILY, workload, config)
    meter.build(candidate)
    result = check(meter.bench, candidate)
    meter.release(candidate)
    return result


@pytest.mark.parametrize("act", NAMES)
def test_epilogues_of_the_default_are_right(act: str, device: DeviceChoice, supervisor: Supervisor):
    gated = act in ("silu", "gelu_tanh")  # the two that models gate
    workload = job(19, 83, 256, "e0m4/g64", SINGLE, act=act, gated=gated, bias=gated, residual=not gated)
    result = checked(supervisor, device, workload, FAMILY.default(workload, device.sheet))
    assert isinstance(result, Errors), result.log
    assert result.nmse < 1e-10  # far below the limit: an activation's polynomial is as good as float arithmetic


@pytest.mark.parametrize("dtypes", [FLOAT, HALF, INT8], ids=str)
def test_sampled_configurations_are_right(dtypes: DTypes, device: DeviceChoice, supervisor: Supervisor):
    """Corners of every variant's space with all that an epilogue can have; the tuner checks whatever it times."""
    workload = job(33, 83, 384, "int4/g128", dtypes, **ALL)
    claimed = (device.sheet, replace(device.sheet, kind="gpu", max_work_group=1024))
    ran = 0
    for variant in FAMILY.variants:
        one = replace(FAMILY, variants=(variant,))
        configs = [config for sheet in claimed for config in Space(one, workload, sheet).configs()]
        if configs:
            config = random.Random(f"{variant.name} {dtypes}").choice(configs)
            result = checked(supervisor, device, workload, config)
            assert isinstance(result, Errors), (config, result.log)
            ran += 1
    assert ran
