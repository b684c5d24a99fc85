"""harness/validate.py, agenda.py and legal.py: what is run, what is refused or unsupported and why, what fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
import toy_family as toy
from test_families import CPU, NARROW, WIDE, families

import kernels
from harness import cli, emulation, validate, verbs
from harness.agenda import plan
from harness.devices import DeviceChoice
from harness.legal import Picks, claims, covering
from harness.validate import Failure, Report, Row, features
from kernels.linear import POLICIES
from kernels.space import Space
from kernels.spec import Family, Variant, Verdict, Workload

FINE = toy.FINE


def toy_variant(name: str, bug: int) -> Variant:
    return replace(toy.PLAIN, name=name, params={"WG": (1, 16, 64), "BUG": (bug,)}, default={"WG": 16, "BUG": bug})


def toy_family(**bugs: int) -> Family:
    """A family whose variants have these bugs."""
    variants = tuple(toy_variant(name, bug) for name, bug in bugs.items())
    return replace(toy.FAMILY, variants=variants, cover=lambda: (toy.workload(40), toy.workload(100)))


# ---------------------------------------------------------------- refusals


def requests(family: Family) -> Iterator[Workload]:
    """What a family is asked for in its cover, with each dim in turn strange, and with every policy."""
    for workload in family.cover():
        yield workload
        for dim in workload.dims:
            for size in (1, 7, 17, 33, 1001, 1 << 12, 1 << 20, 1 << 30):
                yield workload.with_dims(**{dim: size})
        for policy in POLICIES:
            yield replace(workload, dtypes=replace(policy, cache=workload.dtypes.cache))


@families
def test_a_workload_outside_the_contract_is_refused_with_the_rules_own_words(family: Family):
    """Before anything is built: the space is empty, and whoever asks for a configuration hears the rule."""
    refused: dict[str, Workload] = {}
    for workload in requests(family):
        broken = [rule.why for rule in family.workload_rules if not rule.holds({}, workload, WIDE)]
        if broken:
            refused.setdefault(broken[0], workload)
    assert refused, f"{family.name} refuses nothing"
    for why, workload in refused.items():
        space = Space(replace(family, variants=family.variants[:1]), workload, WIDE)
        assert next(space.configs(), None) is None, why
        variant = family.variants[0]
        if all(rule.holds({"variant": variant.name}, workload, WIDE) for rule in variant.workload_rules):
            assert space.reject(variant.config()) == why


# ---------------------------------------------------------------- what is run


@families
def test_every_value_of_every_parameter_is_met_where_it_is_legal(family: Family):
    sheet = emulation.phone(CPU)
    for variant in family.variants:
        picks = plan([family], sheet).picks[family.name, variant.name]
        met = {(name, value) for pick in picks for name, value in pick.config.items()}
        for name, values in variant.params.items():
            for value in values:
                only = replace(family, variants=(replace(variant, params={**variant.params, name: (value,)}),))
                legal = any(
                    next(Space(only, workload, claimed).configs(), None)
                    for workload in family.cover()
                    for claimed in claims(sheet)
                )
                assert not legal or (name, value) in met, (variant.name, name, value)


@families
def test_plans_are_legal_and_the_same_every_time(family: Family):
    assert plan([family], NARROW) == plan([family], NARROW)
    for sheet in (CPU, WIDE, NARROW):
        planned = plan([family], sheet)
        for (_, name), picks in planned.picks.items():
            only = replace(family, variants=(family.variant(name),))
            for pick in picks:
                assert Space(only, pick.workload, pick.sheet).reject(pick.config) is None


@families
def test_quick_has_every_format_policy_and_option(family: Family):
    sheet = emulation.phone(CPU)
    quick, whole = plan([family], sheet, quick=True), plan([family], sheet)
    for key, picks in whole.picks.items():
        traits = [
            {(p.workload.weights, None) for p in some}
            | {(name, value) for p in some for name, value in vars(p.workload.dtypes).items()}
            | {item for p in some for item in p.workload.options.items()}
            for some in (quick.picks[key], picks)
        ]
        assert traits[0] == traits[1]
        assert len(quick.picks[key]) < len(picks)


def test_a_device_that_is_no_gpu_is_also_taken_for_one():
    assert [sheet.kind for sheet in claims(CPU)] == ["cpu", "gpu"]
    assert claims(CPU)[1].max_work_group == 1024
    assert claims(WIDE) == (WIDE,)


def test_configurations_that_do_not_fit_are_passed_over():
    family = toy_family(plain=FINE)
    picks = Picks(family, family.variants[0], (CPU,), lambda workload, config: config["WG"] == 64)
    assert picks.default(toy.workload(40)) is None
    pick = picks.any(toy.workload(40))
    assert pick is not None
    assert pick.config["WG"] == 64


def test_a_cover_is_thinned_to_one_of_each_kind_the_cheapest():
    found = covering(toy_family(plain=FINE), lambda workload: True)
    assert [workload.dims["N"] for workload in found] == [40]
    assert covering(toy_family(plain=FINE), lambda workload: False) == []


def test_what_a_device_lacks_is_named():
    lacks = [
        why
        for family in kernels.families().values()
        for whys in plan([family], CPU).unsupported.values()
        for why in whys
    ]
    assert set(lacks) >= {
        "rejected because not: the device has subgroups",
        "rejected because not: the device has cl_khr_image2d_from_buffer",
    }
    for family in kernels.families().values():
        assert not any(plan([family], emulation.phone(CPU)).unsupported.values())


# ---------------------------------------------------------------- running it


def test_right_and_wrong_variants_are_told_apart(device: DeviceChoice):
    family = toy_family(right=FINE, wrong=toy.WRONG_VALUE, unwritten=toy.UNWRITTEN, broken=toy.NO_BUILD)
    heard: list[tuple[int, int]] = []
    report = validate.validate(device, [family], jobs=2, tell=lambda done, of: heard.append((done, of)))
    right, wrong, unwritten, broken = report.rows
    assert (right.failures, right.workloads, right.of) == ((), 2, 2)
    assert right.shapes == 6  # 1, 33 and its own size of each
    assert right.worst is not None
    assert right.worst < 1
    assert {failure.verdict for failure in wrong.failures} == {Verdict.WRONG_RESULT}
    assert "is expected" in wrong.failures[0].log
    assert "never written" in unwritten.failures[0].log
    assert {failure.verdict for failure in broken.failures} == {Verdict.BUILD_FAILED}
    assert report.failures == sum(len(row.failures) for row in (wrong, unwritten, broken))
    assert not report.suspect
    assert heard[-1] == (report.candidates, report.candidates)
    words = validate.text(report)
    assert f"failures {report.failures}" in words
    assert "failed: toy/wrong WG=" in words
    json.dumps(report.to_json(), allow_nan=False)


def test_where_everything_fails_the_device_is_suspect(device: DeviceChoice):
    report = validate.validate(device, [toy_family(wrong=toy.WRONG_VALUE)], jobs=1)
    assert report.suspect
    assert "the reference or the device is suspect" in validate.text(report)


# ---------------------------------------------------------------- as people see it


def test_halves_subgroups_and_images_are_at_the_head_of_the_report():
    assert features(CPU) == {
        "half arithmetic": "emulated in float (no cl_khr_fp16)",
        "subgroups": "none",
        "images over buffers": "none",
        "integer dot product": "none",
    }
    assert features(WIDE) == {
        "half arithmetic": "native",
        "subgroups": "of 64, 128",
        "images over buffers": "pitch of 64 texels",
        "integer dot product": "native",
    }


ROW = Row("scale", "plain", 3, 2, 2, ("int4/g32", "int4/g64", "int8"), 6, 0.25, (), {})
LACKING = Row("scale", "wave", 0, 0, 2, (), 0, None, (), {"rejected because not: the device has subgroups": 2})


def test_a_report_says_what_ran_and_what_did_not():
    words = validate.text(Report("cpu-pocl", "a CPU", {"subgroups": "none"}, (ROW, LACKING)))
    assert "int4/g32/g64, int8" in words
    assert "unsupported: scale/wave: rejected because not: the device has subgroups\n" in words
    assert words.endswith("candidates 3, failures 0")


@pytest.mark.parametrize(
    ("rows", "code", "sentence"),
    [
        ((ROW,), 0, ""),
        ((replace(ROW, failures=(Failure("c", "w", Verdict.CRASHED, "gone"),)),), 1, "1 of 3 candidates failed"),
        ((LACKING,), 1, "nothing was checked"),
    ],
)
def test_the_exit_code_is_the_outcome(rows, code, sentence, monkeypatch, capsys):
    monkeypatch.setattr(verbs.validate, "resolve", lambda name: None)
    monkeypatch.setattr(validate, "validate", lambda *args, **more: Report("here", "a CPU", {}, rows))
    assert cli.main(["validate", "--device", "cpu"]) == code
    told = capsys.readouterr()
    assert sentence in told.err
    assert "candidates" in told.out
    assert cli.main(["validate", "--json"]) == code
    assert json.loads(capsys.readouterr().out)["device"] == "here"


def test_an_unknown_kernel_is_wrong_usage(capsys):
    for verb in ("validate", "sanitize"):
        assert cli.main([verb, "--kernels", "nonsense"]) == 2
        assert 'unknown kernel "nonsense"; choose from' in capsys.readouterr().err
