"""Proving on a CPU for a device that is not here: limits are held to, wrong results told, and forms named."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from test_predict import PHONE

import kernels
from harness.candidate import Candidate
from harness.devices import DeviceChoice
from kernels.jobs import dtype_policy
from kernels.spec import Config, DeviceSheet, Variant, Verdict, Workload
from tuner.proving import MOST_FLOPS, Proof, Prover, Refusal, affordable, held_to

CLAIM = replace(
    PHONE,
    image2d=(16384, 16384),
    image_pitch_texels=64,
    image_base_texels=64,
    subgroup_sizes=(64, 128),
    extensions=frozenset({"cl_khr_fp16", "cl_khr_subgroups", "cl_khr_image2d_from_buffer", "cl_qcom_perf_hint"}),
)
NORM = Workload("rmsnorm", {"M": 3, "N": 512}, dtype_policy("fp16", "fp32", None), None, {"norm": "rms"})
GEMV = Workload("gemv_decode", {"M": 1, "N": 128, "K": 512}, dtype_policy("fp16", "fp32", "int4/g128"), "int4/g128")


@pytest.fixture
def prover(device: DeviceChoice) -> Iterator[Prover]:
    if device.sheet.kind != "cpu":
        pytest.skip("candidates are proven on CPUs")
    with Prover([device], CLAIM) as made:
        yield made


def candidate(workload: Workload, variant: str, **params: int) -> Candidate:
    family = kernels.families()[workload.family]
    return Candidate(family, workload, family.variant(variant).config(**params))


def host(**facts: object) -> DeviceSheet:
    return replace(CLAIM, kind="cpu", **facts)  # type: ignore[arg-type]


def test_of_every_limit_the_lower_one_holds() -> None:
    held = held_to(
        host(
            max_work_group=4096,
            local_bytes=16384,
            image2d=(8192, 32768),
            image_pitch_texels=4,
            subgroup_sizes=(8, 16, 64),
            extensions=frozenset({"cl_khr_fp16", "cl_khr_int64_base_atomics", "cl_intel_subgroups"}),
            opencl_c=(1, 2),
        ),
        CLAIM,
    )
    assert held.kind == "gpu"
    assert held.max_work_group == 1024
    assert held.local_bytes == 16384
    assert held.image2d == (8192, 16384)
    assert held.image_pitch_texels == 64  # what the phone needs also suits the host
    assert held.subgroup_sizes == ()  # 64 would take a host's compiler too long
    assert held.extensions == {"cl_khr_fp16"}
    assert held.opencl_c == (1, 2)


@pytest.mark.parametrize("pitch", [0, 48])
def test_an_image_pitch_that_does_not_suit_the_host_is_none(pitch: int) -> None:
    assert held_to(host(image_pitch_texels=pitch), CLAIM).image_pitch_texels == 0


def test_a_right_candidate_is_proven_and_says_where(prover: Prover, device: DeviceChoice) -> None:
    found = prover.prove(candidate(NORM, "group_tree"))
    assert isinstance(found, Proof)
    assert found.on.device
    assert found.on.half == "emulated"  # it multiplies in float
    assert found.errors.nmse <= found.errors.limits.nmse
    assert "M=3 N=512" in found.errors.shapes


def test_a_hosts_own_name_for_subgroups_counts_where_the_phone_has_them() -> None:
    phone = replace(CLAIM, subgroup_sizes=(16,))
    intel = host(subgroup_sizes=(8, 16, 32), extensions=frozenset({"cl_intel_subgroups"}))
    assert held_to(intel, phone).subgroup_sizes == (16,)
    assert "cl_intel_subgroups" in held_to(intel, phone).extensions
    assert "cl_intel_subgroups" not in held_to(intel, replace(phone, subgroup_sizes=())).extensions


@pytest.mark.parametrize("lanes", [16, 64])
def test_subgroups_run_by_themselves_or_in_a_form_that_is_named(device: DeviceChoice, lanes: int) -> None:
    if device.sheet.kind != "cpu":
        pytest.skip("candidates are proven on CPUs")
    with Prover([device], replace(CLAIM, subgroup_sizes=(16, 64))) as prover:
        found = prover.prove(candidate(NORM, "subgroup", LANES=lanes, WG=64, VEC=1))
    assert isinstance(found, Proof)
    native = lanes == 16 and 16 in device.sheet.subgroup_sizes
    assert found.on.subgroup == (lanes if native else None)
    assert ("a tree for subgroups" in found.on.device) == (not native)


def test_what_has_no_form_here_is_unsupported(prover: Prover, device: DeviceChoice) -> None:
    """No CPU has subgroups of 128, and none is emulated."""
    wide = candidate(NORM, "subgroup", LANES=128, WG=128, VEC=1)
    assert not prover.able(wide)
    found = prover.prove(wide)
    assert isinstance(found, Refusal)
    assert found.verdict is Verdict.UNSUPPORTED


def broken(variant: Variant) -> Variant:
    assert "rsqrt" in variant.source
    return replace(variant, source=variant.source.replace("rsqrt", "sqrt"))


def test_a_wrong_result_is_the_last_word(prover: Prover) -> None:
    right = candidate(NORM, "group_tree")
    family = replace(
        right.family, variants=tuple(broken(v) if v.name == "group_tree" else v for v in right.family.variants)
    )
    found = prover.prove(replace(right, family=family))
    assert isinstance(found, Refusal)
    assert found.verdict is Verdict.WRONG_RESULT


def test_what_takes_too_long_is_proven_with_fewer_rows_of_the_same_program() -> None:
    family = kernels.families()["gemm_prefill"]
    large = Workload(
        "gemm_prefill", {"M": 1024, "N": 16384, "K": 2048}, dtype_policy("fp16", "fp32", "int4/g128"), "int4/g128"
    )
    config: Config = family.default(large, CLAIM)
    there = affordable(Candidate(family, large, config), CLAIM)
    assert there.workload.dims["M"] < 1024
    assert family.cost(there.workload).flops <= MOST_FLOPS
    assert there.program == Candidate(family, large, config).program
    small = candidate(GEMV, "panel")
    assert affordable(small, CLAIM) is small
