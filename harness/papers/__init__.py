"""`python -m harness tables`: Transformer-Lite's tables on the device at hand, each beside what the paper published.

Default and tuned configurations run interleaved, the tuned one as `select` gives it to an engine. Every configuration
is compared with NumPy before it is timed. What the paper measured on its phones stands in tables of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.devices import DeviceChoice
from harness.entrant import Contestant
from harness.measure import Meter
from harness.papers import concat, encoders, gemv, weights
from harness.papers.ground import Ground, wrapped
from harness.papers.weights import Missing
from harness.probe import ProbeResult, probe
from harness.supervisor import Supervisor
from harness.tables import gigabytes_per_second, time_text
from kernels.identity import versions
from kernels.spec import Verdict
from kernels.tuned import TunedConfig
from reference.table2 import Row as ErrorRow

SOURCE = "Transformer-Lite (arXiv 2403.20041)"
TABLES = ("1", "2", "3", "kv")  # kv: the claim of figure 3
_NO_DEVICE = ("2",)  # tables that NumPy computes alone


@dataclass(frozen=True)
class Found:
    """What was measured. A table that was not asked for is None."""

    choice: DeviceChoice | None = None
    probed: ProbeResult | None = None
    gemvs: Sequence[gemv.Row] | None = None
    errors: tuple[ErrorRow, ...] | Missing | None = None
    kernels: Sequence[encoders.Kernel] | None = None
    concats: Sequence[concat.Row] | None = None

    @property
    def contestants(self) -> list[Contestant]:
        """Everything that ran on the device."""
        found: list[Contestant | None] = []
        for pair in self.gemvs or ():
            found += [pair.e0m4, pair.int4]
        for kernel in self.kernels or ():
            found += [kernel.default, kernel.tuned]
        for row in self.concats or ():
            found += [row.default, row.tuned, row.copying]
        return [one for one in found if one is not None]

    @property
    def missing(self) -> str | None:
        """Why table 2 has nothing computed, where it was asked for."""
        return self.errors.why if isinstance(self.errors, Missing) else None

    @property
    def failed(self) -> int:
        """How many configurations have no time."""
        return sum(one.measurement.verdict is not Verdict.OK for one in self.contestants)


def needs_device(wanted: Sequence[str]) -> bool:
    """Whether any of these tables runs kernels."""
    return any(name not in _NO_DEVICE for name in wanted)


def measure(
    wanted: Sequence[str],
    choice: DeviceChoice | None,
    documents: Sequence[TunedConfig],
    compute: str = "fp32",
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> Found:
    """Measure the tables that are wanted; `tell` hears of each step. No `choice` is needed unless `needs_device`.

    Raises KilnError where the runner or the probe fails altogether, or a kernel's default cannot run on the device.
    """
    jobs = {name: encoders.jobs(name, compute) for name in encoders.INPUTS} if "3" in wanted else {}
    parts = {
        "1": len(gemv.SHAPES),
        "2": 1,
        "3": sum(map(len, jobs.values())),
        "kv": len(concat.MODELS) * len(concat.LENGTHS),
    }
    steps = _Steps(sum(parts[name] for name in set(wanted)) + needs_device(wanted), tell)
    errors = None
    if "2" in wanted:
        errors = weights.measure()
        steps()
    if choice is None or not needs_device(wanted):
        return Found(errors=errors)
    with Supervisor(choice.command, link=choice.link) as supervisor:
        probed = probe(supervisor, choice.sheet)
        steps()
        ground = Ground(Meter(supervisor, choice.sheet), choice, probed, documents, compute)
        for _, _, workload in (job for parts in jobs.values() for job in parts):
            ground.pair(workload)  # what cannot run is told before anything is measured, not after half of it
        return Found(
            choice,
            probed,
            gemv.measure(ground, steps) if "1" in wanted else None,
            errors,
            encoders.measure(ground, steps, jobs) if "3" in wanted else None,
            concat.measure(ground, steps) if "kv" in wanted else None,
        )


class _Steps:
    """Counts what is done."""

    def __init__(self, of: int, tell: Callable[[int, int], None]) -> None:
        self._of, self._tell, self._done = of, tell, 0

    def __call__(self) -> None:
        self._done += 1
        self._tell(self._done, self._of)


# ---------------------------------------------------------------- for people and programs


def text(found: Found) -> str:
    """The conditions, then each table."""
    parts = ["\n".join(_conditions(found))]
    device = found.choice.slug if found.choice else ""
    if found.gemvs is not None:
        parts.append(gemv.text(found.gemvs, device))
    if found.errors is not None:
        parts.append(weights.text(found.errors))
    if found.kernels is not None:
        parts.append(encoders.text(found.kernels, device))
    if found.concats is not None:
        parts.append(concat.text(found.concats, device))
    return "\n\n".join(parts)


def _conditions(found: Found) -> list[str]:
    lines = [f"{SOURCE}: its tables here, and as published"]
    if found.choice is None or found.probed is None:
        return lines
    said, rates = found.choice.description, found.probed.rates
    driver, compiler = versions(said)
    lines += [
        f"{found.choice.slug}: {said['name']} ({said['platform_name']}), driver {driver}, compiler {compiler}",
        f"probed: reads {gigabytes_per_second(rates.read_per_ns)}, copies {gigabytes_per_second(rates.copy_per_ns)} "
        "(read + written), "
        + ", ".join(f"{rate:.0f} GFLOPS {name}" for name, rate in sorted(rates.flops_per_ns.items()))
        + f", an empty kernel {time_text(rates.launch_ns)}",
    ]
    ran = [one for one in found.contestants if one.measurement.stats]
    rounds = sorted({one.measurement.stats.samples for one in ran if one.measurement.stats})
    if rounds:
        span = str(rounds[0]) if len(rounds) == 1 else f"{rounds[0]} to {rounds[-1]}"
        lines += [
            f"times: device events, the median of {span} interleaved rounds and its 95 % interval; " + _coldness(ran),
            "before it was timed, every configuration was held against NumPy (float64) on this shape and awkward ones",
            _clock([one.measurement.conditions for one in ran]),
        ]
    asked_half = any(one.candidate.workload.dtypes.compute == "fp16" for one in ran)
    if asked_half and not found.choice.sheet.has("cl_khr_fp16"):
        lines.append("arithmetic: fp16 was asked for, but the device has no cl_khr_fp16, so products are in fp32")
    return wrapped(lines)


def _coldness(ran: Sequence[Contestant]) -> str:
    """Of the matrix products' weights: those of a norm are too few to fill a cache with copies."""
    warm = [one for one in ran if one.candidate.workload.weights and not one.measurement.conditions.get("cold")]
    return f"weights of {len(warm)} products partly cached" if warm else "weights cold"


def _clock(conditions: Sequence[Mapping[str, Any]]) -> str:
    clocks = [one["clock_mhz"] for one in conditions if one.get("clock_mhz") is not None]
    why: Mapping[str, str] = next((one["why"] for one in conditions if one.get("why")), {})
    if clocks:
        return f"clock: {min(clocks):.0f} to {max(clocks):.0f} MHz, as read before each kernel"
    reason = next(
        (text for name, text in sorted(why.items()) if name.endswith("clock_mhz")), "the runner has no reading"
    )
    return f"clock: unavailable ({reason})"


def to_json(found: Found) -> dict[str, Any]:
    """For `--json`: only the tables that were asked for."""
    tables: dict[str, Any] = {}
    if found.gemvs is not None:
        tables["1"] = gemv.to_json(found.gemvs)
    if found.errors is not None:
        tables["2"] = weights.to_json(found.errors)
    if found.kernels is not None:
        tables["3"] = encoders.to_json(found.kernels)
    if found.concats is not None:
        tables["kv"] = concat.to_json(found.concats)
    return {
        "paper": SOURCE,
        "device": found.choice.slug if found.choice else None,
        "description": dict(found.choice.description) if found.choice else None,
        "probe": found.probed.to_json() if found.probed else None,
        "tables": tables,
    }
