"""The wheel carries the four packages and their data, and works from / in an environment without OpenCL."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

USE_IT = """
import kernels, json
from importlib.resources import files
from kernels.plan import load_model, plan
family = kernels.families()["gemv_decode"]
assert all("__kernel" in variant.source for variant in family.variants)
planned = plan(load_model("gemma-2b"))
print(json.dumps({"origin": kernels.__file__, "workloads": len(planned)}))
"""


@pytest.mark.slow
def test_wheel_in_a_clean_environment_run_from_root(tmp_path: Path) -> None:
    run = lambda *command: subprocess.run(command, cwd="/", check=True, capture_output=True, text=True).stdout  # noqa: E731
    run(sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT))
    (wheel,) = tmp_path.glob("kiln_workbench-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"kernels", "tuner", "harness", "reference"}
    assert "kernels/gemv_decode/panel.cl" in names
    assert "kernels/models/gemma-2b.toml" in names
    assert {"kernels/engine/kiln.hpp", "kernels/engine/kiln_opencl.hpp"} <= set(names)

    venv = tmp_path / "venv"
    run(sys.executable, "-m", "venv", str(venv))
    python = str(venv / "bin" / "python")
    run(python, "-m", "pip", "install", "--quiet", "numpy")
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel))
    assert '"workloads"' in run(python, "-c", USE_IT)

    # With its dependencies, but no driver: one sentence that says what to install, exit code 3, no traceback.
    run(python, "-m", "pip", "install", "--quiet", str(wheel))
    kiln = str(venv / "bin" / "kiln")
    for command in ([python, "-m", "harness", "doctor"], [kiln, "--device", "cpu"], [python, "-m", "tuner"]):
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
        assert done.returncode == 3, done.stderr
        assert "pip install 'kiln-workbench[cpu]'" in done.stderr
        assert "Traceback" not in done.stderr
