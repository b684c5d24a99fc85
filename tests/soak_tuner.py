"""`python soak_tuner.py [ahead] OPTIONS…`: the tuner's own command line on steady_runner.py, whose answers stay.

That runner computes nothing, so every result counts as right; and the probe is told what a device can do. With `ahead`
there are builders beside it.
"""

import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import harness.ahead
import harness.contest
import harness.measure
import tuner.opening
import tuner.run
import tuner.study
from harness.devices import DeviceChoice, resolve
from harness.probe import ProbeResult, Rate
from harness.probe_kernels import ProbeKernel
from kernels.jobs import dtype_policy
from kernels.plan import Plan, Planned
from kernels.spec import Errors, Tolerance, Workload
from tuner.cli import main

DEVICE = f"exec:{shlex.join([sys.executable, str(Path(__file__).parent / 'steady_runner.py')])}"
RATE = Rate(40.0, (39.0, 41.0), ProbeKernel("read_own", width=8, items=64, amount=4))
PROBED = ProbeResult(RATE, RATE, {"fp32": RATE}, 200.0, 2000.0, 1, 180, True, ())
SIZES = ((512, 512), (96, 1024))
RIGHT = Errors(1e-9, 1e-6, Tolerance(1e-6, 1e-3), ("M=1",))


def plan(*_: Any, **__: Any) -> Plan:
    items = []
    for n, k in SIZES:
        job = Workload("gemv_decode", {"M": 1, "N": n, "K": k}, dtype_policy("fp16", "fp32", "int4/g128"), "int4/g128")
        items.append(Planned(job, 18, n * k // 2, 0.5))
    return Plan(tuple(items), ())


def keeping(name: str) -> DeviceChoice:
    """The device as one that has builders."""
    return replace(resolve(name), python_runner=True)


if __name__ == "__main__":
    options = sys.argv[1:]
    if options[0] == "ahead":
        del options[0]
        harness.ahead._PLATFORMS = {"Paper": True}
        os.sched_getaffinity = lambda process: {0, 1}
        tuner.run.resolve = keeping
    tuner.run.plan = plan
    tuner.opening.probe = lambda supervisor, sheet: PROBED
    harness.measure.check = harness.contest.check = lambda bench, candidate: RIGHT
    sys.exit(main(["--device", DEVICE, "--kernels", "gemv_decode", *options]))
