"""`python -m tuner export FILE --to …`: what was tuned, in the words of other programs.

`llama.cpp`: the value of GGML_OPENCL_FA_TUNE, from the best `staged` attention kernel of each head dim: it is the tile
of llama.cpp's own prefill kernel (ggml/src/ggml-opencl/fa_tune.h), with the same three parameters. Nobody has timed
llama.cpp with them.
`t4`: the trials of one workload as Kernel Tuner's T4 results, schema 1.0.0 (kernel_tuner/schema/T4), which the
comparison of tuners in autotuning_methodology reads.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import KilnError, UsageError
from harness.records import Record, from_json, read
from harness.tables import json_text, say
from kernels import tuned
from kernels.spec import Measurement, Verdict
from kernels.tuned import Entry, TunedConfig
from tuner.run import journal_path

TARGETS = ("llama.cpp", "t4")
T4_VERSION = "1.0.0"

# Head dims (of K and of V alike) that fa_tune.h has an entry for, and the number of cached positions from which its
# split kernel takes over there. Kiln has no such number, so llama.cpp's stays.
_THRESHOLDS = {40: 0, 64: 64, 80: 64, 96: 64, 112: 64, 128: 64, 192: 0, 256: 0, 512: 0}

# T4 has six classes and Kiln twelve verdicts. An abandoned candidate was right, and cut short: its time is not known.
_INVALIDITY = {
    Verdict.OK: "correct",
    Verdict.WRONG_RESULT: "correctness",
    Verdict.BUILD_FAILED: "compile",
    Verdict.TIMEOUT: "timeout",
    Verdict.ABANDONED: "timeout",
    Verdict.OUT_OF_RESOURCES: "constraints",
    Verdict.UNSUPPORTED: "constraints",
}
_RIGHT = (Verdict.OK, Verdict.ABANDONED, Verdict.THROTTLED, Verdict.INVALID_TIMING)  # what was timed had been checked


# ---------------------------------------------------------------- llama.cpp


def fa_tune(config: TunedConfig) -> tuple[str, list[str]]:
    """GGML_OPENCL_FA_TUNE's value, and a sentence for each head dim that it leaves out. Raises KilnError for none."""
    best: dict[int, Entry] = {}
    others: dict[int, int] = {}
    for entry in _attention(config):
        dim = int(entry.match.options["D"])
        if entry.variant != "staged" or entry.params["HEADS"] != 1:
            others[dim] = others.get(dim, 0) + 1
        elif dim not in best or _ns(entry) < _ns(best[dim]):
            best[dim] = entry
    notes = [f"head dim {dim}: no staged kernel with one head a tile" for dim in sorted(others.keys() - best.keys())]
    notes += [f"head dim {dim}: llama.cpp has no such entry" for dim in sorted(best.keys() - _THRESHOLDS.keys())]
    notes += [
        f"head dim {dim}: predicted, not measured"
        for dim in sorted(best.keys() & _THRESHOLDS.keys())
        if best[dim].evidence == "predicted"
    ]
    parts = [_tile(dim, best[dim].params) for dim in sorted(best.keys() & _THRESHOLDS.keys())]
    if not parts:
        told = "; ".join(notes) or "it has no attention of several queries"
        raise KilnError(f"the document has nothing for GGML_OPENCL_FA_TUNE: {told}; tune --kernels flash_attention")
    return ",".join(parts), notes


def _attention(config: TunedConfig) -> Iterator[Entry]:
    """Entries of a prefill: found by size for more than one query, and their alternates."""
    section = config.kernels.get("flash_attention")
    entries = {entry.id: entry for entry in section.entries} if section else {}
    for entry in entries.values():
        if entry.bucket is not None and entry.bucket["M"][1] != 1:
            yield entry
            yield from (entries[name] for name in entry.alternates)


def _ns(entry: Entry) -> float:
    if entry.stats:
        return entry.stats.median_ns
    return entry.prediction.ns if entry.prediction else float("inf")


def _tile(dim: int, params: Mapping[str, Any]) -> str:
    return f"{dim}:{dim}:{params['BLOCK_M']}:{params['BLOCK_N']}:{params['N_SPLIT']}:{_THRESHOLDS[dim]}"


# ---------------------------------------------------------------- Kernel Tuner


def t4(records: Sequence[Record], workload: str | None) -> dict[str, Any]:
    """T4 results of the trials of the one workload whose key has `workload` in it.

    Raises UsageError where several have, or none.
    """
    trials = [record for record in records if record["kind"] == "trial"]
    keys = list(dict.fromkeys(record["workload"] for record in trials))
    if not keys:
        raise KilnError("the journal has no trials; run python -m tuner with the same --out first")
    found = [key for key in keys if workload is None or workload in key]
    if len(found) != 1:
        which = f'{len(found)} of its workloads have "{workload}" in their keys' if workload else "it has several"
        shown = ", ".join((found or keys)[:4])
        raise UsageError(f"T4 holds one workload, and {which}; choose one with --workload, such as {shown}")
    return {
        "schema_version": T4_VERSION,
        "metadata": {"workload": found[0], "tuner": "Kiln"},
        "results": [_result(record) for record in trials if record["workload"] == found[0]],
    }


def _result(record: Record) -> dict[str, Any]:
    measurement = from_json(record["measurement"])
    verdict = measurement.verdict
    compilation = measurement.build_ms or 0.0
    runtimes = [ns / 1e6 for ns in measurement.samples_ns]
    return {
        "configuration": dict(record["config"]),
        # Kernel Tuner writes `compilation` where the schema has `compilation_time`; both in milliseconds.
        "times": {"compilation": compilation, "compilation_time": compilation, "runtimes": runtimes},
        "invalidity": _INVALIDITY.get(verdict, "runtime"),
        "correctness": int(verdict in _RIGHT),
        "measurements": _measurements(measurement),
        "objectives": ["time"],
    }


def _measurements(measurement: Measurement) -> list[dict[str, Any]]:
    verdict = {"name": "verdict", "value": str(measurement.verdict), "unit": ""}
    if measurement.stats is None:
        return [verdict]
    return [{"name": "time", "value": measurement.stats.median_ns / 1e6, "unit": "ms"}, verdict]


# ---------------------------------------------------------------- the command


def main(words: Sequence[str]) -> None:
    """The command. Raises UsageError and KilnError."""
    parser = argparse.ArgumentParser(
        prog="python -m tuner export", description="Write what was tuned in the words of another program."
    )
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="a tuned config; t4 also takes a journal, and else looks beside FILE")
    add("--to", required=True, choices=TARGETS, help="what for")
    add("--workload", metavar="TEXT", help="of t4: a part of one workload's key, as M=1,N=16384")
    args = parser.parse_args(words)
    if args.workload and args.to != "t4":
        raise UsageError("--workload belongs to --to t4: llama.cpp is given every head dim of the document")
    if not args.file.is_file():
        raise UsageError(f"{args.file} is not there; make it with python -m tuner --out {args.file}")
    if args.to == "t4":
        path = args.file if args.file.suffix == ".jsonl" else journal_path(args.file)
        if not path.is_file():
            raise KilnError(f"{path} is not there, and T4 is about trials, which only a journal has")
        say(json_text(t4(read(path).records, args.workload)))
        return
    try:
        value, notes = fa_tune(tuned.load(args.file))
    except ValueError as error:
        raise KilnError(str(error)) from error
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    say(f"GGML_OPENCL_FA_TUNE={value}")
