"""kv_concat: RoPE by hand, its cases and tolerances, and its kernels on the devices here beyond the conformance kit."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

import kernels
from harness.binding import POISON, Guarded
from harness.candidate import Candidate
from harness.check import check, judge
from harness.devices import DeviceChoice
from harness.measure import Meter
from harness.supervisor import Supervisor
from kernels.cache import (
    CACHES,
    DEFAULT_LAYOUTS,
    HEAD_DIMS,
    CacheLayout,
    at_positions,
    pack_tensor,
    quantise_rows,
    workload_kind,
)
from kernels.kv_concat.codes import CODES_SUBGROUP
from kernels.plan import plan
from kernels.space import Space
from kernels.spec import DeviceSheet, DTypes, Errors, Measurement, Rule, Stored, Workload, build_options
from reference.rope import angles, rope, table

FAMILY = kernels.families()["kv_concat"]
LLAMA = {"rope": "half", "rotary": 64, "q": True}


def job(cache: str = "fp16", act: str = "fp16", options: dict | None = None, **dims: int) -> Workload:
    sizes = {"M": 5, "T": 19, "G": 2, "H": 4, "D": 64, "S": 43, **dims}
    return Workload("kv_concat", sizes, DTypes(act, "fp32", "fp32", cache), options=options or {})  # type: ignore[arg-type]


# ---------------------------------------------------------------- RoPE by hand


def test_position_0_is_not_turned_and_a_quarter_turn_swaps_a_pair():
    x = np.array([[[1.0, 2, 3, 4, 5]]])
    assert np.array_equal(rope(x, angles([0], 4), "half"), x)
    quarter = np.full((1, 2), np.pi / 2)
    assert np.allclose(rope(x, quarter, "half"), [[[-3, -4, 1, 2, 5]]])
    assert np.allclose(rope(x, quarter, "interleaved"), [[[-2, 1, -4, 3, 5]]])


def test_angles_by_hand():
    assert np.allclose(angles([0, 3], 4), [[0, 0], [3, 0.03]])  # 10000^(-2/4) is 1/100
    assert table(4, 4).shape == (4, 2, 2)
    assert np.allclose(table(4, 4)[3], [[np.cos(3), np.sin(3)], [np.cos(0.03), np.sin(0.03)]])


def test_what_attention_sees_depends_on_the_distance_alone():
    """q·k of rows turned to two positions is that of any other two as far apart."""
    q, k = np.random.default_rng(0).standard_normal((2, 1, 1, 64))
    for kind in ("half", "interleaved"):
        near, far = (
            np.vdot(rope(q, angles([at + 7], 32), kind), rope(k, angles([at], 32), kind)) for at in (0, 100_000)
        )
        assert near == pytest.approx(far, abs=1e-9)


def test_a_wrong_rope_is_refused_in_words():
    with pytest.raises(ValueError, match="choose half or interleaved"):
        rope(np.zeros((1, 1, 4)), np.zeros((1, 2)), "neox")
    with pytest.raises(ValueError, match="3 pairs do not fit the 4 dims"):
        rope(np.zeros((1, 1, 4)), np.zeros((1, 3)), "half")
    with pytest.raises(ValueError, match="odd"):
        angles([0], 3)


# ---------------------------------------------------------------- cases

LAYOUTS = {"k": "gpd16", "v": "sgd"}


def written(workload: Workload) -> dict[str, np.ndarray]:
    """What a right kernel leaves in the in-place buffers, made by NumPy."""
    case = FAMILY.case(workload, 3)
    packed = {name: array.copy() for name, array in case.pack(LAYOUTS).items()}
    positions = packed["positions"][(packed["positions"] >= 0) & (packed["positions"] < workload.dims["S"])]
    for name in ("k", "v"):
        layout = CacheLayout(LAYOUTS[name])
        rows = quantise_rows(case.expected[name], workload_kind(workload))
        for part, array in pack_tensor(name, rows, CacheLayout("sgd")).items():
            heads_first = layout.panel and packed[part].ndim < 4
            packed[part][at_positions(packed[part], layout, positions)] = (
                np.swapaxes(array, 0, 1) if heads_first else array
            )
    if "q" in packed:
        packed["q"] = case.expected["q"].astype(packed["q"].dtype)
    return {name: packed[name] for name in ("q", "k", "v", "ks", "vs") if name in packed}


def verdict(workload: Workload, raw: dict[str, np.ndarray]) -> Errors | Measurement:
    """What the harness says of these buffers."""
    parts = {
        name: Guarded(name, name, array.nbytes, 16, Stored(array.dtype, array.shape)) for name, array in raw.items()
    }
    edge = bytes([POISON]) * 16
    fetched = {name: bytearray(edge + array.tobytes() + edge) for name, array in raw.items()}
    return judge(FAMILY.case(workload, 3), "here", LAYOUTS, parts, fetched, {})


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("options", [{}, LLAMA], ids=["plain", "rope"])
@pytest.mark.parametrize("act", ["fp16", "fp32"])
def test_the_references_own_answer_passes(cache: str, options: dict, act: str):
    workload = job(cache, act, options)
    found = verdict(workload, written(workload))
    assert isinstance(found, Errors), found.log


@pytest.mark.parametrize("cache", CACHES)
def test_one_wrong_byte_anywhere_is_seen(cache: str):
    workload = job(cache, options=LLAMA)
    right = written(workload)
    positions = FAMILY.case(workload, 3).pack(LAYOUTS)["positions"]
    free = next(s for s in range(43) if s not in positions)
    spoilt = {"k": (0, free // 16, 3, free % 16), "v": (free, 1, 2), "padding": (1, 2, 0, 15)}
    for name, at in spoilt.items():
        part = "k" if name == "padding" else name
        raw = {key: array.copy() for key, array in right.items()}
        raw[part].view(np.uint8 if raw[part].itemsize == 1 else np.uint16)[at] ^= 1
        found = verdict(workload, raw)
        assert f"{part} untouched" in getattr(found, "log", ""), name


def test_a_row_at_the_wrong_position_and_a_q_left_alone_are_seen():
    workload = job(options=LLAMA)
    case = FAMILY.case(workload, 3)
    raw = written(workload)
    assert "q: " in verdict(workload, {**raw, "q": case.pack(LAYOUTS)["q"]}).log  # type: ignore[union-attr]
    rolled = {**raw, "v": np.roll(raw["v"], 1, axis=0)}
    assert isinstance(verdict(workload, rolled), Measurement)


def test_models_rows_go_in_order_and_scattered_ones_include_one_that_goes_nowhere():
    ordered = FAMILY.case(job(M=4, T=1000, S=1024), 0).pack(LAYOUTS)["positions"]
    assert ordered.tolist() == [996, 997, 998, 999]
    scattered = FAMILY.case(job(), 0).pack(LAYOUTS)["positions"]
    inside = (scattered >= 0) & (scattered < 43)
    assert np.count_nonzero(~inside) == 1
    assert len(set(scattered.tolist())) == 5
    assert scattered[inside].tolist() != sorted(scattered[inside].tolist())


def test_limits_follow_what_storing_gives_up():
    limits = [FAMILY.case(job(cache), 0).tolerance.nmse for cache in CACHES]
    assert limits == sorted(limits)
    assert limits[0] < 1e-8 < limits[1] < 1e-2 < limits[2] < 1


def test_cost_knows_nothing_of_what_is_cached():
    costs = {FAMILY.cost(job(T=t, S=s)) for t, s in ((5, 5), (1000, 1024), (1000, 1 << 20))}
    assert len(costs) == 1
    (cost,) = costs
    assert cost.bytes == 2 * (2 * 5 * 2 * 64 * 2) + 4 * 5
    assert cost.written == cost.bytes / 2 - 2 * 5
    assert cost.flops == 0
    turned = FAMILY.cost(job("int4", options={**LLAMA, "rotary": 32}))
    assert turned.written == 2 * 5 * 2 * (32 + 4) + 5 * 4 * 32 * 2


# ---------------------------------------------------------------- what is asked of it


def test_bad_workloads_are_refused_in_the_rules_own_words(device: DeviceChoice):
    wrong = {
        "the last position lies within the cache: T ≤ S": job(T=44),
        "the new rows are among the cached ones: M ≤ T": job(M=20),
        "query heads are a multiple of kv heads": job(H=3),
        "head_dim is one of 32, 64, 72, 80, 96, 128, 256": job(D=100),
        "RoPE turns an even number of a head's dims, and Q only beside K": job(options={**LLAMA, "rotary": 66}),
        "each of K and V fits one buffer": job(S=1 << 30),
        "the arithmetic is in floating point": replace(job(), dtypes=DTypes("fp16", "int8", "int32", "fp16")),
    }
    config = FAMILY.default(job(), device.sheet)
    for why, workload in wrong.items():
        assert Space(FAMILY, workload, device.sheet).reject(config) == why
    for options in ({"q": True}, {"rope": "half", "rotary": 7}, {"rope": "neox", "rotary": 8}):
        assert "RoPE turns" in str(Space(FAMILY, job(options=options), device.sheet).reject(config))


def test_the_default_is_in_the_shared_layouts(device: DeviceChoice):
    for kind in ("cpu", "gpu"):
        sheet = replace(device.sheet, kind=kind)
        for cache in CACHES:
            config = FAMILY.default(job(cache), sheet)
            assert FAMILY.variant(config["variant"]).layouts(config, job(cache)) == DEFAULT_LAYOUTS[kind]


def test_jobs_are_a_decoders_rows_and_a_towers_tokens():
    found = {i.workload.dims["M"]: i for i in plan(["imp-v1.5-3b"], families=["kv_concat"], m=(1, 128, 2048))}
    sizes = {M: (item.workload.dims["T"], item.workload.dims["S"]) for M, item in found.items()}
    assert sizes == {1: (1024, 1024), 128: (128, 1024), 2048: (2048, 2048), 729: (729, 729)}
    assert dict(found[1].workload.options) == {"rope": "half", "rotary": 32, "q": True}
    assert [found[1].workload.dims[name] for name in ("G", "H", "D")] == [32, 32, 80]
    tower = found[729]
    assert [tower.workload.dims[name] for name in ("G", "H", "D")] == [16, 16, 72]
    assert (tower.workload.label, tower.count, dict(tower.workload.options)) == ("imp-v1.5-3b image kv", 26, {})


def test_covered_are_all_caches_ropes_shares_and_head_sizes():
    covered = FAMILY.cover()
    ropes = {(w.options.get("rope"), w.options.get("rotary", 0) / w.dims["D"], w.dtypes.cache) for w in covered}
    wanted = {(kind, share, c) for kind in ("half", "interleaved") for share in (0.25, 0.5, 1) for c in CACHES}
    assert ropes == wanted | {(None, 0, c) for c in CACHES}
    assert {w.dims["D"] for w in covered} == set(HEAD_DIMS)
    assert {(w.dims["M"], bool(w.options.get("q"))) for w in covered} == {(1, False), (5, True), (5, False)}


def test_no_configuration_has_a_second_copy_of_anything(device: DeviceChoice):
    """K and V are written where they are: no variant needs scratch, and all write the in-place buffers themselves."""
    for cache in CACHES:
        workload = job(cache, options=LLAMA)
        for sheet in (device.sheet, replace(device.sheet, kind="gpu")):
            for config in random.Random(0).sample(list(Space(FAMILY, workload, sheet).configs()), 50):
                schedule = FAMILY.variant(config["variant"]).schedule(config, workload)
                assert schedule.scratch == ()
                assert len(schedule.launches) == 1
                longer = FAMILY.variant(config["variant"]).schedule(config, workload.with_dims(T=1 << 16, S=1 << 16))
                assert longer == schedule  # nor does the launch grow with the cache


# ---------------------------------------------------------------- kernels


def checked(workload: Workload, config: dict, supervisor: Supervisor, sheet: DeviceSheet) -> Errors | Measurement:
    meter = Meter(supervisor, sheet)
    candidate = Candidate(FAMILY, workload, config)
    meter.build(candidate)
    found = check(meter.bench, candidate)
    meter.release(candidate)
    return found


def corners(sheet: DeviceSheet) -> Iterator[tuple[Workload, dict]]:
    """A few configurations of each cache on this device, and as if it were a GPU."""
    rng = random.Random(5)
    for cache, kind in itertools.product(CACHES, ("cpu", "gpu")):
        workload = job(cache, options={**LLAMA, "rope": rng.choice(("half", "interleaved"))})
        claimed = replace(sheet, kind=kind, max_work_group=min(sheet.max_work_group, 256))
        for config in rng.sample(list(Space(FAMILY, workload, claimed).configs()), 2):
            yield workload, config


def test_sampled_configurations_are_right(device: DeviceChoice, supervisor: Supervisor):
    for workload, config in corners(device.sheet):
        found = checked(workload, config, supervisor, device.sheet)
        assert isinstance(found, Errors), (config, workload.key, found.log)


@pytest.mark.parametrize("cache", CACHES)
def test_tiles_are_right_wherever_a_prompt_begins(cache: str, device: DeviceChoice, supervisor: Supervisor):
    """Rows in order that begin within a tile: single rows up to its end, whole tiles, single rows again."""
    config = FAMILY.variant("heads").config(KL=32, VL=16, VEC=16, ROWS=64, TILE=16, HEADS=2, WG=1)
    for T in (64, 69, 96):
        found = checked(job(cache, M=50, T=T, S=max(T, 300)), config, supervisor, device.sheet)
        assert isinstance(found, Errors), found.log


def test_what_is_only_copied_is_exact(device: DeviceChoice, supervisor: Supervisor):
    for config in (FAMILY.default(job(), device.sheet), FAMILY.variant("pairs").config(KL=8, ALONG=1)):
        found = checked(job(), config, supervisor, device.sheet)
        assert isinstance(found, Errors), found.log
        assert found.nmse == found.max_scaled == 0.0


@pytest.mark.parametrize("cache", ["int8", "int4"])
def test_the_emulated_subgroup_is_right(cache: str, device: DeviceChoice, supervisor: Supervisor):
    """The form in which a device without subgroups, or a sanitizer, runs the variant."""
    anywhere = Rule("", ("LANES",), lambda c, w, s: True)
    variant = replace(
        CODES_SUBGROUP,
        source="#define EMULATE_SUBGROUPS\n" + CODES_SUBGROUP.source,
        rules=(anywhere,),
        workload_rules=(),
    )
    candidate = Candidate(
        replace(FAMILY, variants=(variant,)), job(cache, options=LLAMA), variant.config(LANES=8, WG=32, KL=16)
    )
    meter = Meter(supervisor, device.sheet)
    meter.build(candidate)
    found = check(meter.bench, candidate)
    meter.release(candidate)
    assert isinstance(found, Errors), found.log


def test_every_cache_and_rope_has_its_own_build():
    variant = FAMILY.variant("heads")
    options = ({}, LLAMA, {**LLAMA, "rope": "interleaved"}, {**LLAMA, "rotary": 32}, {"rope": "half", "rotary": 64})
    jobs = [job(cache, options=how) for cache in CACHES for how in options]
    assert len({build_options(FAMILY, variant.config(), workload) for workload in jobs}) == len(jobs)
    sizes = [job(**{dim: size}) for dim, size in {"M": 3, "T": 20, "S": 99, "G": 1, "H": 8}.items()]
    assert len({build_options(FAMILY, variant.config(), workload) for workload in (*sizes, job())}) == 1
