"""The right entry for a device and its sizes, the level told in words, and never a match with nothing."""

from dataclasses import replace

import pytest
from tuned_samples import (
    DEVICE,
    DTYPES,
    FAMILY,
    FEW,
    IMAGE,
    ONE,
    ROWS,
    SHEET,
    SPARE,
    WIDE,
    box,
    config,
    entry,
    on,
    workload,
)

from kernels.entry import built_in_entry, source_sha256
from kernels.explain import explain
from kernels.fit import compiler_meets
from kernels.identity import identify
from kernels.select import Level, select
from kernels.spec import Workload
from kernels.tuned import Deny, dumps, loads

MODEL_740 = on(model="adreno-740", compute_units=5)


def pick(*configs, job=None, device=DEVICE, **more):
    return select(configs or (config(),), job or workload(), device, FAMILY, **more)


# ---------------------------------------------------------------- levels


@pytest.mark.parametrize(
    ("facts", "level", "word"),
    [
        (DEVICE, Level.EXACT, "with this driver"),
        (on(driver="0700.1"), Level.STALE, "another driver"),
        (on(compiler="E031.46"), Level.STALE, "another driver"),
        (MODEL_740, Level.FAMILY, "similar device of the same family"),
        (on(family="adreno-8xx", model="adreno-830"), Level.VENDOR, "default of another device of this vendor"),
        (on(model="adreno-702", compute_units=1, local_bytes=16384, max_work_group=512), Level.VENDOR, "default"),
        (on(vendor="arm", family="mali-5th-gen", model="mali-g720"), Level.BUILT_IN, "built-in safe default"),
    ],
)
def test_the_level_is_reported_in_words(facts, level, word):
    found = pick(device=facts)
    assert found.level is level
    assert word in found.sentence
    if level is Level.VENDOR:
        assert found.entry.id == "spare"
        assert found.how == "the document's default"
    elif level is Level.BUILT_IN:
        assert found.entry == built_in_entry(FAMILY, workload(), facts.sheet)
        assert found.entry.evidence == "built-in"
    else:
        assert found.entry.id == "one"


def test_the_nearest_document_wins_whatever_the_order():
    mine, sibling, other = (
        config(),
        config(device=MODEL_740),
        config(device=on(family="adreno-8xx", model="adreno-830")),
    )
    far = config(device=on(model="adreno-730", compute_units=3))
    device = on(model="adreno-760", compute_units=5)
    for configs in ([far, other, sibling], [sibling, far, other]):
        found = pick(*configs, device=device)
        assert found.level is Level.FAMILY
        assert 'document of adreno-740: entry "one" taken' in found.notes[-1]
    assert pick(other, sibling, mine).level is Level.EXACT


def test_an_edited_document_counts_for_less_and_is_reported():
    text = dumps(config())
    edited = loads(text.replace('"median_ns": 123456.5', '"median_ns": 99.0'))
    found = pick(edited)
    assert found.level is Level.STALE
    assert any("edited since it was written" in note for note in found.notes)
    assert pick(edited, config(device=on(driver="old"))).notes[-1].startswith("document of adreno-750: entry")
    assert not any("checksum" in note for note in pick(edited, config()).notes)  # the whole one is asked first


def test_no_documents_at_all():
    found = select((), workload(), DEVICE, FAMILY)
    assert found.level is Level.BUILT_IN
    assert found.entry.variant == "rows"


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("m", "n", "expected"),
    [(1, 1, "one"), (1, 8191, "one"), (1, 8192, "wide"), (1, 16384, "wide"), (2, 256, "few"), (16, 8192, "few")],
)
def test_the_bucket_that_holds_the_sizes(m, n, expected):
    found = pick(job=workload(m, n))
    assert found.entry.id == expected
    assert "holds the sizes" in found.how


def test_the_nearest_bucket_of_the_same_regime():
    bounded = config(
        entry("a", box((1, 1), (1, 1024))),
        entry("b", box((2, 4), (1, 1024)), job=workload(m=4)),
        entry("default", None, WG=128),
    )
    near = pick(bounded, job=workload(1, 4096))
    assert (near.entry.id, near.how) == ("a", "nearest bucket M 1…1, N 1…1024, K 1…, a factor 4 off")
    assert pick(bounded, job=workload(8, 1024)).entry.id == "b"
    far = pick(bounded, job=workload(1, 1 << 20))
    assert (far.entry.id, far.how) == ("default", "the document's default")
    decode_only = config(entry("a", box((1, 1), (1, 1024))), entry("default", None, WG=128))
    assert pick(decode_only, job=workload(2, 1024)).entry.id == "default"  # M = 1 lends nothing to M = 2


def test_nothing_matches_another_format_policy_or_option():
    for job in (
        workload(weights="e0m4/g128"),
        Workload("gemv_decode", workload().dims, replace(DTYPES, act="fp32"), "int4/g128"),
        Workload("gemv_decode", workload().dims, DTYPES, "int4/g128", {"epilogue": "silu"}),
    ):
        found = pick(job=job)
        assert found.level is Level.BUILT_IN
        assert any("no entry for" in note and "it has int4/g128 act=fp16" in note for note in found.notes)


# ---------------------------------------------------------------- reasons against


def test_predicted_entries_only_when_asked_for():
    guess = config(entry("guess", box((1, 16), (1, None)), predicted=True))
    assert pick(guess).level is Level.BUILT_IN
    assert any("predictions were not asked for" in note for note in pick(guess).notes)
    assert pick(guess, predicted=True).entry.id == "guess"


def test_other_sources_demote_to_alternates_then_levels():
    other = replace(ONE, source_sha256="0" * 64)
    found = pick(config(other, WIDE, FEW, SPARE))
    assert (found.entry.id, found.how) == ("spare", 'alternate of "one"')
    assert any('"one"' in note and "another source of variant rows; tune again" in note for note in found.notes)
    all_other = config(*(replace(e, source_sha256="0" * 64) for e in (ONE, WIDE, FEW, SPARE)))
    assert pick(all_other).level is Level.BUILT_IN
    assert pick(all_other, config(device=MODEL_740)).level is Level.FAMILY
    gone = config(replace(ONE, variant="retired"), WIDE, FEW, SPARE)
    assert any("no variant retired" in note for note in pick(gone).notes)


def test_another_abi_is_not_bound():
    section = config().kernels["gemv_decode"]
    old = replace(config(), kernels={"gemv_decode": replace(section, abi=replace(section.abi, version=1))})
    found = pick(old)
    assert found.level is Level.BUILT_IN
    assert any("speaks ABI 1, not 2" in note for note in found.notes)
    fewer = replace(section.abi, args=section.abi.args[:-1])
    cut = replace(config(), kernels={"gemv_decode": replace(section, abi=fewer)})
    assert any("lists other arguments for ABI 2" in note for note in pick(cut).notes)
    none = replace(config(), kernels={"other": section})
    assert any("has no kernel gemv_decode" in note for note in pick(none).notes)


@pytest.mark.parametrize(
    ("changes", "reason", "instead"),
    [
        ({"extensions": frozenset({"cl_khr_fp16"})}, "needs cl_khr_image2d_from_buffer", "spare"),
        ({"image2d": None}, "needs images over buffers", "spare"),
        ({"image_pitch_texels": 0}, "needs images over buffers", "spare"),
        ({"image2d": (16384, 8192)}, "needs an image of 64×16384, the device allows 16384×8192", "spare"),
        ({"image_pitch_texels": 128}, "image rows of 64 texels, the device wants multiples of 128", "spare"),
        ({"max_work_group": 32}, "needs work-groups of 64, the device allows 32", None),
        ({"max_work_item_sizes": (32, 32, 32)}, "work-groups of 64 are too large", None),
    ],
)
def test_needs_are_checked_against_the_device(changes, reason, instead):
    found = pick(job=workload(n=16384), device=on(**changes))
    assert any('"wide"' in note and reason in note for note in found.notes), found.notes
    if instead:
        assert found.entry.id == instead
    else:
        assert found.level is Level.BUILT_IN


def test_local_memory_multiples_rules_and_grids():
    found = pick(device=on(local_bytes=512))
    assert found.entry.id == "built-in"
    assert any("needs 2048 bytes of local memory, the device has 512" in note for note in found.notes)
    assert ONE.needs.multiple_of == {"K": 128}
    picky = replace(ONE, needs=replace(ONE.needs, multiple_of={"K": 4096}))
    assert any("needs K to be a multiple of 4096" in note for note in pick(config(picky, WIDE, FEW, SPARE)).notes)
    split = config(entry("split", box((1, 16), (1, None)), SPLIT=4, job=workload(k=16384)))
    assert pick(split, job=workload(k=16384)).entry.id == "split"
    assert any('rule "each part of K has 1,024" does not hold' in note for note in pick(split).notes)
    far = replace(ONE, scratch=(replace(ONE.scratch[0], bytes=(2**53 - 1, 2**12)),))
    assert any("beyond 64 bits" in note for note in pick(config(far, WIDE, FEW, SPARE)).notes)
    uneven = replace(ONE, launches=(replace(ONE.launches[0], local=(48, 1)), ONE.launches[1]))
    assert any("no multiple of its work-group" in note for note in pick(config(uneven, WIDE, FEW, SPARE)).notes)


def test_an_engine_may_veto_after_building():
    limit = {"one": 32}
    found = pick(veto=lambda e: f"CL_KERNEL_WORK_GROUP_SIZE is {limit[e.id]}" if e.id in limit else None)
    assert found.entry.id == "spare"
    assert any("CL_KERNEL_WORK_GROUP_SIZE is 32" in note for note in found.notes)
    with pytest.raises(ValueError, match=r"gemv_decode cannot run .* on adreno-750: no"):
        pick(veto=lambda e: "no")


def test_deny_rules():
    bad = Deny({"variant": "rows", "WG": 64}, (">=E031.38", "<E031.46"), "wrong results at M = 1")
    denied = config(ONE, WIDE, FEW, SPARE, deny=(bad,))
    found = pick(denied)
    assert found.entry.id == "spare"
    assert any("denied on this compiler: wrong results at M = 1" in note for note in found.notes)
    assert pick(denied, device=on(compiler="E031.46")).entry.id == "one"
    assert pick(denied, device=on(compiler="DX.17")).entry.id == "one"
    assert pick(denied, device=on(compiler="")).entry.id == "spare"  # it may be a bad one
    everywhere = config(ONE, WIDE, FEW, SPARE, deny=(replace(bad, compiler=()),))
    assert pick(everywhere, device=on(compiler="E031.46")).entry.id == "spare"


@pytest.mark.parametrize(
    ("bound", "compiler", "holds"),
    [
        (">=E031.38", "E031.45.02", True),
        (">=E031.38", "E031.37.99", False),
        ("<E031.45", "E031.45.02", False),
        ("<=E031.45", "E031.45.02", True),
        (">E031.45", "E031.45.02", False),
        (">E031.45", "E031.46", True),
        ("==E031.45", "E031.45.11", True),
        ("==E031.45", "E031.4", False),
        (">=E031.45.2", "E031.45", False),
        (">=E031.38", "DX.99", False),
        ("<r40p0", "r38p1", True),
        (">=LLVM-14", "LLVM-14.0.6", True),
        (">=550", "550.54.14", True),
        (">=550", "0550", True),
        (">=" + "9" * 5000, "9" * 4999, False),
    ],
)
def test_compiler_versions(bound, compiler, holds):
    assert compiler_meets(bound, compiler) is holds


def test_mistakes_become_sentences():
    with pytest.raises(ValueError, match="no comparison with a compiler version; write one like"):
        compiler_meets("E031.38", "E031.38")
    with pytest.raises(ValueError, match="gemv_decode needs M, N, K, not N"):
        pick(job=Workload("gemv_decode", {"N": 1}, DTYPES, "int4/g128"))
    with pytest.raises(ValueError, match=r"cannot run .* \"K is a multiple of the group"):
        select((), workload(k=100), DEVICE, FAMILY)


# ---------------------------------------------------------------- explain, entries, identity


def test_explain_shows_steps_and_worked_out_launches():
    lines = explain([config()], workload(1, 16384), on(driver="0700.1"), FAMILY)
    assert lines[0] == "gemv_decode int4/g128 act=fp16,compute=fp32,acc=fp32 M=1 N=16384 K=2048"
    assert "level stale: tuned on this device, but with another driver or edited since: check it again" in lines
    assert "entry wide: variant image WG=64" in lines
    assert "  launch gemv: global 1048576, local 64, arguments x, image 64×16384 of RGBA uint32 over w, y, M=1, N=16384, K=2048" in lines  # fmt: skip  # noqa: E501
    assert any("tuned: 123.5 µs (95 % between 120 and 125), the default takes 200" in line for line in lines)
    assert any("proven on adreno-750 (native half, subgroups of 64): nmse 1.5e-07, limit 1e-06" in x for x in lines)
    built_in = explain([], workload(3, 33), DEVICE, FAMILY)
    assert "  not measured" in built_in
    assert "  scratch part: 396 bytes" in built_in
    assert "  launch sum: global 64, local chosen by the driver, arguments part, y, M=3, N=33" in built_in
    guess = config(entry("guess", box((1, 16), (1, None)), predicted=True))
    told = explain([guess], workload(), DEVICE, FAMILY, predicted=True)
    assert any("nobody measured it" in line for line in told)
    assert "level exact: predicted for this device, and measured on none" in told
    assert not any("tuned on this device" in line for line in told)


def test_what_an_entry_says_of_its_candidate():
    assert ONE.config == {"variant": "rows", "WG": 64, "SPLIT": 1}
    assert ONE.source_sha256 == source_sha256(ROWS) != source_sha256(IMAGE)
    assert "-DWG=64" in ONE.build_options
    assert "-DGROUP=128" in ONE.build_options
    assert (ONE.needs.work_group, ONE.needs.local_bytes, ONE.layout) == (64, 1024, {"w": "n16k8"})
    assert entry("e", None, job=workload(weights="int8")).needs.multiple_of == {"K": 8}


@pytest.mark.parametrize(
    ("raw", "kind", "expected"),
    [
        (
            {"name": "QUALCOMM Adreno(TM)", "vendor": "QUALCOMM", "version": "OpenCL 3.0 Adreno(TM) 750",
             "driver_version": "OpenCL 3.0 QUALCOMM build: 0676.77 Compiler E031.45.02.13"},
            "gpu", ("qualcomm", "adreno-7xx", "adreno-750", "0676.77", "E031.45.02.13"),
        ),
        (
            {"name": "QUALCOMM Adreno(TM) X1-85 GPU", "driver_version": "build: 1 Compiler DX.17.1"},
            "gpu", ("qualcomm", "adreno-x1", "adreno-x1", "1", "DX.17.1"),
        ),
        (
            {"name": "Mali-G720-Immortalis MC12 r0p0", "vendor": "ARM", "version": "OpenCL 3.0 v1.r44p1-01eac0.8a",
             "driver_version": "3.0"},
            "gpu", ("arm", "mali-5th-gen", "mali-g720", "v1.r44p1-01eac0.8a", "r44p1"),
        ),
        ({"name": "Mali-G715", "version": "OpenCL 3.0", "driver_version": "3.0"}, "gpu",
         ("arm", "mali-valhall", "mali-g715", "3.0", "3.0")),
        ({"name": "Immortalis-G925"}, "gpu", ("arm", "mali-5th-gen", "mali-g925", "", "")),
        ({"name": "Mali-G76"}, "gpu", ("arm", "mali-bifrost", "mali-g76", "", "")),
        ({"name": "Mali-G78"}, "gpu", ("arm", "mali-valhall", "mali-g78", "", "")),
        ({"name": "Mali-T880"}, "gpu", ("arm", "mali-midgard", "mali-t880", "", "")),
        (
            {"name": "pthread-AMD EPYC", "vendor": "AuthenticAMD", "driver_version": "3.0-rc2",
             "platform_name": "Portable Computing Language",
             "platform_version": "OpenCL 3.0 PoCL 3.0-rc2  Linux, LLVM 14.0.6, SLEEF"},
            "cpu", ("pocl", "cpu", "amd-epyc", "3.0-rc2", "LLVM-14.0.6"),
        ),
        (
            {"name": "AMD EPYC", "vendor": "Intel(R) Corporation", "driver_version": "2026.22",
             "platform_name": "Intel(R) OpenCL"},
            "cpu", ("intel", "cpu", "amd-epyc", "2026.22", "2026.22"),
        ),
        (
            {"name": "NVIDIA H200", "vendor": "NVIDIA Corporation", "driver_version": "550.54"},
            "gpu", ("nvidia", "nvidia-gpu", "h200", "550.54", "550.54"),
        ),
    ],
)  # fmt: skip
def test_identity_of_live_devices(raw, kind, expected):
    facts = identify(raw, replace(SHEET, kind=kind))
    assert (facts.vendor, facts.family, facts.model, facts.driver, facts.compiler) == expected
    assert facts.raw["name"] == raw["name"]


def test_a_cpu_with_other_registers_is_another_device():
    raw = {"name": "AMD EPYC", "platform_name": "Intel(R) OpenCL"}
    names = [identify(raw, replace(SHEET, kind="cpu", vector_floats=floats)).model for floats in (8, 16)]
    assert names == ["amd-epyc-256-bit", "amd-epyc-512-bit"]
