"""`python -m tuner retune FILE --delta`: after a driver update, is what the document says still so?

Of every entry the winner, its runners-up and the default run again as finalists: checked, interleaved, beside anchors.
The same rules decide as in a whole run, and a new document says what they decided. `tuner.delta` says what keep,
changed and suspicious mean.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from harness import fitness
from harness.devices import DeviceChoice, resolve
from harness.errors import KilnError, UsageError
from harness.fitness import fit
from harness.hinted import hinted
from harness.journal import Journal
from harness.measure import Meter
from harness.records import read
from harness.supervisor import Supervisor
from harness.tables import json_text, say, table, time_text
from kernels import tuned
from kernels.identity import identify
from kernels.tuned import KernelSection, TunedConfig
from tuner import programs
from tuner.decisions import Decision
from tuner.delta import ENDED, Delta, Finding, judge
from tuner.export import tuned_config
from tuner.request import Request, add_arguments, from_arguments
from tuner.run import journal_path, kiln_version
from tuner.setting import Setting
from tuner.veterans import veterans

TOP = 2  # runners-up of an entry that are measured with it
HEADERS = ("entry", "stored", "was", "now", "% of limit", "state", "winner", "why")


def main(words: Sequence[str]) -> None:
    """The command. Raises KilnError, after all is written, where an entry is suspicious."""
    parser = argparse.ArgumentParser(
        prog="python -m tuner retune",
        description="Measure the best few of every entry again, and say what a driver update has changed.",
        epilog="Exit code 1 where an entry is suspicious; the new document is written all the same.",
    )
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="a tuned config; the journal beside it tells more runners-up")
    add("--delta", action="store_true", help="only what FILE holds; for a whole search use python -m tuner")
    add("--top", type=int, default=TOP, metavar="N", help="runners-up of each entry (default %(default)s)")
    add("--device", metavar="D", help="default: as FILE was made")
    fitness.add_arguments(parser)
    add("--out", type=Path, metavar="F", help="the new document (default FILE with .retuned.json); may be FILE itself")
    add("--json", action="store_true", help="print the table as JSON on stdout")
    args = parser.parse_args(words)
    if not args.delta:
        raise UsageError("retune needs --delta: the best few of each entry; python -m tuner searches anew")
    if args.top < 0:
        raise UsageError(f"--top must be at least 0, not {args.top}")
    if not args.file.exists():
        raise UsageError(f"{args.file} is not there; make it with python -m tuner --out {args.file}")
    out = args.out or args.file.with_suffix(".retuned.json")
    if out.is_dir() or out.suffix != ".json":
        raise UsageError(f"--out must name a .json file, not {out}")
    found = retune(
        args.file, out, args.top, args.device, _to_stderr if args.json else say, args.cool_below, args.lock_clocks
    )
    say(json_text([_row(finding) for finding in found]) if args.json else _table(found))
    if bad := [finding.veteran.entry.id for finding in found if finding.state == "suspicious"]:
        raise KilnError(f"{len(bad)} of {len(found)} entries are suspicious; python -m tuner searches them anew")


def retune(
    file: Path,
    out: Path,
    top: int,
    device_name: str | None,
    say: Callable[[str], None],
    cool_below: float | None = None,
    lock_clocks: float | None = None,
) -> list[Finding]:
    """Measure, decide and write; one finding per entry. Raises KilnError; what was measured stays in the journal."""
    try:
        document = tuned.load(file)
    except ValueError as error:
        raise KilnError(str(error)) from error
    request = _request(document)
    asked = hinted(resolve(device_name or request.device), priority=request.priority, performance=request.performance)
    with fit(asked, cool_below, lock_clocks) as device:
        return _retune(file, out, top, document, request, device, say)


def _retune(
    file: Path,
    out: Path,
    top: int,
    document: TunedConfig,
    request: Request,
    device: DeviceChoice,
    say: Callable[[str], None],
) -> list[Finding]:
    _same_device(document, device, file)
    say(f"{device.slug}: driver {_driver(document, device)}")
    if document.edited:
        say(f"note: {file} was edited after it was written")
    past = read(journal_path(file)).records
    old = veterans(document, past, device.sheet, top)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    with Journal(journal_path(out)) as journal:
        with Supervisor(device.command, link=device.link) as supervisor:
            setting = Setting(request, device, journal, Meter(supervisor, device.sheet), say)
            study = Delta(setting, supervisor, document, past, digest, top)
            lost = [study.measure(veteran) for veteran in old]
            finals = study.finals_of_this()
            decided = {d.workload.key: d for d in programs.decided(journal.records, device.sheet)} if finals else {}
            found = [
                judge(one, why, decided.get(one.workload.key), study.slower) for one, why in zip(old, lost, strict=True)
            ]
            if not decided:
                raise KilnError(f"no default of {file} works on this driver: suspect the device before the document")
            study.deployment()
        made = tuned_config(journal.records, kiln_version())
        made = replace(made, protocol={**made.protocol, "probe": study.rates()})
        _write(out, _renewed(made, document, digest, found), journal)
    say(f"wrote {out}; its journal is {journal_path(out)}")
    return found


def _request(document: TunedConfig) -> Request:
    """What the document was made for, as far as it tells."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    usual = from_arguments(parser.parse_args([]))
    told = document.provenance.get("request", {})
    names = {field.name for field in fields(Request)} & set(told)
    given: dict[str, Any] = {name: tuple(told[name]) if isinstance(told[name], list) else told[name] for name in names}
    return replace(usual, **given)


def _same_device(document: TunedConfig, device: DeviceChoice, file: Path) -> None:
    live = identify(device.description, device.sheet)
    if (live.vendor, live.model) != (document.device.vendor, document.device.model):
        raise KilnError(
            f"{file} is for {document.device.vendor} {document.device.model}, and this is {live.vendor} {live.model}; "
            "tune it with python -m tuner"
        )


def _driver(document: TunedConfig, device: DeviceChoice) -> str:
    live, old = identify(device.description, device.sheet), document.device
    before, now = (f"{facts.driver} (compiler {facts.compiler})" for facts in (old, live))
    return f"{now}, as before" if before == now else f"{now}, was {before}"


def _renewed(made: TunedConfig, document: TunedConfig, digest: str, found: Sequence[Finding]) -> TunedConfig:
    """The new document: what was not measured again (which family serves how many rows) is as it was."""
    retuned = {
        "of": digest,
        "driver_before": document.device.driver,
        "compiler_before": document.device.compiler,
        "states": {finding.veteran.entry.id: finding.state for finding in found},
    }
    kept = {name: document.provenance[name] for name in ("verdicts",) if name in document.provenance}
    ops = {op: tuple(route for route in routes if route.kernel in made.kernels) for op, routes in document.ops.items()}
    sections = {name: _edges(section, document.kernels[name]) for name, section in made.kernels.items()}
    return replace(made, ops=ops, kernels=sections, provenance={**made.provenance, **kept, "retuned": retuned})


def _edges(made: KernelSection, before: KernelSection) -> KernelSection:
    """The buckets as they were, some of which end where two kernels were measured to meet; new ones where an entry is
    missing, as there may be no gap."""
    old = {entry.id: entry.bucket for entry in before.entries if entry.bucket is not None}
    if {entry.id for entry in made.entries if entry.bucket is not None} != set(old):
        return made
    entries = tuple(replace(one, bucket=old[one.id]) if one.bucket is not None else one for one in made.entries)
    return replace(made, entries=entries)


def _write(out: Path, config: TunedConfig, journal: Journal) -> None:
    try:
        tuned.write(out, config)
    except OSError as error:
        raise KilnError(f"{out} cannot be written: {error.strerror}; the journal beside it holds the study") from error
    journal.note(ENDED)


def _row(finding: Finding) -> dict[str, Any]:
    """Numbers for `--json`: times in ns."""
    entry, decision = finding.veteran.entry, finding.decision
    now = decision.winner.finalist if decision else None
    return {
        "entry": entry.id,
        "kernel": finding.veteran.workload.family,
        "state": finding.state,
        "why": finding.why,
        "was_ns": entry.stats.median_ns if entry.stats else None,
        "was_percent_of_limit": entry.stats.percent_of_limit if entry.stats else None,
        "now_ns": now.median_ns if now else None,
        "now_percent_of_limit": _percent(decision),
        "winner": str(now.candidate).partition("/")[2] if now else None,
    }


def _percent(decision: Decision | None) -> float | None:
    if decision is None:
        return None
    return float(100 * decision.final.facts["limit"]["ns"] / decision.winner.finalist.median_ns)


def _table(found: Sequence[Finding]) -> str:
    lines = []
    for finding in found:
        row: Mapping[str, Any] = _row(finding)
        workload = finding.veteran.workload
        before, now = row["was_percent_of_limit"], row["now_percent_of_limit"]
        percent = " → ".join("–" if value is None else f"{value:.0f}" for value in (before, now))
        name = f"{workload.family} " + "×".join(str(size) for size in workload.dims.values())
        stored = workload.weights or workload.dtypes.cache or workload.dtypes.act
        times = (time_text(row["was_ns"]), time_text(row["now_ns"]))
        lines.append((name, stored, *times, percent, finding.state, row["winner"], finding.why))
    return table(HEADERS, lines)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)
