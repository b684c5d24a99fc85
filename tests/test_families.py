"""The conformance kit: what every family owes, without any of them being named here."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from math import prod

import pytest
from conftest import attached

import kernels
from harness.candidate import Candidate
from harness.devices import DeviceChoice, sheet_from
from harness.legal import Picks, claims
from harness.measure import Meter
from harness.supervisor import Supervisor
from harness.validate import prove
from kernels.cache import CACHES
from kernels.plan import plan
from kernels.source import parameters
from kernels.space import Space
from kernels.spec import (
    Case,
    DeviceSheet,
    DTypes,
    Errors,
    Family,
    ImageView,
    Rule,
    Variant,
    Workload,
    build_options,
    evaluate,
)

FORMATS = ("int4/g128", "e0m4/g32", "int8", "fp16")  # where a family has weights
POLICIES = (
    DTypes("fp16", "fp32", "fp32"),
    DTypes("fp32", "fp32", "fp32"),
    DTypes("fp16", "fp16", "fp16"),
    DTypes("fp16", "int8", "int32"),
)
_PHONE = frozenset({"cl_khr_fp16", "cl_khr_subgroups", "cl_khr_image2d_from_buffer", "cl_khr_integer_dot_product"})
_IMAGES = {"image2d": (16384, 16384), "image_pitch_texels": 64, "image_base_texels": 64}

CPU = DeviceSheet(
    name="a CPU",
    vendor="any",
    kind="cpu",
    max_work_group=4096,
    max_work_item_sizes=(4096, 4096, 4096),
    local_bytes=1 << 18,
    max_alloc_bytes=4 << 30,
    global_bytes=16 << 30,
    compute_units=8,
    cache_bytes=32 << 20,
    subgroup_sizes=(),
    extensions=frozenset(),
    opencl_c=(1, 2),
    image2d=None,
    image_pitch_texels=0,
    image_base_texels=0,
)
NARROW_CPU = replace(CPU, name="a CPU with vectors of eight floats", compute_units=2, vector_floats=8)
NEON = replace(NARROW_CPU, name="a CPU with vectors of four floats", compute_units=8, vector_floats=4)
WIDE = replace(
    CPU,
    name="a GPU with waves of 64",
    kind="gpu",
    max_work_group=1024,
    max_work_item_sizes=(1024, 1024, 1024),
    local_bytes=32 << 10,
    max_alloc_bytes=1 << 30,
    subgroup_sizes=(64, 128),
    extensions=_PHONE,
    opencl_c=(3, 0),
    **_IMAGES,
)
NARROW = replace(WIDE, name="a GPU with warps of 16", subgroup_sizes=(16,), image2d=(65536, 65536))
MINIMAL = replace(
    CPU,
    name="the least device",
    kind="gpu",
    max_work_group=128,
    max_work_item_sizes=(128, 128, 64),
    local_bytes=2 << 10,
    max_alloc_bytes=512 << 20,
    compute_units=1,
    cache_bytes=0,
)
SHEETS = (CPU, NARROW_CPU, NEON, WIDE, NARROW, MINIMAL)

families = pytest.mark.parametrize("family", kernels.families().values(), ids=lambda family: family.name)
variants = pytest.mark.parametrize(
    ("family", "variant"),
    [
        pytest.param(family, variant, id=f"{family.name}-{variant.name}")
        for family in kernels.families().values()
        for variant in family.variants
    ],
)


@cache
def imagined(name: str) -> tuple[Workload, ...]:
    """What models ask of a family: the heaviest job and the lightest, in every format and policy, for several M."""
    asked = [item.workload for item in plan(["gemma-2b", "imp-v1.5-3b"], families=[name])]
    found = {
        replace(workload, dtypes=replace(policy, cache=workload.dtypes.cache and cache), weights=weights).with_dims(
            **rows
        ): None
        for workload in (asked[0], asked[-1])
        for policy in POLICIES
        for weights, cache in (
            zip(FORMATS, itertools.cycle(CACHES), strict=False) if workload.weights else ((None, c) for c in CACHES)
        )
        for rows in ({"M": m} if "M" in workload.dims else {} for m in (1, 5, 16))
    }
    return tuple(found)


@cache
def planned(name: str) -> tuple[Workload, ...]:
    """Of these, what the family's own rules allow: no plan asks for an int8 product with fp16 weights."""
    rules = kernels.families()[name].workload_rules
    return tuple(w for w in imagined(name) if all(rule.holds({}, w, WIDE) for rule in rules))


def test_covers_have_every_family_and_option():
    for family in kernels.families().values():
        covered = family.cover()
        assert covered, family.name
        for workload in covered:
            refused = [r.why for r in family.workload_rules if not r.holds({}, workload, WIDE)]
            assert not refused, (workload.key, refused)


def odd(name: str) -> Iterator[Workload]:
    """Planned workloads with each dim in turn tiny, huge and indivisible."""
    for workload in planned(name)[:: max(1, len(planned(name)) // 12)]:
        for dim, size in itertools.product(workload.dims, (1, 2, 8, 96, 1001, 1 << 20)):
            yield workload.with_dims(**{dim: size})


def legal(family: Family, workload: Workload, sheet: DeviceSheet, variant: Variant, most: int) -> list[dict]:
    """Up to `most` legal configurations of one variant, spread over them all."""
    found = list(Space(replace(family, variants=(variant,)), workload, sheet).configs())
    return random.Random(0).sample(found, min(most, len(found)))


# ---------------------------------------------------------------- as data


@families
def test_the_default_is_legal_wherever_the_family_runs(family: Family):
    served = 0
    for workload, sheet in itertools.product(planned(family.name), SHEETS):
        if all(rule.holds({}, workload, sheet) for rule in family.workload_rules):
            assert Space(family, workload, sheet).reject(family.default(workload, sheet)) is None, (
                workload,
                sheet.name,
            )
            served += 1
    assert served


@families
def test_every_planned_workload_has_a_space_worth_searching(family: Family):
    for workload in planned(family.name)[::7]:
        for sheet in SHEETS:
            if all(rule.holds({}, workload, sheet) for rule in family.workload_rules):
                assert 20 <= Space(family, workload, sheet).size <= 25_000, (workload.key, sheet.name)


@variants
def test_parameters_are_the_sources_ifndefs(family: Family, variant: Variant):
    policy = set(family.defines(planned(family.name)[0]))
    assert parameters(variant.source) - policy == set(variant.params)
    assert variant.params.keys() == variant.default.keys()
    assert all(variant.default[name] in values for name, values in variant.params.items())


@variants
def test_every_rule_is_true_and_false_somewhere(family: Family, variant: Variant):
    """A rule that never rejects is noise, one that always does hides a variant."""
    rng = random.Random(0)
    workloads = [*imagined(family.name), *odd(family.name), *family.cover()]
    for rule in (*family.workload_rules, *variant.workload_rules, *variant.rules):
        assert verdicts(rule, variant, workloads, rng) == {True, False}, rule.why


def verdicts(rule: Rule, variant: Variant, workloads: list[Workload], rng: random.Random) -> set[bool]:
    seen: set[bool] = set()
    for _ in range(20_000):
        config = {"variant": variant.name, **{name: rng.choice(values) for name, values in variant.params.items()}}
        seen.add(bool(rule.holds(config, rng.choice(workloads), rng.choice(SHEETS))))
        if len(seen) == 2:
            break
    return seen


@variants
def test_no_two_configurations_are_one_program(family: Family, variant: Variant):
    seen: dict[tuple, dict] = {}
    for workload, sheet in itertools.product(planned(family.name)[:6], SHEETS):
        for config in legal(family, workload, sheet, variant, 400):
            key = (workload, build_options(family, config, workload), repr(variant.schedule(config, workload)))
            assert seen.setdefault(key, config) == config


@cache
def small_case(family: str, workload: Workload) -> Case:
    return kernels.families()[family].case(workload, 0)


def written(family: Family, workload: Workload, layouts: dict[str, str]) -> set[str]:
    """Outputs and in-place buffers that a job of this kind has, whatever its sizes."""
    case = small_case(family.name, family.awkward(workload)[0])
    return set(case.outputs) | set(family.abi.names("inout")) & set(case.pack(layouts))


@variants
def test_launches_are_what_an_engine_can_run(family: Family, variant: Variant):
    ran = 0
    for workload, sheet in itertools.product(planned(family.name)[::5], SHEETS):
        for config in legal(family, workload, sheet, variant, 20):
            ran += 1
            schedule = variant.schedule(config, workload)
            known = {arg.name for arg in family.abi.args} | {part.name for part in schedule.scratch}
            bound = set()
            for launch in schedule.launches:
                sizes = [evaluate(size, workload.dims) for size in launch.grid]
                assert min(sizes) > 0
                names = {arg.of if isinstance(arg, ImageView) else arg for arg in launch.args}
                assert names <= known
                bound |= names
                assert f"{launch.entry}(" in variant.source
                if launch.local is None:
                    continue
                assert all(size % local == 0 for size, local in zip(sizes, launch.local, strict=True))
                assert prod(launch.local) <= sheet.max_work_group
                limits = zip(launch.local, sheet.max_work_item_sizes, strict=False)
                assert all(local <= limit for local, limit in limits)
            assert written(family, workload, dict(variant.layouts(config, workload))) <= bound
            assert all(evaluate(part.bytes, workload.dims) > 0 and part.name in bound for part in schedule.scratch)
    assert ran


@variants
def test_traffic_is_at_least_what_the_job_needs(family: Family, variant: Variant):
    for workload, sheet in itertools.product(planned(family.name)[::5], SHEETS):
        cost = family.cost(workload)
        assert 0 <= cost.written <= cost.bytes
        assert 0 <= cost.cold <= cost.bytes - cost.written
        for config in legal(family, workload, sheet, variant, 10):
            traffic = variant.traffic(config, workload, sheet)
            assert traffic.read_bytes + traffic.write_bytes >= 0.99 * cost.bytes
            assert traffic.flops >= 0.99 * cost.flops
            assert traffic.local_bytes <= sheet.local_bytes
            assert traffic.work_items > 0


@families
def test_awkward_shapes_keep_the_build_and_the_contract(family: Family):
    for workload in planned(family.name):
        for other in family.awkward(workload):
            assert (other.weights, other.dtypes) == (workload.weights, workload.dtypes)
            for rule in family.workload_rules:
                holds = rule.holds({}, workload, CPU)
                assert not holds or rule.holds({}, other, CPU), (rule.why, other.key)


# ---------------------------------------------------------------- on the devices here


@variants
def test_variants_are_right_on_awkward_shapes(
    family: Family, variant: Variant, device: DeviceChoice, supervisor: Supervisor
):
    """Outputs are poisoned first, so that one which no launch covers is seen. `harness validate` runs all of them."""
    covered = list(family.cover())
    random.Random(f"{family.name} {variant.name}").shuffle(covered)
    picks = Picks(family, variant, claims(device.sheet))
    meter = Meter(supervisor, device.sheet)
    ran = 0
    for workload in covered:
        pick = picks.other(workload) if ran else picks.any(workload)
        if pick is None or ran == 2:
            continue
        candidate = Candidate(family, workload, pick.config)
        found = prove(meter, candidate, pick.sheet)
        assert isinstance(found, Errors), (str(candidate), workload.key, found.log)
        ran += 1
    if not ran:
        pytest.skip(f"{device.slug} cannot run {variant.name}")


@variants
def test_every_variant_is_run_by_one_of_the_two_runtimes(family: Family, variant: Variant):
    """Each device may pass a variant over; that all of them do would leave it unproven without a word."""
    sheets = {live.driver: sheet_from(live.description) for live in attached().devices}
    if not {"pocl", "intel"} <= set(sheets):
        pytest.skip("needs both runtimes: pip install 'kiln-workbench[cpu,intel]'")
    picks = [Picks(family, variant, claims(sheet)) for sheet in sheets.values()]
    assert any(here.any(workload) for here in picks for workload in family.cover())
