"""Imports point one way: reference ← kernels ← harness ← tuner, with one heavy dependency at each step."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("reference", "kernels", "harness", "tuner")
# A heavy import, and the only package that may make it.
OWNERS = {"pyopencl": "harness", "optuna": "tuner", "safetensors": "tests alone"}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write it absolute"
            found.add((node.module or "").partition(".")[0])
    return found


MODULES = [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_towards_reference(path: Path) -> None:
    layer = path.relative_to(ROOT).parts[0]
    above = set(LAYERS[LAYERS.index(layer) + 1 :])
    found = imports(path)
    assert not found & above, f"{layer} imports from a layer above it"
    for heavy, owner in OWNERS.items():
        assert heavy not in found or layer == owner, f"only {owner} imports {heavy}"
    assert "tests" not in found


def test_there_are_modules_in_every_layer() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(LAYERS)


# Runs where OpenCL and Optuna cannot be imported at all: what must still work without them.
WITHOUT_OPENCL = """
import sys
for name in ("pyopencl", "optuna", "tqdm", "tabulate", "safetensors", "loopy"):
    sys.modules[name] = None
import kernels
from kernels.plan import load_model, model_names, plan
families = kernels.families()
assert "gemv_decode" in families, families
for name in model_names():
    assert plan(load_model(name)), name
from kernels.claims import device_sheet
from kernels.identity import claimed
from kernels.sheet import load_sheet, sheet_names
for name in sheet_names():
    assert device_sheet(load_sheet(name)) == claimed(load_sheet(name)).sheet
import kernels.explain, kernels.select, kernels.tuned, reference.quantization, reference.matmul
print(len(families))
"""


def test_data_and_reference_need_no_opencl() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_OPENCL], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 1


def test_importing_the_harness_touches_no_driver() -> None:
    code = "import sys, harness.measure, harness.supervisor, harness.devices; assert 'pyopencl' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
