"""`python -m tuner record`: measure every configuration of a small space once, so that a search can be judged on it.

The file is what `python -m tuner replay` reads (`tuner.recorded`). Configurations come in random order, each beside the
space's default, so that neither a warm device nor a slow spell favours a corner; times are at the default's pace. The
file has the device's probe too, so that `python -m tuner judge` can tell what the cost model is worth.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import kernels
from harness import fitness
from harness.candidate import Candidate
from harness.devices import DeviceChoice, resolve
from harness.errors import DeviceMissing, KilnError, UsageError
from harness.fitness import fit
from harness.journal import PROTOCOL, Journal, plain, trial_key
from harness.measure import Meter
from harness.probe import ProbeResult
from harness.racing import Rival
from harness.supervisor import Supervisor
from harness.tables import say
from kernels.space import Space
from kernels.spec import Config, Measurement, Verdict, Workload
from tuner.opening import opened
from tuner.run import journal_path, kiln_version
from tuner.wanted import add_workload, value, workload_of

MOST = 5_000  # configurations; a larger space is named too widely
BUDGET_S = 0.3  # of sampling each
_NEVER_NS = 1e15  # an incumbent that nobody is slower than: nothing is abandoned


@dataclass(frozen=True)
class Slice:
    """One variant of a space, with some of its parameters fixed; a space as a search sees it."""

    whole: Space
    variant: str
    fixed: Mapping[str, Any]

    def configs(self) -> Iterator[dict[str, Any]]:
        """Every legal configuration of the slice, in the whole space's order."""
        return (config for config in self.whole.configs() if self._has(config))

    def reject(self, config: Config) -> str | None:
        """Why a configuration is not in the slice, or None."""
        return self.whole.reject(config) or (None if self._has(config) else "the configuration is in the slice")

    def draw(self, rng: np.random.Generator) -> dict[str, Any] | None:
        """A random configuration, None where one of the whole space is not in the slice."""
        config = self.whole.draw(rng)
        return config if config and self._has(config) else None

    def _has(self, config: Config) -> bool:
        return config["variant"] == self.variant and all(config[name] == fixed for name, fixed in self.fixed.items())


def main(words: Sequence[str]) -> None:
    """The command. Raises UsageError and KilnError; what was measured is in the journal beside the file."""
    parser = argparse.ArgumentParser(
        prog="python -m tuner record",
        description="Measure every configuration of one variant, for python -m tuner replay.",
        epilog="Interrupted, the same command goes on where it stopped.",
    )
    add = parser.add_argument
    add("--device", default="auto", metavar="D", help="as for python -m tuner (default %(default)s)")
    add("--variant", metavar="V", help="the variant (default: the family's default one)")
    add("--fix", action="append", default=[], metavar="P=V", help="a parameter that stays at one value, repeatable")
    add("--seed", type=int, default=0, metavar="N", help="of the order (default %(default)s)")
    fitness.add_arguments(parser)
    add("--out", type=Path, required=True, metavar="F", help="the file, ….npz")
    add_workload(parser)
    args = parser.parse_args(words)
    if args.out.suffix != ".npz" or args.out.is_dir():
        raise UsageError(f"--out must name a .npz file, not {args.out}")
    workload = workload_of(args)
    with fit(resolve(args.device), args.cool_below, args.lock_clocks) as device:
        space = part(workload, device, args.variant, args.fix)
        record(space, device, args.out, np.random.default_rng(abs(args.seed)), say)


def part(workload: Workload, device: DeviceChoice, variant: str | None, fix: Sequence[str]) -> Slice:
    """The slice that the words name. Raises UsageError for what the family does not have."""
    family = kernels.families()[workload.family]
    for rule in family.workload_rules:
        if not rule.holds({}, workload, device.sheet):
            raise UsageError(f"{workload.key} is outside {family.name}: not so that {rule.why}")
    name = variant or str(family.default(workload, device.sheet)["variant"])
    names = [one.name for one in family.variants]
    if name not in names:
        raise UsageError(f'unknown variant "{name}"; choose from {", ".join(names)}')
    params, fixed = family.variant(name).params, {}
    for word in fix:
        param, _, text = word.partition("=")
        if param not in params:
            raise UsageError(f'{name} has no parameter "{param}"; it has {", ".join(params)}')
        if value(text) not in params[param]:
            raise UsageError(f"{param} is one of {', '.join(map(str, params[param]))}, not {text}")
        fixed[param] = value(text)
    return Slice(Space(family, workload, device.sheet), name, fixed)


def record(space: Slice, device: DeviceChoice, out: Path, rng: np.random.Generator, say: Callable[[str], None]) -> None:
    """Measure the slice and write it. Raises UsageError for one that is empty or too large, KilnError as a run does."""
    configs = []
    for config in space.configs():
        configs.append(config)
        if len(configs) > MOST:
            raise UsageError(f"more than {MOST} configurations; fix more parameters with --fix")
    if not configs:
        raise UsageError(f"{device.slug} can run no such configuration of {space.variant}")
    family, workload = space.whole.family, space.whole.workload
    usual = family.default(workload, device.sheet)
    first = usual if space.reject(usual) is None else configs[0]
    order = [first, *(configs[i] for i in rng.permutation(len(configs)) if configs[i] != first)]
    found: list[Measurement] = []
    rival: Rival | None = None
    boot = device.link.boot if device.link else None
    with (
        Journal(journal_path(out), boot=boot) as journal,
        Supervisor(device.command, link=device.link) as supervisor,
    ):
        asked = {"record": workload.key, "variant": space.variant, **space.fixed}
        probed = opened(journal, supervisor, device, asked, say)
        meter = Meter(supervisor, device.sheet)
        for done, config in enumerate(order):
            candidate = Candidate(family, workload, config)
            measurement = _measured(journal, meter, candidate, device, rival)
            if rival is None:
                if measurement.stats is None:
                    raise KilnError(f"{candidate} ended as {measurement.verdict}: nothing to measure the others beside")
                rival = Rival(candidate, measurement.stats.median_ns, _NEVER_NS)
            found.append(measurement)
            if done % 50 == 49 or done + 1 == len(order):
                say(f"{done + 1} of {len(order)} configurations")
    if lost := sum(one.verdict is Verdict.WORKER_LOST for one in found):
        raise KilnError(
            f"{lost} configurations lost their runner, which says nothing of them: run the same command again"
        )
    _write(out, space, device, probed, order, found)
    best = min(zip(map(_cost_ns, found), map(str, order), strict=True))
    say(f"wrote {out}: {len(order)} configurations, the fastest {best[0] / 1e3:.1f} µs: {best[1]}")


def _measured(
    journal: Journal, meter: Meter, candidate: Candidate, device: DeviceChoice, rival: Rival | None
) -> Measurement:
    key = trial_key(candidate, device.description)
    if (known := journal.lookup(key)) is not None:
        return known
    meter.bench.supervisor.settle()
    journal.begin(key, candidate)
    try:
        measurement = meter.measure(candidate, budget_s=BUDGET_S, rival=rival)
    except DeviceMissing:  # as in tuner.study
        raise
    except BaseException:  # Ctrl-C or a full disk: not the candidate's fault
        journal.interrupted(key)
        raise
    journal.trial(key, candidate, measurement)
    return measurement


def _cost_ns(measurement: Measurement) -> float:
    return measurement.stats.median_ns / measurement.pace if measurement.stats else math.inf


def _write(
    out: Path,
    space: Slice,
    device: DeviceChoice,
    probed: ProbeResult,
    order: Sequence[Config],
    found: Sequence[Measurement],
) -> None:
    names = [name for name in order[0] if name != "variant"]
    params = {name: sorted({config[name] for config in order}) for name in names}
    index = [[params[name].index(config[name]) for name in names] for config in order]
    times = [_cost_ns(one) / 1e6 if one.verdict is Verdict.OK else math.nan for one in found]
    meta = {
        "params": params,
        "variant": space.variant,
        "workload": space.whole.workload.key,
        "device": dict(device.description),
        "probe": probed.to_json(),
        "protocol": f"kiln-{PROTOCOL}",
        "kiln": kiln_version(),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        np.savez_compressed(
            out, meta=json.dumps(meta, default=plain), index=np.array(index, np.uint16), time_ms=np.array(times)
        )
    except OSError as error:
        raise KilnError(f"{out} cannot be written: {error.strerror}; the journal beside it holds the trials") from error
