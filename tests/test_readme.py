"""The README's snippet is run as it stands, and what it names exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_export import RECORDS

from harness.devices import DeviceChoice
from kernels import tuned
from tuner.export import tuned_config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()

# Engines bring their own OpenCL; here it is PoCL from PyPI, which needs to be found first.
PRELUDE = """
import pyopencl
from harness import runtimes
runtimes.prepare("pocl")
"""


def test_the_snippet_loads_a_tuned_config_and_computes_right(device: DeviceChoice, tmp_path: Path) -> None:
    if device.slug != "cpu-pocl":
        pytest.skip("the sample document was tuned for PoCL")
    tuned.write(tmp_path / "build" / "a.json", tuned_config(RECORDS, "0"))
    snippet = re.search(r"<!-- snippet:begin -->\n```python\n(.*?)```", README, re.DOTALL)
    assert snippet is not None
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{PRELUDE}\n{snippet[1]}"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "tuned on this device with this driver" in done.stdout
    error = re.search(r"largest error: (\S+)", done.stdout)
    assert error is not None
    assert float(error[1]) < 1e-2


PATHS = sorted(set(re.findall(r"`((?:kernels|harness|reference|tuner|tests)/[\w./]+)`", README)))


@pytest.mark.parametrize("path", PATHS)
def test_paths_in_the_readme_exist(path: str) -> None:
    assert (ROOT / path).exists()
