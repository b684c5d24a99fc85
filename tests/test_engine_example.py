"""The example host runs a bundle's kernels on the OpenCL devices that are here, from C++, and finds them right."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from engine_tool import ENGINE, build, missing, opencl_missing

import kernels
from harness.devices import DeviceChoice
from kernels.bundle import bundle
from kernels.entry import make_entry
from kernels.identity import identify
from kernels.spec import DTypes, Workload
from kernels.tuned import EntryStats, KernelSection, ProvenOn, TunedConfig, Verification, write

ROOT = Path(__file__).parent.parent
POLICY = DTypes("fp16", "fp32", "fp32")
JOBS = (
    Workload("gemv_decode", {"M": 1, "N": 1000, "K": 2048}, POLICY, "int4/g128"),
    Workload("rmsnorm", {"M": 3, "N": 2000}, POLICY, options={"norm": "rms1p"}),
)


def document(choice):
    """What tuning gives in form: each family's default, as if it had been measured on this device."""
    facts = identify(choice.description, choice.sheet)
    stats = EntryStats(1000.0, (900.0, 1100.0), None, None, None, None)
    proof = Verification("nmse", 1e-7, 1e-6, ("small",), ProvenOn(facts.model, "native", None))
    sections = {}
    for job in JOBS:
        family = kernels.families()[job.family]
        config = family.default(job, facts.sheet)
        bucket = dict.fromkeys(family.dims, (1, None)) | dict(family.bounds)
        entry = make_entry(
            family, job, config, facts.sheet, id="only", bucket=bucket, verification=proof, stats=stats
        )  # fmt: skip
        sections[job.family] = KernelSection(family.abi, (entry,), "only")
    return TunedConfig(facts, {}, {}, {}, sections)


@pytest.fixture(scope="module")
def example():
    if why := missing() or opencl_missing():
        pytest.skip(why)
    return build("example.cpp", "kiln-example.so", "-O0", "-fPIC", "-shared", "-lOpenCL")


def run(example, folder, choice):
    name = choice.description["platform_name"]
    command = [sys.executable, "-m", "harness.hosted", str(example), str(folder), name]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)


def test_the_example_is_right_and_knows_its_device(device: DeviceChoice, example, tmp_path):
    config = document(device)
    write(tmp_path / "a.json", config)
    bundle(tmp_path / "a.json", tmp_path / "bundle", kernels.families())
    done = run(example, tmp_path / "bundle", device)
    assert done.returncode == 0, done.stderr + done.stdout
    facts = config.device
    assert f"on {facts.vendor} {facts.model}, driver {facts.driver}, compiler {facts.compiler}\n" in done.stdout
    assert done.stdout.count("level exact (its bucket") == 2, done.stdout
    errors = [float(text) for text in re.findall(r": ok, error (\S+)", done.stdout)]
    assert len(errors) == 2
    assert all(0 < error < 0.01 for error in errors)


def test_the_example_notices_wrong_results_and_other_devices(device: DeviceChoice, example, tmp_path):
    write(tmp_path / "a.json", document(device))
    bundle(tmp_path / "a.json", tmp_path / "bundle", kernels.families())
    (manifest,) = (tmp_path / "bundle").glob("bundle.json")
    whole = manifest.read_text("utf-8")
    manifest.write_text(whole[:-200], encoding="utf-8")
    done = run(example, tmp_path / "bundle", device)
    assert done.returncode == 1
    assert "bundle.json: byte" in done.stderr
    manifest.write_text(whole, encoding="utf-8")
    for source in (tmp_path / "bundle" / "sources").glob("*.cl"):
        source.write_text(source.read_text("utf-8") + "\n", encoding="utf-8")
    done = run(example, tmp_path / "bundle", device)
    assert done.returncode == 1
    assert "cannot run here" in done.stderr
    assert "was changed since it was bundled" in done.stderr


def test_the_headers_are_package_data():
    for name in ("kiln.hpp", "kiln_opencl.hpp", "example.cpp", "query.cpp"):
        assert (ENGINE / name).is_file()
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    assert '"*.hpp"' in text
    assert '"*.cpp"' in text
