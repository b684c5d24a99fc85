"""Model sheets hold the published shapes, and a plan turns them into the workloads of decoding."""

import re

import pytest

import kernels
from kernels.claims import device_sheet
from kernels.models import parse_model
from kernels.plan import CONTEXT, LENGTHS, MATMULS, OVERLAP, Plan, load_model, model_names
from kernels.plan import plan as plan_all
from kernels.sheet import load_sheet, sheet_names
from kernels.space import Space

MODELS = (
    "chatglm2-6b", "clip-vit-b-32", "gemma-2b", "imp-v1.5-3b", "llama2-7b", "llava-1.5-7b", "mobilevlm-3b",
    "qwen1.5-14b", "qwen1.5-4b",
)  # fmt: skip

# hidden, inter, heads, kv_heads, head_dim, layers, vocab as published (Hugging Face configurations)
DECODERS = {
    "gemma-2b": (2048, 16384, 8, 1, 256, 18, 256000),
    "qwen1.5-4b": (2560, 6912, 20, 20, 128, 40, 151936),
    "qwen1.5-14b": (5120, 13696, 40, 40, 128, 40, 152064),
    "chatglm2-6b": (4096, 13696, 32, 2, 128, 28, 65024),
    "llama2-7b": (4096, 11008, 32, 32, 128, 32, 32000),
    "llava-1.5-7b": (4096, 11008, 32, 32, 128, 32, 32000),
    "mobilevlm-3b": (2560, 6912, 32, 32, 80, 32, 32000),
    "imp-v1.5-3b": (2560, 10240, 32, 32, 80, 32, 51200),
}


def plan(models, **asked) -> Plan:
    """What decoding asks of the GEMV, where a test does not say otherwise."""
    return plan_all(models, **{"families": ["gemv_decode"], "m": (1,), **asked})


def weight_megabytes(planned: Plan) -> float:
    """What one token reads of the weights, in 10⁶ bytes."""
    return sum(
        i.count * i.workload.dims["N"] * i.workload.dims["K"] * i.workload.format.bits_per_weight / 8e6 for i in planned
    )


def by_label(planned: Plan) -> dict[str, tuple[int, int, int]]:
    return {i.workload.label: (i.workload.dims["N"], i.workload.dims["K"], i.count) for i in planned}


def test_every_model_has_a_sheet():
    assert model_names() == MODELS


@pytest.mark.parametrize("name", DECODERS)
def test_decoder_shapes(name):
    d = load_model(name).decoder
    assert (d.hidden, d.inter, d.heads, d.kv_heads, d.head_dim, d.layers, d.vocab) == DECODERS[name]


def test_tower_shapes():
    towers = {(name, t.name): t for name in MODELS for t in load_model(name).towers}
    shape = {key: (t.hidden, t.inter, t.heads, t.head_dim, t.layers, t.tokens) for key, t in towers.items()}
    large = (1024, 4096, 16, 64, 24, 577)
    assert shape == {
        ("llava-1.5-7b", "image"): large,
        ("mobilevlm-3b", "image"): large,
        ("imp-v1.5-3b", "image"): (1152, 4304, 16, 72, 27, 729),
        ("clip-vit-b-32", "image"): (768, 3072, 12, 64, 12, 50),
        ("clip-vit-b-32", "text"): (512, 2048, 8, 64, 12, 77),
    }
    assert towers["llava-1.5-7b", "image"].skip_last == 1
    assert load_model("llava-1.5-7b").projector.linears == ((4096, 1024), (4096, 4096))


@pytest.mark.parametrize("name", MODELS)
def test_every_value_is_marked(name):
    sheet = load_model(name)
    assert sheet.provenance
    assert all(p.status in ("checked", "to_check") for p in sheet.provenance.values())
    assert all((sheet.provenance[key].source == "recalled") == (key in sheet.to_check) for key in sheet.provenance)


def test_gemma_2b_decodes_by_five_shapes():
    planned = plan("gemma-2b", formats=["int4/g128"])
    assert by_label(planned) == {
        "gemma-2b gate/up": (16384, 2048, 36),
        "gemma-2b down": (2048, 16384, 18),
        "gemma-2b lm_head": (256000, 2048, 1),
        "gemma-2b q, o": (2048, 2048, 36),
        "gemma-2b kv": (512, 2048, 18),
    }
    assert [i.share for i in planned] == sorted((i.share for i in planned), reverse=True)
    assert {i.workload.key for i in planned} >= {
        "gemv_decode:int4/g128:act=fp16,compute=fp32,acc=fp32:M=1,N=16384,K=2048"
    }


def test_least_bytes_of_a_call():
    (item,) = (i for i in plan("gemma-2b", formats=["int4/g128"]) if i.workload.label.endswith("kv"))
    # 512 × 2048 codes of half a byte, 512 × 16 groups of four bytes, 2048 + 512 halves
    assert item.least_bytes == 524288 + 32768 + 5120
    (int8,) = (i for i in plan("gemma-2b", formats=["int8"], m=[2]) if i.workload.label.endswith("kv"))
    assert int8.least_bytes == 512 * 2048 + 512 * 2 + 2 * 5120


def test_least_bytes_are_what_the_family_says():
    cost = kernels.families()["gemv_decode"].cost
    for item in plan("gemma-2b", formats=["int4/g128", "e0m4/g32", "int8", "fp16"], m=(1, 3)):
        assert item.least_bytes == pytest.approx(cost(item.workload).bytes, rel=1e-3)


# Weights per token of field measurements and published shapes, 4.25 bits a weight, in megabytes
@pytest.mark.parametrize(
    ("name", "megabytes"),
    [("gemma-2b", 1331), ("qwen1.5-4b", 1892), ("chatglm2-6b", 3175), ("llama2-7b", 3510), ("qwen1.5-14b", 7112)],
)
def test_bytes_per_token(name, megabytes):
    assert weight_megabytes(plan(name, formats=["e0m4/g128"])) == pytest.approx(megabytes, rel=0.001)


@pytest.mark.parametrize("name", MODELS)
def test_shares_sum_to_one_and_keys_are_unique(name):
    planned = plan(name, m=(1, 4))
    assert sum(i.share for i in planned) == pytest.approx(1)
    assert len({i.workload.key for i in planned}) == len(planned)


def test_models_weigh_alike_and_share_workloads():
    planned = plan(["llama2-7b", "llava-1.5-7b", "gemma-2b"], formats=["int4/g128"])
    share = dict.fromkeys(("llama2-7b", "gemma-2b"), 0.0)
    for item in planned:
        share["gemma-2b" if "gemma" in item.workload.label else "llama2-7b"] += item.share
    assert share["gemma-2b"] == pytest.approx(1 / 3)
    assert by_label(planned)["llama2-7b lm_head; llava-1.5-7b lm_head"] == (32000, 4096, 2)


def test_a_model_without_a_gate_has_one_first_matrix():
    labels = by_label(plan("imp-v1.5-3b", formats=["int4/g128"]))
    assert labels["imp-v1.5-3b fc1"] == (10240, 2560, 32)
    assert labels["imp-v1.5-3b fc2"] == (2560, 10240, 32)


def test_towers_run_in_fp16_and_only_their_pooled_row_is_a_gemv():
    planned = plan("clip-vit-b-32", compute="int8")
    assert by_label(planned) == {
        "clip-vit-b-32 image projection": (512, 768, 1),
        "clip-vit-b-32 text projection": (512, 512, 1),
    }
    assert {i.workload.weights for i in planned} == {"fp16"}
    assert {i.workload.dtypes.compute for i in planned} == {"fp32"}
    assert any("50 rows" in note for note in planned.notes)


def test_a_whole_model_is_planned_by_every_family():
    planned = plan_all("gemma-2b", formats=["int4/g128"])
    families = {i.workload.family for i in planned}
    assert families == set(kernels.families())
    assert not planned.notes  # each row count has a family, so there is nothing to tell
    rows = {(i.workload.family, i.workload.dims["M"]) for i in planned}
    assert {("gemv_decode", 1), ("gemm_prefill", 128), ("gemm_prefill", 1024)} <= rows
    assert {(family, m) for family in ("rmsnorm", "kv_concat", "flash_attention") for m in (1, 128, 1024)} <= rows


def test_passes_weigh_alike_and_the_overlap_less():
    planned = plan_all("gemma-2b", formats=["int4/g128"])
    share: dict[str, float] = {}
    for item in planned:
        m, length = item.workload.dims["M"], item.workload.dims.get("T")
        name = str(m) if m in (1, 128, 1024) else "overlap"
        if (item.workload.family, m) == ("flash_attention", 1) and length != CONTEXT:
            name = "lengths"
        share[name] = share.get(name, 0) + item.share
    assert share["1"] == pytest.approx(share["128"]) == pytest.approx(share["1024"])
    assert share["overlap"] == pytest.approx(share["lengths"]) == pytest.approx(share["1"] / 4)


def test_attention_of_one_token_is_tuned_at_lengths_that_its_edges_can_lie_between():
    tokens = [i for i in plan_all("gemma-2b", families=["flash_attention"]) if i.workload.dims["M"] == 1]
    assert {i.workload.dims["T"]: i.count for i in tokens} == {CONTEXT: 18, **dict.fromkeys(LENGTHS, 1)}
    assert all(i.workload.dims["S"] == i.workload.dims["T"] for i in tokens)
    same = plan_all("gemma-2b", families=["flash_attention"], m=(1,), context=LENGTHS[0])
    assert sorted(i.workload.dims["T"] for i in same) == sorted(LENGTHS)


def test_gemv_and_gemm_meet_on_the_heaviest_matrix_where_both_are_asked_for():
    both = plan_all("gemma-2b", formats=["int4/g128"])
    overlap = [i.workload for i in both if i.workload.dims["M"] in OVERLAP]
    assert {(w.family, w.dims["M"]) for w in overlap} == {(f, m) for f in MATMULS for m in OVERLAP}
    assert all((w.dims["N"], w.dims["K"], dict(w.options)) == (16384, 2048, {}) for w in overlap)
    assert not any(i.workload.dims["M"] in OVERLAP for i in plan_all("gemma-2b", families=["gemv_decode", "rmsnorm"]))


ODD = """
title = "Odd"
about = "K that no group divides"
[sources]
made = "for this test"
[decoder]
hidden = { value = 256, status = "checked", source = "made" }
inter = { value = 4304, status = "checked", source = "made" }
heads = { value = 2, status = "checked", source = "made" }
kv_heads = { value = 1, status = "checked", source = "made" }
head_dim = { value = 128, status = "checked", source = "made" }
layers = { value = 3, status = "checked", source = "made" }
vocab = { value = 1000, status = "checked", source = "made" }
gated = { value = true, status = "checked", source = "made" }
tied = { value = true, status = "checked", source = "made" }
act = { value = "silu", status = "checked", source = "made" }
norm = { value = "rms", status = "checked", source = "made" }
rotary = { value = 128, status = "checked", source = "made" }
rope = { value = "half", status = "checked", source = "made" }
"""


def test_a_k_that_no_group_divides_is_planned_in_fp16_with_a_note():
    planned = plan(parse_model("odd", ODD))
    down = [i for i in planned if "down" in i.workload.label]
    assert [(i.workload.weights, i.count) for i in down] == [("fp16", 6)]
    assert any("odd down: K = 4304 is not a multiple of the group of int4/g128" in note for note in planned.notes)


def test_many_rows_are_left_to_a_gemm():
    planned = plan("gemma-2b", m=(1, 128, 1024))
    assert {i.workload.dims["M"] for i in planned} == {1}
    assert any("M = 128, 1024 is left to a GEMM" in note for note in planned.notes)
    assert len(plan("gemma-2b", m=(128,))) == 0


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        ({"models": "gemma-3b"}, 'unknown model "gemma-3b"; choose one of chatglm2-6b'),
        ({"models": "gemma-2b", "formats": ["int4"]}, 'unknown weight format "int4"; choose'),
        ({"models": "gemma-2b", "act": "bf16"}, 'unknown activation type "bf16"; choose one of fp16, fp32'),
        ({"models": "gemma-2b", "compute": "int4"}, 'unknown compute type "int4"'),
        (
            {"models": "gemma-2b", "families": ["gemm"]},
            'unknown kernel "gemm"; choose one of flash_attention, gemm_prefill',
        ),
        ({"models": "gemma-2b", "m": [0]}, "at least 1"),
    ],
)
def test_mistakes_become_sentences(ask, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        plan(**ask)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("value = 256,", "value = 2.5,", "odd.toml: decoder.hidden should be an integer, found 2.5"),
        ("value = 256,", "value = 0,", "decoder.hidden should be positive"),
        ("value = 256,", "value = true,", "decoder.hidden should be an integer"),
        ('{ value = 256, status = "checked", source = "made" }', "256", "decoder.hidden should be { value"),
        ('256, status = "checked"', '256, status = "sure"', "decoder.hidden has status 'sure'; it is \"checked\""),
        ('1000, status = "checked", source = "made"', '1000, status = "checked", source = "x"', "names the source 'x'"),
        ("vocab =", "vocabulary =", "decoder.vocabulary is not a key of a model sheet"),
        ('made = "for this test"', 'made = "a"\nidle = "b"', "sources.idle is the source of no value"),
        ("{ value = 2,", "{ value = 3,", None),
        ("kv_heads = { value = 1,", "kv_heads = { value = 4,", "does not divide the 2 heads"),
        ("[decoder]", "[decoder", "odd.toml is not TOML"),
        ('title = "Odd"', "title = 3", "odd.toml: title should be a text"),
        ("[decoder]", "[tower.image]", "tower.image.gated is not a key"),
        ('"silu"', '"relu"', "odd.toml: decoder.act is one of silu, gelu, gelu_tanh, quick_gelu, not 'relu'"),
        (
            "rotary = { value = 128",
            "rotary = { value = 256",
            "decoder.rotary 256 is not an even part of the head's 128",
        ),
    ],
)
def test_a_broken_sheet_says_where(old, new, sentence):
    text = ODD.replace(old, new, 1)
    assert text != ODD
    if sentence is None:
        assert parse_model("odd", text).decoder.heads == 3
        return
    with pytest.raises(ValueError, match=re.escape(sentence)):
        parse_model("odd", text)


@pytest.mark.parametrize("name", MODELS)
def test_every_planned_job_has_a_default_on_every_device_that_is_known(name: str) -> None:
    """What a device's buffers or textures cannot hold is another matter, which the family's own rules tell."""
    jobs = [item.workload for item in plan_all([name])]
    for sheet in (device_sheet(load_sheet(known)) for known in sheet_names()):
        for workload in jobs:
            family = kernels.families()[workload.family]
            why = Space(family, workload, sheet).reject(family.default(workload, sheet))
            assert why in (None, "the packed weights fit one buffer"), (sheet.name, workload.key)
