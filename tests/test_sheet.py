"""kernels/sheet*.py: every sheet is whole and says where it knows things from; a wrong one says where it is wrong."""

import re

import pytest

import kernels
from kernels.sheet import KINDS, Strings, identity, load_sheet, parse_sheet, sheet_names, sheet_of

GOOD = """
[identity]
vendor = "Nobody"
model = "Paper 1"
type = "gpu"
match = ['Paper 1\\b']

[sources]
dump = "clinfo of a Paper 1"

[limits]
max_work_group = { value = 512, kind = "measured", source = "dump" }
local_bytes = { value = 32768, kind = "recalled", source = ["dump"] }

[[trap]]
what = "subgroups crash"
compiler = ["<P1.2"]
guard = "they are denied"
kind = "published"
source = "dump"
deny = [{ kernel = "rmsnorm", params = { variant = "subgroup" } }]
"""


def test_a_sheet_is_read() -> None:
    sheet = parse_sheet("paper1", GOOD)
    assert sheet.name == "paper1"
    assert sheet.get("limits.max_work_group") == 512
    assert sheet.values["limits.local_bytes"].kind == "recalled"
    assert sheet.values["limits.local_bytes"].sources == ("clinfo of a Paper 1",)
    assert sheet.get("limits.image2d") is None
    assert sheet.traps[0].deny[0].params == (("variant", "subgroup"),)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('[identity]', "[identity", "paper1.toml is not TOML"),
        ('vendor = "Nobody"\n', "", "identity.vendor is missing"),
        ('type = "gpu"', 'type = "npu"', "identity.type is \"gpu\" or \"cpu\", not 'npu'"),
        ("'Paper 1\\b'", "'Paper ('", "identity.match is no regular expression"),
        ("value = 512", "value = 0", "limits.max_work_group should be a positive integer, found 0"),
        ("value = 512", "value = true", "limits.max_work_group should be a positive integer, found True"),
        ("value = 512", 'value = "512"', "found '512'"),
        ("max_work_group =", "max_workgroup =", "limits.max_workgroup is not a key of a device sheet; it has"),
        ("[limits]", "[limit]", "limit is not a key of a device sheet"),
        ('kind = "measured"', 'kind = "guessed"', "has kind 'guessed'; it is one of measured, published"),
        ('kind = "measured", ', "", "limits.max_work_group should be { value = …, kind = …, source = … }"),
        ('source = ["dump"]', 'source = ["dumb"]', "names the source 'dumb', which [sources] does not list"),
        ('dump = "', 'more = "unused"\ndump = "', "sources.more is the source of no value; remove it"),
        ('"<P1.2"', '"P1.2"', "trap 1.compiler is wrong: \"P1.2\" is no comparison"),
        ('what = "subgroups crash"\n', "", "trap 1 needs guard, kind, source, what"),
        ('params = { variant = "subgroup" }', "params = {}", "trap 1.deny should be { kernel = …, params = { … } }"),
        ('variant = "subgroup"', "variant = 0.5", "trap 1.deny has variant, which is neither an integer nor a text"),
        (
            "[limits]\n",
            '[limits]\nkernel_work_group = { value = 1024, kind = "measured", source = "dump" }\n',
            "limits.kernel_work_group is 1024, more than limits.max_work_group, 512",
        ),
    ],
)  # fmt: skip
def test_a_wrong_sheet_says_where(old: str, new: str, said: str) -> None:
    assert old in GOOD
    with pytest.raises(ValueError, match=re.escape(said)) as wrong:
        parse_sheet("paper1", GOOD.replace(old, new, 1))
    assert str(wrong.value).startswith("paper1.toml")
    assert "\n" not in str(wrong.value).removeprefix("paper1.toml is not TOML")


def test_lists_and_words_that_exclude_each_other() -> None:
    both = "[language]\nextensions = {0}\nwithout = {0}\n".replace(
        "{0}", '{ value = ["a"], kind = "measured", source = "dump" }'
    )
    with pytest.raises(ValueError, match=r"language\.without has a, which language\.extensions has too"):
        parse_sheet("paper1", GOOD + both)
    lanes = '[execution]\nwave = { value = 8, kind = "inferred", source = "dump" }\n'
    lanes += 'subgroup_sizes = { value = [16], kind = "inferred", source = "dump" }\n'
    with pytest.raises(ValueError, match=r"execution\.wave is 8, which is none of the subgroup sizes \(16,\)"):
        parse_sheet("paper1", GOOD + lanes)


@pytest.mark.parametrize("name", sheet_names())
def test_every_sheet_is_whole(name: str) -> None:
    sheet = load_sheet(name)
    assert sheet.name == name
    assert sheet.get("limits.max_work_group")
    assert sheet.get("language.opencl_c")
    for value in sheet.values.values():
        assert value.kind in KINDS
        assert all(value.sources)
    families = kernels.families()
    for trap in sheet.traps:
        for rule in trap.deny:  # a rule about nothing would deny nothing, and nobody would notice
            family, params = families[rule.family], dict(rule.params)
            variants = [family.variant(params.pop("variant"))] if "variant" in params else family.variants
            for parameter, wrong in params.items():
                assert any(wrong in variant.params.get(parameter, ()) for variant in variants), rule


def test_the_sheets_there_are() -> None:
    wanted = {f"adreno{n}" for n in (640, 730, 740, 750, 830)} | {f"mali-g{n}" for n in (76, 710, 715, 720, 925)}
    assert set(sheet_names()) == wanted | {"cpu-pocl", "cpu-intel", "nvidia-h200"}


def test_what_is_recalled_stays_marked() -> None:
    """Nobody here has looked these up: a sheet that calls them published would be believed."""
    recalled = {
        (name, key)
        for name in sheet_names()
        for key, value in load_sheet(name).values.items()
        if value.kind == "recalled"
    }
    assert {(f"mali-g{n}", "peaks.read_gb_per_s") for n in (710, 715, 720, 925)} <= recalled
    assert {(f"mali-g{n}", "registers.half") for n in (710, 715, 720, 925)} <= recalled
    assert {("adreno640", "peaks.read_gb_per_s"), ("adreno730", "peaks.fp32_gflops")} <= recalled


@pytest.mark.parametrize(
    ("strings", "name"),
    [
        (Strings("QUALCOMM Adreno(TM)", "OpenCL 3.0 Adreno(TM) 750"), "adreno750"),
        (Strings("QUALCOMM Adreno(TM)", "OpenCL 3.0", "OpenCL C 3.0 Adreno(TM) 750"), "adreno750"),
        (Strings("QUALCOMM Adreno(TM) 830", "OpenCL 3.0"), "adreno830"),
        (Strings("Mali-G715-Immortalis MC11 r1p2", "OpenCL 3.0 v1.r38p1"), "mali-g715"),
        (Strings("Mali-G76", "OpenCL 2.1 v1.r16p0"), "mali-g76"),
        (Strings("Mali-G720-Immortalis MC12 r0p0", "OpenCL 3.0"), "mali-g720"),
        (Strings("QUALCOMM Adreno(TM)", "OpenCL 3.0 Adreno(TM) 7500"), None),
        (Strings("Mali-G7", "OpenCL 2.1"), None),
        (Strings("NVIDIA H200 NVL", type="gpu"), "nvidia-h200"),
        (Strings("NVIDIA H2000", type="gpu"), None),
        (Strings("pthread-AMD EPYC", platform="Portable Computing Language", type="cpu"), "cpu-pocl"),
        (Strings("NVIDIA H200", platform="Portable Computing Language", type="gpu"), "nvidia-h200"),
        (Strings("Intel(R) UHD Graphics", platform="Intel(R) OpenCL", type="gpu"), None),
        (Strings("EPYC", platform="Intel(R) OpenCL Graphics", type="cpu"), None),
        (Strings("EPYC", platform="Oclgrind", type="cpu"), None),
    ],
)
def test_live_strings_find_their_sheet(strings: Strings, name: str | None) -> None:
    found = sheet_of(strings)
    assert (found.name if found else None) == name


def test_an_unknown_sheet() -> None:
    with pytest.raises(KeyError):
        identity("adreno1")
