"""The cost model: what must follow from less bandwidth, fewer work-items and more registers, whatever the constants."""

from dataclasses import replace

import pytest

import kernels
from harness.probe import Rates
from kernels.jobs import dtype_policy
from kernels.peaks import Peaks
from kernels.space import Space
from kernels.spec import DeviceSheet, Workload
from tuner.predict import MODEL_VERSION, peaks_of, predict, rank

PHONE = DeviceSheet(
    name="phone",
    vendor="nobody",
    kind="gpu",
    max_work_group=1024,
    max_work_item_sizes=(1024, 1024, 1024),
    local_bytes=32768,
    max_alloc_bytes=1 << 30,
    global_bytes=4 << 30,
    compute_units=6,
    cache_bytes=0,
    image2d=None,
    image_pitch_texels=0,
    image_base_texels=0,
    subgroup_sizes=(),
    extensions=frozenset({"cl_khr_fp16"}),
    opencl_c=(3, 0),
)
PEAKS = Peaks(76.8, None, {"fp32": 2800.0, "fp16": 5600.0}, 5000.0, 0, 48, 64, 6)
GEMV = Workload("gemv_decode", {"M": 1, "N": 16384, "K": 2048}, dtype_policy("fp16", "fp32", "int4/g128"), "int4/g128")
FAMILY = kernels.families()["gemv_decode"]


def usual(workload: Workload = GEMV, sheet: DeviceSheet = PHONE) -> dict:
    return dict(kernels.families()[workload.family].default(workload, sheet))


@pytest.mark.parametrize("kind", ["gpu", "cpu"])
def test_every_family_is_predicted_for_everything_it_covers(kind: str) -> None:
    sheet = replace(PHONE, kind=kind, vector_floats=8 if kind == "cpu" else 0)
    for family in kernels.families().values():
        for workload in family.cover():
            config = family.default(workload, sheet)
            if Space(family, workload, sheet).illegal(config) is None:
                found = predict(family, workload, config, sheet, PEAKS)
                assert found.ns >= PEAKS.launch_ns
                assert found.limited_by in found.terms
                assert all(ns >= 0 for ns in found.terms.values())


def test_a_prediction_is_never_below_the_roofline() -> None:
    cost = FAMILY.cost(GEMV)
    for config in list(Space(FAMILY, GEMV, PHONE).configs())[::97]:
        assert predict(FAMILY, GEMV, config, PHONE, PEAKS).ns >= max(
            cost.cold / PEAKS.read_per_ns, cost.flops / PEAKS.flops_per_ns["fp32"], PEAKS.launch_ns
        )


def test_half_the_bandwidth_doubles_its_term_and_no_other() -> None:
    one = predict(FAMILY, GEMV, usual(), PHONE, PEAKS)
    other = predict(FAMILY, GEMV, usual(), PHONE, replace(PEAKS, read_per_ns=PEAKS.read_per_ns / 2))
    assert other.terms["bandwidth"] == pytest.approx(2 * one.terms["bandwidth"])
    assert {n: t for n, t in other.terms.items() if n not in ("bandwidth", "cache")} == {
        n: t for n, t in one.terms.items() if n not in ("bandwidth", "cache")
    }
    assert other.ns > one.ns


def test_work_that_leaves_units_idle_takes_longer() -> None:
    """A matrix an eighth as large takes more than an eighth of the time beyond its launch."""
    few = GEMV.with_dims(N=2048)
    config = usual()
    large, small = (predict(FAMILY, w, config, PHONE, PEAKS).ns - PEAKS.launch_ns for w in (GEMV, few))
    assert small > large / 8


def test_registers_that_are_not_there_cost_time() -> None:
    wide = FAMILY.variant("panel").config(BLOCKS=8)
    roomy, tight = (predict(FAMILY, GEMV, wide, PHONE, replace(PEAKS, registers_per_work_item=n)).ns for n in (512, 4))
    assert tight > 1.5 * roomy


def test_a_cache_of_unknown_size_holds_what_is_read_again_and_nothing_else() -> None:
    gemm = Workload(
        "gemm_prefill", {"M": 128, "N": 2048, "K": 2048}, dtype_policy("fp16", "fp32", "int4/g128"), "int4/g128"
    )
    family = kernels.families()["gemm_prefill"]
    config, cost = family.default(gemm, PHONE), family.cost(gemm)

    def from_memory(cache_bytes: int) -> float:
        peaks = replace(PEAKS, last_level_cache_bytes=cache_bytes)
        return PEAKS.read_per_ns * predict(family, gemm, config, PHONE, peaks).terms["bandwidth"]

    assert from_memory(0) == pytest.approx(cost.bytes)
    assert from_memory(1 << 30) == pytest.approx(cost.cold)
    assert from_memory(1 << 10) > cost.bytes


def test_each_launch_is_paid_for() -> None:
    split = FAMILY.variant("split_k").config()
    launches = len(FAMILY.variant("split_k").schedule(split, GEMV).launches)
    assert launches == 2
    found = predict(FAMILY, GEMV, split, PHONE, PEAKS)
    assert found.terms["launch"] == launches * PEAKS.launch_ns


def test_ranking_is_by_time_and_says_by_which_model() -> None:
    configs = list(Space(FAMILY, GEMV, PHONE).configs())[::301]
    ranked = rank(FAMILY, GEMV, configs, PHONE, PEAKS)
    times = [found.ns for found, _ in ranked]
    assert times == sorted(times)
    assert len({round(ns) for ns in times}) > len(times) / 10  # it tells configurations apart
    assert ranked[0][0].prediction.model_version == MODEL_VERSION


def test_a_live_device_gives_its_probed_rates() -> None:
    peaks = peaks_of(Rates(10.0, 9.0, {"fp32": 100.0}, 7.0), PHONE)
    assert (peaks.read_per_ns, peaks.copy_per_ns, peaks.launch_ns, peaks.compute_units) == (10.0, 9.0, 7.0, 6)
    assert peaks.registers_per_work_item is None
