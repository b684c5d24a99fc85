"""The command line of the harness: `python -m harness doctor`, `probe`, `bench`, `validate`, `sanitize`, `tables`.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 device not there, 130 interrupted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

import kernels
from harness import bench, doctor, oclgrind, papers, sanitize, sheets, validate
from harness.devices import DeviceChoice, resolve
from harness.errors import DeviceMissing, KilnError, UsageError, ended
from harness.measure import Meter
from harness.probe import ProbeResult, Rate, probe
from harness.supervisor import Supervisor
from harness.tables import json_text, say, table, time_text
from kernels import tuned
from kernels.plan import FORMATS, plan
from kernels.sheet import load_sheet, sheet_names
from kernels.spec import Family
from kernels.tuned import TunedConfig

NOISY = 0.1  # a probed rate known no better than this is worth a second try


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code. Errors are one sentence on stderr."""
    args = _parser().parse_args(argv)
    verbs = {"doctor": _doctor, "probe": _probe, "bench": _bench, "validate": _validate, "sanitize": _sanitize}
    verbs |= {"tables": _tables}
    return ended(lambda: verbs[args.verb](args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m harness", description="Look at OpenCL devices and measure them.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    device = "auto, cpu, ocl:SUBSTRING, exec:'COMMAND' or a GPU model such as adreno750"
    look = verbs.add_parser("doctor", help="every platform and device, and what mends what is missing")
    look.add_argument("--device", metavar="D", help=f"this one alone: {device}; its sheet where it is not attached")
    limits = verbs.add_parser("probe", help="bandwidth, multiply-add rate and launch latency of a device")
    limits.add_argument("--device", metavar="D", default="auto", help=f"{device} (default %(default)s)")
    race = verbs.add_parser("bench", help="a model's workloads: default, tuned, % of the device's limit, NumPy")
    race.add_argument("--device", metavar="D", default="auto", help=f"{device} (default %(default)s)")
    race.add_argument("--model", action="append", metavar="M", help="repeatable (default gemma-2b)")
    race.add_argument("--kernels", metavar="A,B", help="families (default all)")
    race.add_argument("--weights", metavar="F,G", help="weight formats (default int4/g128,e0m4/g128)")
    race.add_argument("--act", default="fp16", choices=("fp16", "fp32"), help="activations (default %(default)s)")
    race.add_argument("--compute", default="fp32", choices=("fp32", "fp16", "int8"), help="(default %(default)s)")
    race.add_argument("--cache", default="fp16", choices=("fp16", "int8", "int4"), help="(default %(default)s)")
    race.add_argument("--config", action="append", type=Path, metavar="FILE", help="tuned configs (default: results/)")
    proof = verbs.add_parser("validate", help="every variant, format, policy and option against the reference")
    proof.add_argument("--device", metavar="D", default="auto", help=f"{device} (default %(default)s)")
    proof.add_argument(
        "--quick", action="store_true", help="each format, policy and option once, one configuration each"
    )
    watch = verbs.add_parser("sanitize", help="every variant under Oclgrind: memory, data races, uninitialised values")
    watch.add_argument("--install", action="store_true", help="install the package oclgrind where it is missing")
    paper = verbs.add_parser("tables", help="Transformer-Lite's tables on this device, beside the published ones")
    paper.add_argument("--device", metavar="D", default="auto", help=f"{device} (default %(default)s)")
    paper.add_argument("--table", action="extend", nargs="+", choices=papers.TABLES, help="kv: figure 3 (default all)")
    paper.add_argument("--config", action="append", type=Path, metavar="FILE", help="tuned configs (default: results/)")
    paper.add_argument("--compute", default="fp32", choices=("fp32", "fp16"), help="arithmetic (default %(default)s)")
    for verb in (proof, watch):
        verb.add_argument("--kernels", metavar="A,B", help="families (default all)")
    for verb in (look, limits, race, proof, watch, paper):
        verb.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _doctor(args: argparse.Namespace) -> None:
    try:
        only = resolve(args.device) if args.device else None
    except DeviceMissing as missing:
        if args.device not in sheet_names():
            raise
        sheet = load_sheet(args.device)
        say(json_text(sheets.to_json(sheet)) if args.json else sheets.text(sheet, str(missing)))
        return
    report = doctor.examine(only)
    say(json_text(report.to_json()) if args.json else doctor.text(report))
    if not report.devices:
        raise DeviceMissing("no OpenCL device; " + "; ".join(f"{m.what}: {m.remedy}" for m in report.missing))


def _probe(args: argparse.Namespace) -> None:
    choice = resolve(args.device)
    with Supervisor(choice.command) as supervisor:
        found = probe(supervisor, choice.sheet)
    if args.json:
        say(json_text({"device": choice.slug, "description": dict(choice.description), "probe": found.to_json()}))
    else:
        say(probe_text(choice, found))


def _bench(args: argparse.Namespace) -> None:
    try:
        planned = plan(
            args.model or ["gemma-2b"],
            formats=args.weights.split(",") if args.weights else FORMATS,
            act=args.act,
            compute=args.compute,
            cache=args.cache,
            families=args.kernels.split(",") if args.kernels else None,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    choice = resolve(args.device)
    documents = [_document(path) for path in args.config or bench.documents(choice)]
    with Supervisor(choice.command) as supervisor:
        probed = probe(supervisor, choice.sheet)
        steps = bench.lines(Meter(supervisor, choice.sheet), choice, probed, list(planned), documents)
        found = list(tqdm(steps, total=len(planned), disable=None, unit="workload"))
    say(json_text(bench.to_json(choice, found)) if args.json else bench.text(choice, found))


def _document(path: Path) -> TunedConfig:
    try:
        return tuned.load(path)
    except (OSError, ValueError) as error:
        raise KilnError(str(error)) from error


def _validate(args: argparse.Namespace) -> None:
    families = _families(args.kernels)
    with _progress("candidate") as tell:
        report = validate.validate(resolve(args.device), families, quick=args.quick, tell=tell)
    say(json_text(report.to_json()) if args.json else validate.text(report))
    if not report.candidates:
        raise KilnError("nothing was checked: this device runs none of the variants")
    if report.failures:
        raise KilnError(f"{report.failures} of {report.candidates} candidates failed on {report.device}")


def _sanitize(args: argparse.Namespace) -> None:
    families = _families(args.kernels)
    oclgrind.require(install=args.install)
    with _progress("variant") as tell:
        report = sanitize.sanitize(families, tell=tell)
    say(json_text(report.to_json()) if args.json else sanitize.text(report))
    if report.findings or report.unproven:
        raise KilnError(f"{report.findings} findings, {len(report.unproven)} variants clean in no form")


def _tables(args: argparse.Namespace) -> None:
    wanted = args.table or papers.TABLES
    choice = resolve(args.device) if papers.needs_device(wanted) else None
    documents = [_document(path) for path in args.config or (bench.documents(choice) if choice else [])]
    with _progress("step") as tell:
        found = papers.measure(wanted, choice, documents, args.compute, tell)
    say(json_text(papers.to_json(found)) if args.json else papers.text(found))
    if found.failed:
        raise KilnError(f"{found.failed} of {len(found.contestants)} configurations have no time; the notes say why")
    if found.missing and args.table:
        raise KilnError(found.missing)


def _families(names: str | None) -> list[Family]:
    """The families that a comma-separated list names, all of them for None. Raises UsageError naming the choices."""
    known = kernels.families()
    wanted = names.split(",") if names is not None else list(known)
    if unknown := [name for name in wanted if name not in known]:
        raise UsageError(f'unknown kernel "{unknown[0]}"; choose from {", ".join(sorted(known))}')
    return [known[name] for name in dict.fromkeys(wanted)]


@contextmanager
def _progress(unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr where that is a terminal; yields what to call with (done, of)."""
    with tqdm(disable=None, unit=unit) as bar:

        def tell(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        yield tell


def probe_text(choice: DeviceChoice, found: ProbeResult) -> str:
    """A probe's figures as a table, and notes on what they are worth."""
    rows = [_row("read, cold" if found.cold else "read, partly cached", found.read, "GB/s")]
    rows.append(_row("copy (read + written)", found.copy, "GB/s"))
    rows += [_row(f"multiply-add {name}", rate, "GFLOPS") for name, rate in sorted(found.madd.items())]
    rows.append(["empty kernel, device time", time_text(found.launch_ns), "", ""])
    rows.append(["empty kernel in a batch", time_text(found.launch_wall_ns), "", ""])
    rows.append(["timer resolution, reported", time_text(found.timer_reported_ns), "", ""])
    rows.append(["timer step, seen", time_text(found.timer_seen_ns), "", ""])
    lines = [f"{choice.slug}: {choice.description['name']} ({choice.description['platform_name']})"]
    lines.append(table(["limit", "median", "95 % interval", "best way"], rows))
    for name, rate in {"read": found.read, "copy": found.copy, **found.madd}.items():
        if rate.spread > NOISY:
            lines.append(f"note: {name} varies by ±{100 * rate.spread:.0f} %: run again when the machine is quiet")
    lines += [f"note: {failure}" for failure in found.failures]
    return "\n".join(lines)


def _row(name: str, rate: Rate, unit: str) -> list[str]:
    low, high = rate.interval
    return [name, f"{rate.per_ns:.1f} {unit}", f"{low:.1f} to {high:.1f}", str(rate.kernel)]
