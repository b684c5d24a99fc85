import numpy as np
import pytest

from harness.runner.describe import cpu_cache_bytes, cpu_vector_floats
from harness.runner.protocol import buffer_arg, f32_arg, i32_arg, image_arg, launch
from harness.supervisor import Refused, Rotation
from kernels.spec import Verdict

NATIVE = "always"
COUNT = "__kernel void count(__global int *a, int by) { a[get_global_id(0)] += by; }"
SCALE = """
__kernel void scale(__global const float *x, __global float *y, float a, int n) {
    int i = get_global_id(0);
    if (i < n) y[i] = a * x[i];
}
"""
TALK = '__kernel void talk(int n) { printf("driver says %d\\n", n); }'
READ = """
__constant sampler_t EXACT = CLK_NORMALIZED_COORDS_FALSE | CLK_ADDRESS_CLAMP_TO_EDGE | CLK_FILTER_NEAREST;
__kernel void texels(__read_only image2d_t image, __global uint4 *y) {
    int2 at = (int2)(get_global_id(0), get_global_id(1));
    y[at.y * get_global_size(0) + at.x] = read_imageui(image, EXACT, at);
}
"""


def count(supervisor, by: int = 1, local: list[int] | None = None, **more):
    supervisor.build("count", COUNT)
    return supervisor.run("count", [launch("count", [16], local, [buffer_arg("a"), i32_arg(by)])], **more)


def ints(supervisor, name: str = "a") -> list[int]:
    return np.frombuffer(supervisor.get(name), np.int32).tolist()


def test_hello_tells_what_legality_needs(supervisor, device):
    said = supervisor.hello().device
    assert said["name"] == device.description["name"]
    assert said["type"] in ("cpu", "gpu", "other")
    for name in ("max_work_group_size", "local_mem_size", "max_mem_alloc_size", "compute_units"):
        assert said[name] > 0, name
    assert (said["image_pitch_alignment"] > 0) == ("cl_khr_image2d_from_buffer" in said["extensions"])
    assert "cl_intel_required_subgroup_size" not in said["extensions"] or said["subgroup_sizes"]


def test_the_cache_of_a_processor_is_that_of_all_its_chiplets(tmp_path, monkeypatch):
    """Two that share a last level, one with its own, one that this process may not use."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2}, raising=False)
    for cpu, shared in enumerate(("0-1", "0-1", "2", "3")):
        for number, level, share, size in ((0, 1, cpu, "48K"), (1, 2, cpu, "1024K"), (2, 3, shared, "32M")):
            index = tmp_path / f"cpu{cpu}" / "cache" / f"index{number}"
            index.mkdir(parents=True)
            for name, text in (("level", level), ("shared_cpu_list", share), ("size", size)):
                (index / name).write_text(f"{text}\n")
    (tmp_path / "cpu2" / "cache" / "index1" / "level").unlink()
    assert cpu_cache_bytes(tmp_path) == 64 << 20
    assert cpu_cache_bytes(tmp_path / "cpu9") == 0


@pytest.mark.parametrize(
    ("flags", "floats"),
    [("flags\t\t: fpu avx avx2 avx512f", 16), ("flags\t\t: fpu avx avx2", 8), ("Features\t: fp asimd", 4), ("", 4)],
)
def test_vector_registers_are_those_of_the_flags_else_what_the_driver_says(tmp_path, flags, floats):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\n{flags}\n")
    assert cpu_vector_floats(4, cpuinfo) == floats
    assert cpu_vector_floats(4, tmp_path / "absent") == 4


def test_arguments_arrive(supervisor):
    x = np.arange(100, dtype=np.float32)
    supervisor.put("x", x.data)
    supervisor.fill("y", 400, b"\xff")
    build = supervisor.build("scale", SCALE, ["-DUNUSED=1"])
    assert build.build_ms > 0
    assert build.kernels["scale"].work_group >= 1
    args = [buffer_arg("x"), buffer_arg("y"), f32_arg(0.5), i32_arg(99)]
    supervisor.run("scale", [launch("scale", [128], None, args)])
    y = np.frombuffer(supervisor.get("y"), np.float32)
    assert np.array_equal(y[:99], x[:99] / 2)
    assert np.isnan(y[99])  # what nobody wrote is still the pattern


def test_warm_up_and_samples_each_launch_once(supervisor):
    supervisor.fill("a", 64)
    run = count(supervisor, warmup=3, samples=4)
    assert ints(supervisor) == [7] * 16
    assert len(run.samples_ns) == len(run.wall_ns) == 4
    for ((queued, submitted, start, end),) in run.samples_ns:
        assert 0 < queued <= submitted <= start <= end
    batch = count(supervisor, warmup=1, samples=9, profile=False)
    assert ints(supervisor) == [17] * 16
    assert len(batch.wall_ns) == 1
    assert batch.samples_ns == ()


def test_launches_of_one_kernel_keep_their_own_arguments(supervisor):
    supervisor.fill("a", 64)
    supervisor.fill("b", 64)
    supervisor.build("count", COUNT)
    one = launch("count", [16], [4], [buffer_arg("a"), i32_arg(1)])
    ten = launch("count", [16], [8], [buffer_arg("b"), i32_arg(10)])
    run = supervisor.run("count", [one, ten, one], samples=2)
    assert ints(supervisor) == [4] * 16
    assert ints(supervisor, "b") == [20] * 16
    assert [len(sample) for sample in run.samples_ns] == [3, 3]


def test_a_sub_buffer_confines_a_kernel(supervisor):
    align = supervisor.hello().device["mem_base_addr_align_bytes"]
    supervisor.fill("a", 3 * align + 64)
    supervisor.build("count", COUNT)
    part = buffer_arg("a", 2 * align, 64)
    supervisor.run("count", [launch("count", [16], None, [part, i32_arg(5)])])
    assert ints(supervisor) == [0] * (align // 2) + [5] * 16 + [0] * (align // 4)


def test_rotation_takes_turns_from_where_it_left_off(supervisor):
    supervisor.fill("a", 64)
    count(supervisor, samples=4, rotate=Rotation(("a",), 3))
    assert ints(supervisor) == [2] * 16  # samples 0 and 3 met the buffer itself
    count(supervisor, samples=2, rotate=Rotation(("a",), 3, first=4))
    assert ints(supervisor) == [2] * 16
    count(supervisor, samples=1, rotate=Rotation(("a",), 3, first=6))
    assert ints(supervisor) == [3] * 16
    count(supervisor, warmup=2, samples=2, profile=False, rotate=Rotation(("a",), 4, first=1))
    assert ints(supervisor) == [4] * 16


def test_the_copies_of_a_rotation_hold_the_content(supervisor):
    supervisor.put("x", np.full(16, 3, np.float32).data)
    supervisor.build("scale", SCALE)
    for turn in range(3):
        supervisor.fill("y", 64, b"\xff")
        args = [buffer_arg("x"), buffer_arg("y"), f32_arg(2), i32_arg(16)]
        supervisor.run("scale", [launch("scale", [16], None, args)], rotate=Rotation(("x",), 3, first=turn))
        assert np.frombuffer(supervisor.get("y"), np.float32).tolist() == [6] * 16


def test_new_content_replaces_the_copies_too(supervisor):
    supervisor.fill("a", 64)
    count(supervisor, rotate=Rotation(("a",), 2, first=1))
    supervisor.fill("a", 64, (100).to_bytes(4, "little"))
    supervisor.fill("zero", 64)
    count(supervisor, rotate=Rotation(("a",), 2, first=1))
    assert ints(supervisor) == [100] * 16
    supervisor.fill("a", 128)  # another size under the same name
    assert len(ints(supervisor)) == 32


def test_in_place_buffers_are_restored_before_each_sample(supervisor):
    supervisor.fill("a", 64)
    supervisor.put("origin", np.arange(16, dtype=np.int32).data)
    count(supervisor, warmup=2, samples=5, restore=[("a", "origin")])
    assert ints(supervisor) == list(range(1, 17))
    count(supervisor, samples=5, profile=False, restore=[("a", "origin")])
    assert ints(supervisor) == list(range(1, 17))


def test_a_hopeless_candidate_is_cut_short(supervisor):
    supervisor.fill("a", 64)
    run = count(supervisor, samples=50, abort_above_ns=-1)
    assert run.aborted
    assert len(run.samples_ns) == 1
    assert ints(supervisor) == [1] * 16
    assert not count(supervisor, samples=2, abort_above_ns=10**15).aborted


def test_an_image_is_a_view_of_a_buffer(supervisor):
    device = supervisor.hello().device
    texels = np.arange(64 * 8 * 4, dtype=np.uint32)
    supervisor.put("w", texels.data)
    supervisor.fill("y", texels.nbytes, b"\xff")
    supervisor.build("read", READ)
    views = [(image_arg("w", "RGBA", "uint32", 64, 8), 0, 8), (image_arg("w", "RGBA", "uint32", 64, 4, 4096), 1024, 4)]
    for view, begin, height in views:
        launches = [launch("texels", [64, height], None, [view, buffer_arg("y")])]
        if not device["image_pitch_alignment"]:
            with pytest.raises(Refused) as refused:
                supervisor.run("read", launches)
            assert refused.value.verdict is Verdict.UNSUPPORTED
            continue
        for first in (0, 1):
            supervisor.run("read", launches, warmup=1, rotate=Rotation(("w",), 2, first))
            got = np.frombuffer(supervisor.get("y"), np.uint32)[: 256 * height]
            assert np.array_equal(got, texels[begin : begin + 256 * height])


def test_what_a_driver_prints_is_not_the_protocol(supervisor):
    supervisor.build("talk", TALK)
    supervisor.run("talk", [launch("talk", [1], None, [i32_arg(42)])])
    assert supervisor.hello()
    supervisor.sensors()


def test_a_build_failure_has_the_compilers_log(supervisor):
    with pytest.raises(Refused) as refused:
        supervisor.build("wrong", "__kernel void k(__global int *a) { a[0] = undeclared_thing; }")
    assert refused.value.verdict is Verdict.BUILD_FAILED
    assert "undeclared_thing" in refused.value.message


@pytest.mark.parametrize("local", [[7], [1 << 20], [16, 1, 1, 1]])
def test_an_impossible_work_group_is_a_failed_launch(supervisor, local):
    supervisor.fill("a", 64)
    with pytest.raises(Refused) as refused:
        count(supervisor, local=local)
    assert refused.value.verdict is Verdict.LAUNCH_FAILED
    count(supervisor)
    assert ints(supervisor) == [1] * 16


def test_a_buffer_that_does_not_fit(supervisor):
    with pytest.raises(Refused) as refused:
        supervisor.fill("huge", 1 << 50)
    assert refused.value.verdict is Verdict.OUT_OF_RESOURCES
    assert not supervisor.have("huge", 1 << 50)


@pytest.mark.parametrize(
    "args",
    [
        [],
        [{"buf": "nobody"}, {"i32": 1}],
        [{"buf": "a", "offset": 0, "bytes": 100}, {"i32": 1}],
        [{"buf": "a"}, {"i32": 1 << 40}],
        [{"buf": "a"}, {"i32": "one"}],
        [{"buf": "a"}, {}],
        [{"buf": "a"}, 5],
        [{"image": {"buf": "a"}}, {"i32": 1}],
    ],
)
def test_wrong_arguments_are_this_sides_bug(supervisor, args):
    supervisor.fill("a", 64)
    supervisor.build("count", COUNT)
    generation = supervisor.generation
    with pytest.raises((ValueError, Refused)):  # Refused: a device without images says so first
        supervisor.run("count", [launch("count", [16], None, args)])
    count(supervisor)
    assert supervisor.generation == generation


def test_sensors_are_numbers_or_have_a_reason(supervisor):
    sensors = supervisor.sensors()
    assert set(sensors.values) == set(supervisor.hello().sensors)
    for name, value in sensors.values.items():
        assert (value is None) == (name in sensors.why)
        assert value != 0


def test_dropped_programs_and_buffers_free_their_memory(supervisor):
    def work(times: int) -> float:
        for i in range(times):
            supervisor.build(f"count {i}", f"{COUNT} // {times} {i}")
            supervisor.fill("a", 1 << 20)
            launches = [launch("count", [16], None, [buffer_arg("a"), i32_arg(1)])]
            supervisor.run(f"count {i}", launches, rotate=Rotation(("a",), 3))
            supervisor.drop(["a"], [f"count {i}"])
        return supervisor.sensors().values["rss_bytes"] or 0

    if "rss_bytes" in supervisor.sensors().why:
        pytest.skip(supervisor.sensors().why["rss_bytes"])
    before = work(4)
    assert work(16) - before < 20 << 20  # programs that were not freed took 28 MB; the buffers would take 50 MB


def test_dropped_is_gone(supervisor):
    supervisor.fill("a", 64)
    count(supervisor)
    supervisor.drop(["a", "nobody"], ["count", "nobody"])
    assert not supervisor.have("a", 64)
    with pytest.raises(ValueError, match="no program count"):
        supervisor.run("count", [])
