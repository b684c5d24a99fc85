"""Oclgrind: what `harness sanitize` finds, in which form a variant runs, and what is rewritten for it.

Where Oclgrind is missing its tests are skipped: `python -m harness sanitize --install` brings it.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from test_families import CPU, MINIMAL, families

from harness import cli, emulation, halves, oclgrind, runtimes, sanitize
from harness.devices import DeviceChoice
from harness.emulation import EMULATIONS, EVERYTHING, NATIVE, Form
from harness.errors import DeviceMissing, KilnError
from harness.oclgrind import Finding, read_log
from harness.runner.protocol import buffer_arg, i32_arg, image_arg, launch
from harness.sanitize import MOST_FLOPS, MOST_ITEMS, Outcome, Report, Row, least_form, sanitize_variant, work_items
from harness.supervisor import Supervisor
from kernels.spec import (
    Abi,
    Arg,
    Case,
    Ceil,
    Config,
    Cost,
    DTypes,
    Family,
    ImageView,
    Launch,
    Rule,
    Schedule,
    Scratch,
    Stored,
    Tolerance,
    Traffic,
    Variant,
    Workload,
)

needs_oclgrind = pytest.mark.skipif(
    runtimes.simulator() is None, reason="Oclgrind is not installed: python -m harness sanitize --install"
)

# ---------------------------------------------------------------- a family with faults that can be switched on

SOURCE = """
#ifndef WG
#define WG 8 // work-items of a work-group
#endif
#ifndef BUG
#define BUG 0
#endif
__kernel void twice(__global const float *x, __global float *s, int N) {
  const int i = (int)get_global_id(0);
  if (i < N && !(BUG == 5 && i == 3)) s[i] = 2.0f * x[i];
}
// y[i] is twice x of the neighbour with which i makes a pair, 0 where that one is past the end.
__kernel void swap(__global const float *s, __global float *y, int N) {
  __local float all[WG];
  const int i = (int)get_global_id(0), l = (int)get_local_id(0);
  float own[2];
  if (BUG != 3) own[1] = 0.0f;
  own[0] = i < N || BUG == 1 ? s[i] : 0.0f;
  all[l] = i < N ? own[0] : 0.0f;
  if (BUG != 2) barrier(CLK_LOCAL_MEM_FENCE);
  if (i < N) y[i] = all[l ^ 1] + own[1] + (BUG == 6 ? 1.0f : 0.0f);
  if (BUG == 4 && i == 0) y[N] = 0.0f;
}
"""
FINE, READ_OUTSIDE, RACE, UNINITIALIZED, WRITE_OUTSIDE, UNWRITTEN, WRONG = range(7)

IMAGE_SOURCE = """
#ifndef WG
#define WG 8
#endif
#ifndef BUG
#define BUG 0
#endif
__constant sampler_t EXACT = CLK_NORMALIZED_COORDS_FALSE | CLK_ADDRESS_NONE | CLK_FILTER_NEAREST;
__kernel void twice(__global const float *x, __global float *s, int N) {
  const int i = (int)get_global_id(0);
  s[i] = i < N ? 2.0f * x[i] : 0.0f;
}
__kernel void swap(__read_only image2d_t s, __global float *y, int N) {
  const int i = (int)get_global_id(0);
  const float4 four = read_imagef(s, EXACT, (int2)(i / 4 % 2, i / 8 + BUG));
  float t[4];
  vstore4(four, 0, t);
  if (i < N) y[i] = t[i % 4 ^ 1];
}
"""

SUBGROUP_SOURCE = """
#define LANES 8
#define SUBGROUPS 1
#define VEC 1
#ifndef WG
#define WG 8
#endif
#ifndef BUG
#define BUG 0
#endif
#ifdef cl_khr_fp16
#error "Oclgrind has no half"
#endif
#ifndef EMULATE_SUBGROUPS
#error "nor subgroups"
#endif
__kernel void twice(__global const float *x, __global float *s, int N) {
  const int i = (int)get_global_id(0);
  if (i < N) s[i] = 2.0f * x[i];
}
__kernel void swap(__global const float *s, __global float *y, int N) {
  const int i = (int)get_global_id(0);
  if (i < N) y[i] = (i ^ 1) < N ? s[i ^ 1] : 0.0f;
}
"""


def schedule(config: Config, workload: Workload) -> Schedule:
    grid = ((Ceil("N", 8), 8),)
    first = Launch("twice", grid, None, ("x", "s", "N"))
    return Schedule((first, Launch("swap", grid, (config["WG"],), ("s", "y", "N"))), (Scratch("s", (4, Ceil("N", 1))),))


def image_schedule(config: Config, workload: Workload) -> Schedule:
    grid = ((Ceil("N", 8), 8),)
    view = ImageView("s", "RGBA", "fp32", (2,), (Ceil("N", 8),))
    first = Launch("twice", grid, None, ("x", "s", "N"))
    return Schedule(
        (first, Launch("swap", grid, (config["WG"],), (view, "y", "N"))), (Scratch("s", (4, 8, Ceil("N", 8))),)
    )


def case(workload: Workload, seed: int) -> Case:
    x = np.random.default_rng(seed).standard_normal(workload.dims["N"]).astype(np.float32)
    padded = np.zeros(len(x) + 1)
    padded[: len(x)] = x
    swapped = 2 * padded[[min(i ^ 1, len(x)) for i in range(len(x))]]
    return Case(lambda layouts: {"x": x}, {"y": Stored(x.dtype, x.shape)}, {"y": swapped}, Tolerance(1e-12, 1e-5))


def variant(bug: int = FINE, **more: object) -> Variant:
    plain = Variant(
        name="plain",
        source=SOURCE,
        params={"WG": (4, 8), "BUG": (bug,)},
        default={"WG": 8, "BUG": bug},
        rules=(),
        schedule=schedule,
        traffic=lambda c, w, s: Traffic(1, 1, 1),
        layouts=lambda c, w: {},
    )
    return replace(plain, **more)  # type: ignore[arg-type]


def family(*variants: Variant) -> Family:
    return Family(
        name="swap",
        about="y = twice x, neighbours swapped",
        abi=Abi(1, (Arg("x", "input", ""), Arg("y", "output", ""), Arg("N", "dim", ""))),
        dims=("N",),
        case=case,
        cost=lambda w: Cost(2.0 * w.dims["N"], 8.0 * w.dims["N"]),
        defines=lambda w: {},
        variants=variants,
        default=lambda w, s: variants[0].config(),
        workload_rules=(),
        awkward=lambda w: (w.with_dims(N=1), w.with_dims(N=21)),
        cover=lambda: (Workload("swap", {"N": 37}, DTypes("fp32", "fp32", "fp32")),),
        jobs=lambda sheet, ask: ([], []),
    )


IMAGE = {"name": "image", "source": IMAGE_SOURCE, "schedule": image_schedule, "needs": ("cl_khr_image2d_from_buffer",)}


def under_oclgrind(bug: int = FINE, **more: object) -> Row:
    one = variant(bug, **more)
    return sanitize_variant(family(one), one)


# ---------------------------------------------------------------- the check can fail


@needs_oclgrind
def test_a_clean_variant_is_clean_and_every_check_watched():
    row = under_oclgrind()
    assert (row.status, row.form, row.findings) == ("clean", "native", {})
    assert row.runs == row.watched >= 3


@needs_oclgrind
@pytest.mark.parametrize(
    ("bug", "what", "kernel", "line"),
    [
        (READ_OUTSIDE, "Invalid read of size 4 at global memory", "swap", "own[0] = i < N || BUG == 1"),
        (RACE, "Read-write data race at local memory", "swap", "y[i] = all[l ^ 1]"),
        (UNINITIALIZED, "Uninitialized value written to global memory", "swap", "y[i] = all[l ^ 1]"),
        (WRITE_OUTSIDE, "Invalid write of size 4 at global memory", "swap", "y[N] = 0.0f"),
    ],
)
def test_a_fault_is_found_by_name_and_line(bug: int, what: str, kernel: str, line: str):
    row = under_oclgrind(bug)
    assert row.status == "finding"
    found = [text for text in row.findings if text.startswith(f"{what} in {kernel}")]
    assert any(line in text for text in found), list(row.findings)


@needs_oclgrind
@pytest.mark.parametrize("bug", [UNWRITTEN, WRONG])
def test_a_wrong_result_is_a_finding(bug: int):
    """Scratch that was not written holds NaN, so that reading it shows."""
    row = under_oclgrind(bug)
    assert row.status == "finding"
    assert any(text.startswith("wrong result at N=") for text in row.findings)


@needs_oclgrind
def test_an_image_is_watched_at_every_texel():
    row = under_oclgrind(FINE, **IMAGE)
    assert (row.status, row.form, row.runs) == ("clean", "buffers for images", row.watched)
    outside = under_oclgrind(1, **IMAGE)
    assert any(text.startswith("Invalid read of size 16") for text in outside.findings), list(outside.findings)


@needs_oclgrind
def test_a_variant_for_subgroups_runs_in_the_emulated_form():
    needs = Rule("the device has subgroups", (), lambda c, w, s: bool(s.subgroup_sizes))
    row = under_oclgrind(FINE, name="subgroup", source=SUBGROUP_SOURCE, workload_rules=(needs,))
    assert (row.status, row.form) == ("clean", "a tree for subgroups")


@needs_oclgrind
def test_what_cannot_be_run_is_unsupported_not_clean():
    row = under_oclgrind(FINE, source=SOURCE.replace("__kernel void swap", "this does not compile\n__kernel void swap"))
    assert row.status == "unsupported"
    assert "build_failed" in row.why


@needs_oclgrind
def test_several_variants_keep_their_order():
    variants = (variant(), variant(RACE, name="racing"), variant(name="other"))
    heard: list[tuple[int, int]] = []
    report = sanitize.sanitize([family(*variants)], tell=lambda done, of: heard.append((done, of)))
    assert [(row.variant, row.status) for row in report.rows] == [
        ("plain", "clean"),
        ("racing", "finding"),
        ("other", "clean"),
    ]
    assert heard == [(1, 3), (2, 3), (3, 3)]
    words = sanitize.text(report)
    assert re.search(r"finding: swap/racing: Read-write data race at local memory in swap \(line \d+: ", words)
    json.dumps(report.to_json(), allow_nan=False)


# ---------------------------------------------------------------- what runs


@families
def test_plans_are_small_and_have_what_the_variant_serves(family: Family):
    """Every format, policy and option that any legal configuration of the cover has is met at a small shape."""
    for one in family.variants:
        sheet = replace(MINIMAL, local_bytes=32 << 10, max_work_group=1024, max_work_item_sizes=(1024, 1024, 1024))
        form = least_form(family, one, sheet)
        planned = sanitize.plan(family, form.of(one, sheet), form.claim(sheet))
        assert planned, one.name
        for pick in planned:
            assert family.cost(pick.workload).flops <= MOST_FLOPS
            assert work_items(one, pick.config, pick.workload) <= MOST_ITEMS
        assert planned == sanitize.plan(family, form.of(one, sheet), form.claim(sheet))


def test_nothing_is_emulated_that_need_not_be():
    dot = variant(needs=("cl_khr_integer_dot_product",))
    both = variant(needs=("cl_khr_integer_dot_product", "cl_khr_image2d_from_buffer"))
    forms = [str(least_form(family(one), one, MINIMAL)) for one in (variant(), dot)]
    assert forms == ["native", "multiplications for dot products"]
    assert least_form(family(both), both, MINIMAL) == EVERYTHING


# ---------------------------------------------------------------- forms


def test_a_form_takes_away_what_the_device_lacks_and_gives_what_stands_for_it():
    source = "#ifdef cl_khr_fp16\n#endif\n#if defined(cl_intel_subgroups)\n#endif\n"
    one = variant(source=source, options=("-cl-std=CL3.0", "-cl-no-signed-zeros"))
    old = Form(EMULATIONS[1:2]).of(one, MINIMAL)
    undefined, own = old.source.split(emulation.BEGIN)
    assert own == source
    assert re.findall(r"#undef (\w+)", undefined) == ["cl_intel_subgroups", "cl_khr_fp16"]
    assert undefined.endswith("#define EMULATE_SUBGROUPS\n")
    assert old.options == ("-cl-no-signed-zeros",)
    new = NATIVE.of(one, replace(CPU, opencl_c=(3, 0), extensions=frozenset({"cl_khr_fp16"})))
    assert "#undef cl_khr_fp16" not in new.source
    assert new.options == one.options


def test_a_phone_has_everything():
    claimed = emulation.phone(MINIMAL)
    for name in ("cl_khr_fp16", "cl_khr_subgroups", "cl_khr_image2d_from_buffer", "cl_khr_integer_dot_product"):
        assert claimed.has(name)
    assert claimed.subgroup_sizes
    assert claimed.image2d
    assert claimed.image_pitch_texels == 64


DOTS = """
__kernel void dots(__global const uint *a, __global const uint *b, __global int *y, int c) {
  const int i = (int)get_global_id(0), n = (int)get_global_size(0);
  y[i] = dot_4x8packed_ss_int(a[i], b[i]);
  y[n + i] = dot_4x8packed_us_int(a[i], b[i]);
  y[2 * n + i] = dot_4x8packed_su_int(a[i], b[i]);
  y[3 * n + i] = (int)dot_4x8packed_uu_uint(a[i], b[i]);
  y[4 * n + i] = dot_acc_sat_4x8packed_ss_int(a[i], b[i], c);
}
"""


def test_dot_products_are_what_the_extension_says(device: DeviceChoice, supervisor: Supervisor):
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (16, 4), dtype=np.uint8) for _ in range(2))
    a[0], b[0] = 128, 128
    supervisor.put("a", a.data)
    supervisor.put("b", b.data)
    supervisor.fill("y", 4 * 5 * 16)
    source = Form(EMULATIONS[3:]).of(variant(source=DOTS), MINIMAL).source
    supervisor.build("dots", source)
    most = 2**31 - 1
    args = [buffer_arg("a"), buffer_arg("b"), buffer_arg("y"), i32_arg(most)]
    supervisor.run("dots", [launch("dots", [16], None, args)])
    got = np.frombuffer(supervisor.get("y"), np.int32).reshape(5, 16)
    kinds = ((np.int8, np.int8), (np.uint8, np.int8), (np.int8, np.uint8), (np.uint8, np.uint8))
    for row, (left, right) in enumerate(kinds):
        assert np.array_equal(got[row], (a.view(left).astype(int) * b.view(right)).sum(axis=1))
    signed = (a.view(np.int8).astype(int) * b.view(np.int8)).sum(axis=1)
    assert np.array_equal(got[4], np.minimum(signed + most, most))


HALVES = """
typedef uint4 uintV;
__kernel void halve(__global const uint *x, __global uint *y) {
  const uint8 a = vload8(0, x), b = vload8(1, x);
  uint16 v = (uint16)(a + 1u, (uint8)(b.hi, (uint4)(b.lo)));
  v.even = v.odd * 3u;
  v.hi = v.lo;
  vstore16(v, 0, y);
  vstore4((uintV)(a.s01, (uint2)(b.s0, b.s1)), 4, y);
}
"""


def test_rewritten_halves_are_the_same_values(device: DeviceChoice, supervisor: Supervisor):
    rewritten = halves.rewrite(HALVES)
    assert rewritten.count("\n") == HALVES.count("\n")
    for name in ("kiln_join", "kiln_hi", "kiln_put_even", "kiln_put_hi", "kiln_lo"):
        assert name in rewritten
    supervisor.put("x", np.arange(1, 17, dtype=np.uint32).data)
    answers = []
    for number, source in enumerate((HALVES, halves.PRELUDE + rewritten)):
        supervisor.fill("y", 80)
        supervisor.build(f"halves {number}", source)
        supervisor.run(f"halves {number}", [launch("halve", [1], None, [buffer_arg("x"), buffer_arg("y")])])
        answers.append(bytes(supervisor.get("y")))
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("text", "rewritten"),
    [
        ("(float16)(0.0f)", "(float16)(0.0f)"),
        ("(int4)(1, 2, 3, 4)", "(int4)(1, 2, 3, 4)"),
        ("(float2)(a, b)", "(float2)(a, b)"),
        ("(floatV)(f(a, b), c)", "kiln_join(f(a, b), c)"),
        ("(v).hi + t[2 * i].lo", "kiln_hi((v)) + kiln_lo(t[2 * i])"),
        ("if (a.lo == 3) return", "if (kiln_lo(a) == 3) return"),
        ("x.high + f(x).hi", "x.high + f(x).hi"),
    ],
)
def test_what_is_rewritten(text: str, rewritten: str):
    assert halves.rewrite(text) == rewritten


# ---------------------------------------------------------------- buffers for images

TEXELS = """
__kernel void fill(__global TYPE *w) { w[get_global_id(0)] = (TYPE)(get_global_id(0) + 1); }
__kernel void copy(__global const uint4 *image, __global uint4 *y) { y[get_global_id(0)] = image[get_global_id(0)]; }
"""


@pytest.mark.parametrize(
    ("type_", "channels", "c_type", "dtype"),
    [("uint32", "RGBA", "uint", np.uint32), ("uint16", "RG", "ushort", np.uint16), ("fp32", "R", "float", np.float32)],
)
def test_texels_hold_the_size_and_what_reading_the_image_gives(
    type_: str, channels: str, c_type: str, dtype: type, device: DeviceChoice, supervisor: Supervisor
):
    """What an earlier launch of the same run wrote is in them."""
    width, height = 4, 3
    count = width * height * len(channels)
    size = count * np.dtype(dtype).itemsize
    supervisor.fill("w", size + 4096)
    supervisor.fill("y", 16 * (1 + width * height))
    supervisor.build(f"texels {type_}", TEXELS, [f"-DTYPE={c_type}"])
    launches = [
        launch("fill", [count], None, [buffer_arg("w")]),
        launch(
            "copy",
            [1 + width * height],
            None,
            [image_arg("w", channels, type_, width, height, texels=True), buffer_arg("y")],
        ),
    ]
    supervisor.run(f"texels {type_}", launches, samples=2)
    wide = np.float32 if type_.startswith("fp") else np.uint32
    got = bytes(supervisor.get("y"))
    assert np.frombuffer(got, np.uint32, 4).tolist() == [width, height, 0, 0]
    texels = np.frombuffer(got, wide, offset=16).reshape(-1, 4)
    written = np.arange(1, count + 1).reshape(-1, len(channels))
    assert np.array_equal(texels[:, : len(channels)], written)
    assert (texels[:, len(channels) :] == [0, 0, 0, 1][len(channels) :]).all()


# ---------------------------------------------------------------- Oclgrind itself

LOG = """1 warning generated.

Invalid write of size 4 at global memory address 0x3000000000094
\tKernel: swap
\tEntity: Global(0,0,0) Local(0,0,0) Group(0,0,0)
\t  store float 0.0, float addrspace(1)* %arrayidx27, align 4, !dbg !60
\tAt line 3 (column 5) of input.cl:
\t  (source not available)
\t

Invalid write of size 4 at global memory address 0x3000000000098
\tKernel: swap
\tEntity: Global(1,0,0) Local(1,0,0) Group(0,0,0)
\t  store float 0.0, float addrspace(1)* %arrayidx27, align 4, !dbg !60
\tAt line 3 (column 5) of input.cl:
\t  (source not available)
\t

Read-write data race at local memory address 0x1000000000008
\tKernel: swap
\t
\tFirst entity:  Global(2,0,0) Local(2,0,0) Group(0,0,0)
\t  store i32 %0, i32 addrspace(3)* %arrayidx2, align 4, !dbg !40
\tAt line 1 (column 108) of input.cl:
\t  t[i] = a[i];
\t
\tSecond entity: Global(1,0,0) Local(1,0,0) Group(0,0,0)
\t  %1 = load i32, i32 addrspace(3)* %arrayidx4, align 4, !dbg !43
\tAt line 2 (column 120) of input.cl:
\t  b[i] = t[i + 1];
\t

Oclgrind: 1000 errors generated - suppressing further errors

"""


def test_a_log_is_read_once_per_kind_kernel_and_place():
    heard = read_log(LOG)
    assert heard.findings == (
        Finding("Invalid write of size 4 at global memory", "swap", (3,)),
        Finding("Read-write data race at local memory", "swap", (1, 2)),
    )
    assert heard.gave_up == ""
    assert heard.findings[1].text("a\n b;\nc") == (
        "Read-write data race at local memory in swap (line 1: a; line 2: b;)"
    )
    assert read_log("1 warning generated.\n").findings == ()


def test_giving_up_is_no_finding():
    heard = read_log("\nOCLGRIND FATAL ERROR (./src/plugins/Uninitialized.cpp:1805)\nUnsupported instruction: freeze\n")
    assert heard == oclgrind.Heard((), "Unsupported instruction: freeze")


def test_a_simulator_is_not_among_the_devices(monkeypatch, tmp_path):
    """It says that it is a GPU; `--device auto` must not take it for one."""
    (tmp_path / "oclgrind.icd").write_text("/usr/lib/oclgrind/liboclgrind-rt-icd.so")
    monkeypatch.setenv("OCL_ICD_VENDORS", str(tmp_path))
    assert not any("oclgrind" in driver.library for driver in runtimes.find().drivers)


def test_without_oclgrind_the_next_step_is_told(monkeypatch, capsys):
    monkeypatch.setattr(runtimes, "simulator", lambda: None)
    with pytest.raises(DeviceMissing, match="apt-get install oclgrind"):
        oclgrind.require(install=False)
    assert cli.main(["sanitize"]) == 3
    assert "Oclgrind is not installed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("commands", "root", "sentence"),
    [
        ((), True, "there is no apt-get"),
        (("apt-get",), False, "neither root nor sudo"),
        (("apt-get",), True, "no network; have somebody run apt-get install oclgrind"),
        (("apt-get", "sudo"), False, "no network"),
    ],
)
def test_what_cannot_be_installed_is_one_sentence(commands, root, sentence, monkeypatch):
    ran: list[list[str]] = []

    def fail(words: list[str]) -> str:
        ran.append(words)
        return "no network"

    monkeypatch.setattr(runtimes, "simulator", lambda: None)
    monkeypatch.setattr(oclgrind.shutil, "which", lambda name: f"/bin/{name}" if name in commands else None)
    monkeypatch.setattr(oclgrind.os, "geteuid", lambda: 0 if root else 1000)
    monkeypatch.setattr(oclgrind, "_run", fail)
    with pytest.raises(KilnError, match=sentence):
        oclgrind.require(install=True)
    assert all((words[0] == "/bin/sudo") != root for words in ran)


# ---------------------------------------------------------------- as people see it

CLEAN = Row("swap", "plain", "clean", "native", 3, 3, 3, ())
OUTCOME = Outcome("swap/plain WG=8", "swap:key", ("Invalid read of size 4 in swap",), "")
FOUND = replace(CLEAN, status="finding", outcomes=(OUTCOME, OUTCOME))
UNSUPPORTED = replace(CLEAN, status="unsupported", watched=0, why="it crashes")
PARTLY = replace(CLEAN, watched=2, outcomes=(Outcome("c", "w", (), "crashed: by SIGSEGV\nlast words"),))


@pytest.mark.parametrize(
    ("row", "code", "told"),
    [
        (CLEAN, 0, "findings 0, variants clean in no form 0"),
        (FOUND, 1, "finding: swap/plain: Invalid read of size 4 in swap\n    swap/plain WG=8\n    swap:key"),
        (UNSUPPORTED, 1, "unsupported: swap/plain: it crashes"),
        (PARTLY, 0, "note: swap/plain: 1 of 3 runs without every check: crashed: by SIGSEGV\n"),
    ],
)
def test_the_exit_code_is_the_outcome(row, code, told, monkeypatch, capsys):
    monkeypatch.setattr(oclgrind, "require", lambda install: None)
    monkeypatch.setattr(sanitize, "sanitize", lambda families, tell: Report((row,)))
    assert cli.main(["sanitize"]) == code
    assert told in capsys.readouterr().out
    assert cli.main(["sanitize", "--json"]) == code
    assert json.loads(capsys.readouterr().out)["findings"] == (1 if row is FOUND else 0)
