"""kernels/claims.py: what a sheet claims where no device is attached, and where a live one says otherwise."""

from dataclasses import replace
from pathlib import Path

import pytest
from test_doctor import DESCRIPTION

import kernels
from harness.devices import sheet_from
from kernels import tuned
from kernels.claims import (
    LEAST_ALLOC_BYTES,
    LEAST_LOCAL_BYTES,
    LEAST_WORK_GROUP,
    contradictions,
    denied,
    deny_rules,
    device_sheet,
    peaks,
)
from kernels.plan import plan
from kernels.sheet import Strings, identity, load_sheet, parse_sheet, sheet_names
from kernels.space import Space
from kernels.spec import DTypes, Workload

BARE = """
[identity]
vendor = "Nobody"
model = "Paper 1"
type = "gpu"
match = ['Paper 1']
"""
NORM = Workload("rmsnorm", {"M": 1, "N": 2048}, DTypes("fp16", "fp32", "fp32"))


def test_what_is_not_known_is_taken_at_its_worst() -> None:
    sheet = device_sheet(parse_sheet("paper1", BARE))
    assert (sheet.max_work_group, sheet.local_bytes) == (LEAST_WORK_GROUP, LEAST_LOCAL_BYTES)
    assert (sheet.max_alloc_bytes, sheet.max_work_item_sizes) == (LEAST_ALLOC_BYTES, (128, 128, 64))
    assert sheet.image2d is None
    assert (sheet.subgroup_sizes, sheet.extensions, sheet.opencl_c) == ((), frozenset(), (1, 2))
    assert (sheet.compute_units, sheet.cache_bytes) == (1, 0)
    assert peaks(parse_sheet("paper1", BARE)) is None


def test_what_is_known_is_taken() -> None:
    sheet = device_sheet(load_sheet("adreno750"))
    assert (sheet.name, sheet.kind, sheet.max_work_group, sheet.image2d) == ("adreno750", "gpu", 1024, (16384, 16384))
    assert sheet.image_pitch_texels == 64
    assert sheet.has("cl_khr_fp16")
    # A kernel without a work-group size of its own gets 256 work-items of this GPU's 1,024.
    assert device_sheet(load_sheet("nvidia-h200")).max_work_group == 256


def test_images_from_buffers_need_their_extension() -> None:
    """Limits of images alone do not make a pitch: the H200 has images, but none over buffers."""
    sheet = device_sheet(load_sheet("nvidia-h200"))
    assert sheet.image2d == (32768, 32768)
    assert sheet.image_pitch_texels == 0


def test_peaks() -> None:
    found = peaks(load_sheet("nvidia-h200"))
    assert found is not None
    assert (found.read_per_ns, found.copy_per_ns, found.flops_per_ns) == (4018.0, 3799, {"fp32": 63754.0})
    assert (found.launch_ns, found.wave, found.registers_per_work_item, found.compute_units) == (5824.0, 32, 64, 132)
    phone = peaks(load_sheet("adreno750"))
    assert phone is not None
    assert phone.flops_per_ns == {"fp32": 2800.0, "fp16": 5600.0}
    assert (phone.copy_per_ns, phone.launch_ns, phone.last_level_cache_bytes) == (None, 0.0, 0)


@pytest.mark.parametrize("name", sheet_names())
def test_a_model_can_be_planned_for_every_sheet(name: str) -> None:
    """Every family's default is legal for all of Gemma's workloads, by what the sheet claims alone."""
    sheet = device_sheet(load_sheet(name))
    if load_sheet(name).get("limits.max_alloc_bytes") is None:  # Gemma's lm_head does not fit the least buffer
        sheet = replace(sheet, max_alloc_bytes=1 << 30)
    for item in plan(["gemma-2b"]):
        family = kernels.families()[item.workload.family]
        assert Space(family, item.workload, sheet).reject(family.default(item.workload, sheet)) is None


# ---------------------------------------------------------------- traps


def test_a_trap_denies_by_compiler() -> None:
    sheet = load_sheet("adreno640")
    families = [rule.family for rule in denied(sheet, "E031.37.12")]
    assert families == ["flash_attention", "gemv_decode", "kv_concat", "rmsnorm"]
    assert denied(sheet, "E031.38.11") == ()
    assert denied(sheet, "E031.45.02") == ()
    assert len(denied(sheet, "")) == 4, "an unknown compiler may be a bad one"


def test_what_is_denied_is_not_in_the_space() -> None:
    family = kernels.families()["rmsnorm"]
    free = device_sheet(load_sheet("adreno640"), "E031.45")
    bad = replace(free, denied=denied(load_sheet("adreno640"), "E031.37"))
    legal = list(Space(family, NORM, free).configs())
    left = list(Space(family, NORM, bad).configs())
    subgroups = [config for config in legal if config["variant"] == "subgroup"]
    assert subgroups
    assert left == [config for config in legal if config["variant"] != "subgroup"]
    why = "the driver gets it right (subgroup reductions crash the compiler)"
    assert Space(family, NORM, bad).illegal(subgroups[0]) == why


def test_a_parameter_can_be_denied_in_every_variant() -> None:
    family = kernels.families()["flash_attention"]
    dims = {"M": 1, "T": 256, "H": 8, "G": 2, "D": 64, "S": 256}
    workload = Workload("flash_attention", dims, DTypes("fp16", "fp32", "fp32", "fp16"))
    free = device_sheet(load_sheet("adreno740"), "E031.45")
    bad = replace(free, denied=denied(load_sheet("adreno730"), "E031.45"))
    legal = list(Space(family, workload, free).configs())
    left = list(Space(family, workload, bad).configs())
    assert {config["HEADS"] for config in legal} >= {1, 4}
    keys = [str(sorted(config.items())) for config in legal if config["HEADS"] != 4]
    assert sorted(keys) == sorted(str(sorted(config.items())) for config in left)
    assert Space(family, workload, bad).size == len(left)


def test_a_document_gets_the_rules_of_all_compilers() -> None:
    (rule,) = deny_rules(load_sheet("adreno640"), "rmsnorm")
    assert rule.params == {"variant": "subgroup"}
    assert rule.compiler == ("<E031.38.11",)
    assert rule.why == "subgroup reductions crash the compiler"
    assert deny_rules(load_sheet("adreno750"), "rmsnorm") == ()


# ---------------------------------------------------------------- beside a live device


def test_a_live_device_and_its_sheet() -> None:
    listed = ["cl_khr_fp16", "cl_khr_subgroups", "cl_khr_image2d_from_buffer", "cl_qcom_reqd_sub_group_size"]
    listed += ["cl_qcom_subgroup_shuffle", "cl_qcom_priority_hint", "cl_qcom_perf_hint", "cl_qcom_recordable_queues"]
    phone = DESCRIPTION | {"extensions": [*listed, "cl_qcom_new"], "max_mem_alloc_size": 4 << 30}
    sheet = load_sheet("adreno750")
    assert contradictions(sheet, sheet_from(phone)) == ()
    odd = {"max_work_group_size": 512, "subgroup_sizes": [32], "opencl_c_version": "OpenCL C 2.0 Adreno(TM) 750"}
    odd |= {"max_mem_alloc_size": 1 << 28, "extensions": [*listed[1:], "cl_khr_subgroup_shuffle"]}
    found = {item.key: (item.claimed, item.live) for item in contradictions(sheet, sheet_from(phone | odd))}
    assert found == {
        "limits.max_work_group": (1024, 512),
        "limits.max_alloc_bytes": (1 << 30, 1 << 28),
        "execution.subgroup_sizes": ((64, 128), (32,)),
        "language.opencl_c": ((3, 0), (2, 0)),
        "language.extensions": (("cl_khr_fp16",), "has not"),
        "language.without": (("cl_khr_subgroup_shuffle",), "has"),
    }
    assert sheet_from(phone | odd).max_work_group == 512, "the device's own value holds"
    first = str(contradictions(sheet, sheet_from(phone | odd))[0])
    assert first == "the sheet says limits.max_work_group 1,024, the device 512: the device's holds"


def test_a_live_device_has_the_denials_of_its_compiler() -> None:
    old = {"version": "OpenCL 2.0 Adreno(TM) 640", "opencl_c_version": "OpenCL C 2.0 Adreno(TM) 640"}
    old |= {"driver_version": "OpenCL 2.0 QUALCOMM build: commit #1 Compiler E031.37.12.01"}
    assert len(sheet_from(DESCRIPTION | old).denied) == 4
    assert sheet_from(DESCRIPTION).denied == ()


@pytest.mark.parametrize(("document", "name"), [("nvidia-h200", "nvidia-h200"), ("cpu-pocl-zen3", "cpu-pocl")])
def test_the_devices_that_were_tuned_are_as_their_sheets_say(document: str, name: str) -> None:
    facts = tuned.load(Path(__file__).parent.parent / "results" / f"{document}.json").device
    assert contradictions(load_sheet(name), facts.sheet) == ()
    assert identity(name).matches(Strings.of(facts.raw))
    expected = peaks(load_sheet(name))
    assert expected is not None
    assert expected.compute_units == facts.sheet.compute_units
