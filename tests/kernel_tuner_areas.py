"""Kernel Tuner's search on recorded spaces, in its own simulation mode: a file for `python -m tuner replay --against`.

Kernel Tuner is nothing that Kiln needs. In an environment of its own:

    python -m venv build/kernel-tuner && build/kernel-tuner/bin/pip install kernel_tuner==1.5.0
    build/kernel-tuner/bin/python tests/kernel_tuner_areas.py SPACE.npz … --out build/annealing.json
    python -m tuner replay SPACE.npz … --against build/annealing.json

Every repeat has a seed of its own, from 0 on. As in `tuner.replay` a failed configuration counts as a trial and a
repeated one does not; a fraction is optimum / best found, an area the mean of the fractions at MARKS. A search that
ends early, as annealing's schedule does after three quarters of them, keeps what it found.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

MARKS = (25, 50, 100, 200, 400)


def cache_file(space: Any, folder: Path) -> Path:
    """A recorded space as Kernel Tuner's own cache of results, from which its simulation takes every time."""
    meta = json.loads(str(space["meta"]))
    names, cache = list(meta["params"]), {}
    for row, ms in zip(space["index"].tolist(), space["time_ms"].tolist(), strict=True):
        values = [meta["params"][name][at] for name, at in zip(names, row, strict=True)]
        result = {"time": ms} if ms == ms else {"time": "RuntimeFailedConfig", "__error__": "RuntimeFailedConfig"}
        times = dict.fromkeys(("compile_time", "verification_time", "benchmark_time"), 0.0)
        cache[",".join(map(str, values))] = dict(zip(names, values, strict=True)) | result | times
    whole = {
        "device_name": "recorded",
        "kernel_name": "recorded",
        "problem_size": [1],
        "tune_params_keys": names,
        "tune_params": meta["params"],
        "objective": "time",
        "cache": cache,
    }
    path = folder / "cache.json"
    path.write_text(json.dumps(whole))
    return path


def area(cache: Path, strategy: str, seed: int) -> float:
    """The area of one search."""
    import kernel_tuner

    # It takes a `seed` and in 1.5.0 uses it nowhere: both of the generators that it draws from are seeded here.
    random.seed(seed)
    np.random.seed(seed)
    known = json.loads(cache.read_text())
    params, listed = known["tune_params"], set(known["cache"])

    def legal(config: dict[str, Any]) -> bool:
        return ",".join(str(config[name]) for name in params) in listed

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the kernel that nobody compiles takes no arguments; division by invalid costs
        results, _ = kernel_tuner.tune_kernel(
            "recorded",
            "__global__ void recorded() {}",
            [1],
            [],
            params,
            restrictions=legal,
            lang="CUDA",
            strategy=strategy,
            strategy_options={"max_fevals": MARKS[-1]},
            cache=str(cache),
            simulation_mode=True,
        )
    first: dict[str, float] = {}  # by configuration, in the order they were tried
    for result in results:
        ms = result["time"]
        first.setdefault(",".join(str(result[name]) for name in params), ms if isinstance(ms, float) else np.inf)
    best = np.minimum.accumulate(list(first.values()))
    optimum = min(entry["time"] for entry in known["cache"].values() if isinstance(entry["time"], float))
    return float(np.mean(optimum / best[np.minimum(MARKS, len(best)) - 1]))


def main() -> None:
    """Search every space and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("spaces", nargs="+", type=Path, metavar="SPACE.npz")
    parser.add_argument("--strategy", default="simulated_annealing", help="Kernel Tuner's name (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=25, metavar="N", help="(default %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    args = parser.parse_args()
    found: dict[str, list[float]] = {}
    for path in args.spaces:
        with tempfile.TemporaryDirectory() as folder:
            cache = cache_file(np.load(path, allow_pickle=False), Path(folder))
            found[path.stem] = [area(cache, args.strategy, seed) for seed in range(args.repeats)]
        print(f"{path.stem}: {np.mean(found[path.stem]):.3f}", flush=True)
    name = f"Kernel Tuner {version('kernel_tuner')}, {args.strategy}"
    args.out.write_text(json.dumps({"tuner": name, "marks": MARKS, "spaces": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
