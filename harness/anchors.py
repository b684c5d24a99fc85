"""Fixed kernels that run beside what is measured, round by round, so that its limits are of the same minutes.

They are the probe's own best ways to read, to copy and to multiply, and an empty kernel.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np

from harness import timing
from harness.answers import Refused, RunnerLost
from harness.probe import ProbeResult, Rates
from harness.probe_kernels import ProbeBed, ProbeKernel
from harness.supervisor import Supervisor

SAMPLES = 3
LAUNCH_SAMPLES = 25  # of an empty kernel, which takes next to nothing


class Anchors:
    """The anchors of one contest or profile, and what each took in every complete round."""

    def __init__(self, supervisor: Supervisor, probe: ProbeResult, compute: str, *, copy: bool) -> None:
        """`compute` chooses the arithmetic of the multiply-add anchor; `copy` asks for one that writes as well."""
        self._probe = probe
        madd = probe.madd.get(compute, probe.madd["fp32"])
        self._madd = next(name for name, rate in probe.madd.items() if rate is madd)
        # An empty kernel takes 0.3 to 3 µs on PoCL, by what else the machine does: a probe minutes ago tells little.
        self._kernels: dict[str, ProbeKernel] = {
            "read": probe.read.kernel,
            "madd": madd.kernel,
            "launch": ProbeKernel("nothing"),
        }
        if copy:
            self._kernels["copy"] = probe.copy.kernel
        self.rounds_ns: dict[str, list[float]] = {name: [] for name in self._kernels}
        self._bed = ProbeBed(supervisor)

    def time(self) -> dict[str, float] | None:
        """Time of each anchor, not kept yet; None, and one anchor less, when one fails."""
        found = {}
        for name, kernel in self._kernels.items():
            try:
                samples = LAUNCH_SAMPLES if name == "launch" else SAMPLES
                run = self._bed.run(kernel, samples=samples, warmup=1)
            except (Refused, RunnerLost):
                self._leave_out(name)
                return None
            if timing.invalid(run.samples_ns):
                self._leave_out(name)
                return None
            found[name] = float(np.median(timing.durations(run.samples_ns)))
        return found

    def keep(self, times_ns: dict[str, float]) -> None:
        """Count a round that is complete."""
        for name, anchor_ns in times_ns.items():
            self.rounds_ns[name].append(anchor_ns)

    def _leave_out(self, name: str) -> None:
        del self._kernels[name]
        self.rounds_ns[name] = []

    def rates(self) -> Rates:
        """The probe's rates, those of anchors replaced by what they reached beside what was measured."""
        rates = self._probe.rates
        times = {name: float(np.median(rounds_ns)) for name, rounds_ns in self.rounds_ns.items() if rounds_ns}
        launch_ns = times.pop("launch", rates.launch_ns)
        seen = {name: self._kernels[name].work / ns for name, ns in times.items()}
        return replace(
            rates,
            read_per_ns=seen.get("read", rates.read_per_ns),
            copy_per_ns=seen.get("copy", rates.copy_per_ns),
            flops_per_ns={**rates.flops_per_ns, self._madd: seen.get("madd", rates.flops_per_ns[self._madd])},
            launch_ns=launch_ns,
        )

    def drop(self) -> None:
        """Free their memory."""
        with contextlib.suppress(Refused, RunnerLost):
            self._bed.drop()
