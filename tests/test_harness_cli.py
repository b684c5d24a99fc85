"""`python -m harness`: exit codes, one sentence for each mistake, and the check for packages of somebody else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness import origin, verbs
from harness.cli import main
from harness.devices import DeviceChoice
from harness.doctor import Report
from harness.errors import DeviceMissing
from harness.probe import ProbeResult, Rate
from harness.probe_kernels import ProbeKernel
from kernels.sheet import load_sheet, sheet_names

ROOT = Path(__file__).parent.parent
RATE = Rate(40.0, (39.0, 41.0), ProbeKernel("read_own", width=8, items=64, amount=4))
PROBED = ProbeResult(RATE, RATE, {"fp32": RATE}, 200.0, 2000.0, 1, 180, True, ("float16: crashed",))


def test_no_verb_and_unknown_verbs_are_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["fly"], ["probe", "--fast"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2
        assert "usage: python -m harness" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["doctor", "probe"])
def test_an_unknown_device_is_one_sentence_with_the_choices(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--device", "nonsense"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert 'unknown device "nonsense"; choose auto, cpu' in error


def test_a_device_that_is_not_there_is_3(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> DeviceChoice:
        raise DeviceMissing("no Adreno 750 is attached")

    monkeypatch.setattr(verbs.probe, "resolve", missing)
    assert main(["probe", "--device", "adreno750"]) == 3
    assert capsys.readouterr().err == "kiln: no Adreno 750 is attached\n"


def test_doctor_prints_the_sheet_of_a_device_that_is_not_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> DeviceChoice:
        raise DeviceMissing("no such GPU is attached")

    monkeypatch.setattr(verbs.doctor, "resolve", missing)
    for name in sheet_names():
        assert main(["doctor", "--device", name]) == 0
        told = capsys.readouterr().out
        assert told.startswith("no such GPU is attached\nwhat its sheet says of the ")
        for key, value in load_sheet(name).values.items():
            (line,) = (line for line in told.splitlines() if line.startswith(f"{key} "))
            assert value.kind in line
            cited = line.split(value.kind)[1].replace(" ", "").split(",")
            assert all(
                f"source {number}: {source}" in told for number, source in zip(cited, value.sources, strict=True)
            )
    assert main(["doctor", "--device", "adreno640", "--json"]) == 0
    sheet = json.loads(capsys.readouterr().out)
    assert sheet["values"]["limits.local_bytes"]["kind"] == "measured"
    assert sheet["traps"][0]["deny"][1] == {"kernel": "gemv_decode", "params": {"variant": "subgroup"}}
    assert main(["doctor", "--device", "ocl:zzz"]) == 3, "only a sheet's name has a sheet"


def test_a_machine_without_opencl_is_3(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.doctor.examine", lambda only: Report((), ()))
    assert main(["doctor"]) == 3
    told = capsys.readouterr()
    assert "No OpenCL device was found" in told.out
    assert told.err.startswith("kiln: no OpenCL device")


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(only: object) -> Report:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.doctor.examine", interrupt)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "kiln: interrupted\n"


def test_probe_prints_a_table_or_json(
    device: DeviceChoice, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verbs.probe, "resolve", lambda name: device)
    monkeypatch.setattr(verbs.probe, "probe", lambda supervisor, sheet: PROBED)
    assert main(["probe"]) == 0
    words = capsys.readouterr().out
    for part in (device.slug, "40.0 GB/s", "40.0 GFLOPS", "39.0 to 41.0", "float8 own, 64 items by 1", "note: float16"):
        assert part in words
    assert main(["probe", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["probe"]["read"]["per_ns"] == 40.0


def test_a_noisy_probe_says_so(device: DeviceChoice) -> None:
    noisy = Rate(40.0, (30.0, 45.0), RATE.kernel)
    words = verbs.probe.probe_text(device, ProbeResult(noisy, RATE, {"fp32": RATE}, 200.0, 2000.0, 1, None, False, ()))
    assert "note: read varies by ±19 %" in words
    assert "read, partly cached" in words


def test_the_module_runs_from_the_command_line() -> None:
    command = [sys.executable, "-m", "harness", "probe", "--device", "nonsense"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


# ---------------------------------------------------------------- packages of somebody else


def test_our_packages_are_ours() -> None:
    assert origin.stranger() is None


def test_a_stranger_is_named_with_both_paths() -> None:
    places = {name: Path("/ours") / name for name in origin.PACKAGES} | {"kernels": Path("/theirs/kernels")}
    sentence = origin.stranger(places.get) or ""
    assert "the package kernels comes from /theirs/kernels but harness from /ours/harness" in sentence


def test_a_missing_package_is_named() -> None:
    places = {name: Path("/ours") / name for name in origin.PACKAGES if name != "tuner"}
    assert "the package tuner is missing beside /ours/harness" in (origin.stranger(places.get) or "")


def test_a_strangers_kernels_stops_the_program_before_it_is_imported(tmp_path: Path) -> None:
    """As an installed Hugging Face `kernels` would: found first on the path, and never run."""
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("raise SystemExit('the stranger ran')")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import runpy; runpy.run_module('harness')"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert str(tmp_path / "kernels") in done.stderr
    assert str(ROOT / "harness") in done.stderr
    assert "the stranger ran" not in done.stderr
