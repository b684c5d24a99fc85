"""A journal with everything that a report shows, made without a device: two kernels, their searches, failures."""

import json
from pathlib import Path
from typing import Any

from test_export import DESCRIPTION, FAMILY, STUDY, workload
from test_export import final as export_final
from test_judge import probed

from harness.candidate import Candidate
from harness.devices import sheet_from
from harness.journal import trial_key
from harness.records import to_json
from kernels.space import Space
from kernels.spec import Config, Measurement, Stats, Verdict, Workload

# What a driver or a file name might hold: markup, a table's borders, an escape sequence, text that runs backwards.
HOSTILE = "<script>alert('1')</script> | </pre>\x1b[31m\u202e ${x} $\\frac{1}{2}$ [a](b) `c`\nsecond line"
REQUEST = {
    "device": "cpu",
    "models": ["gemma-2b"],
    "kernels": ["gemv_decode"],
    "weights": ["int4/g128"],
    "act": "fp16",
    "compute": "fp32",
    "cache": "fp16",
    "seconds": 1.0,
}
GATE, DOWN = workload(16384, 2048), workload(2048, 16384)


def default(job: Workload) -> Config:
    return dict(FAMILY.default(job, sheet_from(DESCRIPTION)))


def trial(job: Workload, config: Config, found: Measurement) -> dict[str, Any]:
    return {
        "kind": "trial",
        "key": trial_key(Candidate(FAMILY, job, config), DESCRIPTION),
        "workload": job.key,
        "config": dict(config),
        "measurement": json.loads(json.dumps(to_json(found))),
    }


def ok(ns: float) -> Measurement:
    return Measurement(Verdict.OK, stats=Stats(ns, (0.9 * ns, 1.1 * ns), 9), samples_ns=(ns,))


def configs(job: Workload, count: int) -> list[Config]:
    """The default first, then others from all over the space."""
    every = list(Space(FAMILY, job, sheet_from(DESCRIPTION)).configs())
    first = default(job)
    return [first, *(c for c in every[:: len(every) // (2 * count)] if c != first)][:count]


def trials(job: Workload, count: int = 24) -> list[dict[str, Any]]:
    """`count` trials whose time follows BLOCKS alone, then the winner, one that was given up and two failures."""
    tried = configs(job, count)
    times = [500_000.0 * (1 + 0.2 * (config.get("BLOCKS", 8) % 5)) for config in tried]
    found = [trial(job, config, ok(ns)) for config, ns in zip(tried, times, strict=True)]
    found.append(trial(job, {**default(job), "BLOCKS": 8}, ok(400_000.0)))
    found.append(trial(job, {**default(job), "BLOCKS": 2}, Measurement(Verdict.ABANDONED, at_least_ns=900_000.0)))
    for number, unroll in enumerate((2, 4)):
        failed = Measurement.failed(Verdict.BUILD_FAILED, f"error {number}: {HOSTILE}")
        found.append(trial(job, {**default(job), "UNROLL": unroll, "BLOCKS": 8}, failed))
    return found


def study(**changes: Any) -> dict[str, Any]:
    return {**STUDY, "request": REQUEST, "probe": probed().to_json(), "rates": {"read_gb_per_s": 40.0}, **changes}


def records() -> list[dict[str, Any]]:
    """GATE got faster, DOWN keeps its default."""
    return [
        study(),
        *trials(GATE),
        *trials(DOWN, 3),
        final(GATE, 500_000.0, 400_000.0),
        final(DOWN, 500_000.0, 600_000.0),
    ]


def final(job: Workload, default_ns: float, other_ns: float) -> dict[str, Any]:
    """The default against BLOCKS=8, verified at the job's own sizes as well."""
    found = export_final(job, 36, default_ns, {"BLOCKS": 8}, other_ns)
    for finalist in found["finalists"]:
        finalist["errors"]["shapes"] = ["M=1 N=3 K=128", f"M=1 N={job.dims['N']} K={job.dims['K']}"]
    return found


def write(path: Path, found: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in found))
    return path


def recording(start: int = 10**12) -> dict[str, Any]:
    """Telemetry in the recorder's format: a signal that was there, one that was not, two phases."""
    second = 10**9

    def signal(name: str, unit: str, why: str | None) -> dict[str, Any]:
        return {"name": name, "unit": unit, "path": "/p", "period_ms": 100, "available": why is None, "why": why}

    return {
        "format": "kiln-telemetry",
        "version": 1,
        "clock": "CLOCK_MONOTONIC of the host",
        "start_ns": start,
        "end_ns": start + 2 * second,
        "platform": "linux",
        "signals": [signal("cpu_percent", "%", None), signal("gpu_clock_mhz", "MHz", "EACCES: /sys/gpuclk <b>")],
        "series": {"cpu_percent": {"t_ns": [start, start + second], "values": [20.0, 80.0]}},
        "phases": [
            {"name": "load", "repeat": 0, "start_ns": start, "end_ns": start + second},
            {"name": "token-eval", "repeat": 0, "start_ns": start + second, "end_ns": start + 2 * second},
        ],
        "summary": {"load": {"cpu_percent": {"mean": 20.0, "sd": None, "repeats": 1}}},
        "sampler": {"cpu_percent_of_one_core": 0.4},
        "energy": None,
        "energy_why": "no battery here",
    }
