"""harness/runner/binaries.py: what one runner has built the next one finds, and nothing wrong is ever taken."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.devices import DeviceChoice
from harness.runner.protocol import buffer_arg, i32_arg, launch
from harness.supervisor import Build, Refused, Supervisor

COUNT = "__kernel void count(__global int *a, int by) { a[get_global_id(0)] += by * BY; }"


@contextmanager
def runner(device: DeviceChoice, folder: Path) -> Iterator[Supervisor]:
    command = (*device.command, "--binaries", str(folder))
    with Supervisor(command) as supervisor:
        yield supervisor


def build(device: DeviceChoice, folder: Path, source: str = COUNT, by: int = 3) -> Build:
    """Build in a runner of its own, and see that it computes what the source says."""
    with runner(device, folder) as supervisor:
        found = supervisor.build("p", source, [f"-DBY={by}"])
        supervisor.fill("a", 64)
        supervisor.run("p", [launch("count", [16], [4], [buffer_arg("a"), i32_arg(2)])])
        assert supervisor.get("a") == (2 * by).to_bytes(4, "little") * 16
        return found


def kept(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()]


def test_the_next_runner_finds_what_was_built(device: DeviceChoice, tmp_path: Path) -> None:
    first, second = build(device, tmp_path), build(device, tmp_path)
    assert (first.cached, second.cached) == (False, True)
    assert second.kernels == first.kernels
    assert second.build_ms > 0
    assert len(kept(tmp_path)) == 1
    assert not build(device, tmp_path, by=4).cached  # other options,
    assert not build(device, tmp_path, COUNT + "\n").cached  # another source
    assert len(kept(tmp_path)) == 3


def test_without_a_folder_nothing_is_kept(device: DeviceChoice) -> None:
    for _ in range(2):
        with Supervisor(device.command) as supervisor:
            assert not supervisor.build("p", COUNT, ["-DBY=3"]).cached


def torn(data: bytes) -> bytes:
    return data[: len(data) // 2]


def another(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def refused(data: bytes) -> bytes:
    junk = b"no binary of any driver"
    return hashlib.sha256(junk).digest() + junk


@pytest.mark.parametrize("spoil", [torn, another, refused, lambda data: b""])
def test_a_spoilt_binary_is_built_again_and_replaced(device: DeviceChoice, tmp_path: Path, spoil) -> None:
    if device.slug == "cpu-pocl":
        pytest.skip("PoCL keeps its own files")
    build(device, tmp_path)
    (path,) = kept(tmp_path)
    good = path.read_bytes()
    path.write_bytes(spoil(good))
    assert not build(device, tmp_path).cached
    assert build(device, tmp_path).cached


def test_what_does_not_build_has_its_log_each_time(device: DeviceChoice, tmp_path: Path) -> None:
    with runner(device, tmp_path) as supervisor:
        for name in ("p", "q"):
            with pytest.raises(Refused, match="nonsense"):
                supervisor.build(name, "__kernel void k() { nonsense; }")
    assert not kept(tmp_path)


def test_a_folder_that_cannot_be_written_costs_nothing(device: DeviceChoice, tmp_path: Path) -> None:
    with runner(device, tmp_path / "missing") as supervisor:
        assert not supervisor.build("p", COUNT, ["-DBY=3"]).cached
