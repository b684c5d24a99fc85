"""Trees of rules and defaults say what the Python functions say, for every family, at any size and on any device."""

import operator
import random
from dataclasses import replace

import pytest
from tuned_samples import SHEET

import kernels
from kernels.spec import DTypes, Rule, Workload
from kernels.traced import leaves, trace

COMPARE = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
COMPUTE = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv, "%": operator.mod,
    "/": operator.truediv,
}  # fmt: skip
FAMILIES = kernels.families()


def number(term, dims, sheet):
    if isinstance(term, list):
        return COMPUTE[term[0]](number(term[1], dims, sheet), number(term[2], dims, sheet))
    if not isinstance(term, str):
        return term
    if term in dims:
        return dims[term]
    name, _, index = term.partition("[")
    value = getattr(sheet, name)
    return value if not index else 0 if value is None else value[int(index[0])]


def holds(condition, dims, sheet):
    op, *rest = condition
    if op == "kind":
        return sheet.kind == rest[0]
    if op == "has":
        return sheet.has(rest[0])
    if op == "opencl_c":
        return sheet.opencl_c >= tuple(rest)
    if op == "subgroup":
        return rest[0] in sheet.subgroup_sizes
    if op == "subgroups":
        return bool(sheet.subgroup_sizes)
    return COMPARE[op](number(rest[0], dims, sheet), number(rest[1], dims, sheet))


def follow(tree, dims, sheet):
    at = 0
    while isinstance(tree[at], list):
        condition, yes, no = tree[at]
        end = yes if holds(condition, dims, sheet) else no
        if isinstance(end, bool) or not isinstance(end, int):
            return end
        assert end > at, "nodes lead onwards, so that no tree is a loop"
        at = end
    return tree[at]


def sheets(rng):
    return replace(
        SHEET,
        kind=rng.choice(["gpu", "cpu", "other"]),
        max_work_group=rng.choice([1, 64, 256, 1024]),
        max_work_item_sizes=rng.choice([(64, 64, 64), (1024, 1024, 64)]),
        local_bytes=rng.choice([0, 1024, 16384, 65536]),
        max_alloc_bytes=1 << rng.randint(8, 34),
        compute_units=rng.choice([1, 2, 6, 132]),
        image2d=rng.choice([None, (2048, 2048), (16384, 16384)]),
        image_pitch_texels=rng.choice([0, 1, 64]),
        subgroup_sizes=rng.choice([(), (16,), (64, 128), (1, 2, 4, 8, 16, 32)]),
        extensions=frozenset(
            rng.sample(["cl_khr_fp16", "cl_khr_image2d_from_buffer", "cl_khr_integer_dot_product"], 2)
        ),
        opencl_c=rng.choice([(1, 2), (2, 0), (3, 0)]),
        vector_floats=rng.choice([0, 4, 8, 16]),
    )


def tried(rng, workload, free):
    size = lambda: rng.choice([1, 2, 8, 16, 17, 128, 4096, int(2 ** rng.uniform(0, 18))])  # noqa: E731
    return workload.with_dims(**{dim: size() for dim in free})


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_rule_and_default_of_a_family(name):
    family, rng = FAMILIES[name], random.Random(name)
    free = tuple(dim for dim in family.dims if dim not in family.fixed)
    checked = 0
    for workload in family.cover()[::3]:
        tree = trace(lambda w, s: repr(family.default(w, s)), workload, free)
        for _ in range(20):
            job, sheet = tried(rng, workload, free), sheets(rng)
            assert follow(tree, job.dims, sheet) == repr(family.default(job, sheet)), (job.key, sheet)
        for variant in family.variants:
            config = variant.config(**{key: rng.choice(values) for key, values in variant.params.items()})
            for rule in (*family.workload_rules, *variant.workload_rules, *variant.rules):
                tree = trace(lambda w, s, rule=rule: bool(rule.holds(config, w, s)), workload, free)  # noqa: B023
                for _ in range(4):
                    job, sheet = tried(rng, workload, free), sheets(rng)
                    assert follow(tree, job.dims, sheet) == bool(rule.holds(config, job, sheet)), (rule.why, job.key)
                    checked += 1
    assert checked > 200


def test_trees_are_small_and_impossible_paths_are_left_out():
    workload = Workload("rows", {"M": 1, "N": 1}, DTypes("fp16", "fp32", "fp32"))

    def function(w, s):
        m = w.dims["M"]
        if 2 * m < 5:
            return "few" if m <= 2 else "impossible"
        return "some" if (m - 1) // 4 <= 1 else "impossible" if m < 3 else "many"

    tree = trace(function, workload, ("M", "N"))
    assert tree == [[["<", "M", 3], "few", 1], [["<", "M", 9], "some", "many"]]
    assert set(leaves(tree)) == {"few", "some", "many"}
    assert trace(lambda w, s: True, workload, ("M", "N")) == [True]
    assert trace(lambda w, s: s.max_work_group >= 0 and w.dims["M"] >= 1, workload, ("M",)) == [True]


def test_what_symbols_cannot_do_is_an_error():
    workload = Workload("rows", {"M": 1}, DTypes("fp16", "fp32", "fp32"))
    for rule in (
        Rule("a length", (), lambda c, w, s: len(range(w.dims["M"])) > 1),
        Rule("an unknown field", (), lambda c, w, s: s.name == "x"),
    ):
        with pytest.raises(TypeError):
            trace(lambda w, s, rule=rule: bool(rule.holds({}, w, s)), workload, ("M",))
