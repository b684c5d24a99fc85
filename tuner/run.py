"""A tuning run from request to document: plan, study on the device, decide, write."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version
from pathlib import Path

from harness import ahead
from harness.devices import DeviceChoice, known_sheet, resolve
from harness.errors import KilnError
from harness.fitness import fit
from harness.hinted import hinted
from harness.journal import Journal
from harness.measure import Meter
from harness.supervisor import Supervisor
from kernels import tuned
from kernels.claims import contradictions
from kernels.plan import Planned, plan
from tuner import programs
from tuner.closing import Closing
from tuner.crew import Crew
from tuner.decisions import Decision
from tuner.export import tuned_config
from tuner.request import Request
from tuner.setting import Setting
from tuner.storages import shown
from tuner.study import Study

_ALONE = "nothing is built ahead"  # the journal's note that it must not be


def out_path(request: Request, device: DeviceChoice) -> Path:
    """Where the document goes."""
    return request.out or Path("results") / "local" / f"{device.slug}.json"


def journal_path(out: Path) -> Path:
    """The journal beside a document."""
    return out.with_suffix(".journal.jsonl")


def tune(request: Request, say: Callable[[str], None]) -> list[Decision]:
    """Carry out a request and write its document. Raises KilnError and its kin; everything finished is kept."""
    asked = hinted(resolve(request.device), priority=request.priority, performance=request.performance)
    with fit(asked, request.cool_below, request.lock_clocks) as device:
        return _tune(request, device, say)


def _tune(request: Request, device: DeviceChoice, say: Callable[[str], None]) -> list[Decision]:
    planned = planned_of(request, say)
    out = out_path(request, device)
    boot = device.link.boot if device.link else None
    with Journal(journal_path(out), retry_crashed=request.retry_crashed, boot=boot) as journal:
        _greet(journal, device, say)
        with (
            _crew(request, journal, say) as crew,
            ahead.opened(device, may_build_ahead(journal, crew, say)) as (command, builders),
            Supervisor(command, link=device.link) as supervisor,
        ):
            for hint, outcome in supervisor.hello().hints.items():
                say(f"{hint}: {outcome}")
            setting = Setting(request, device, journal, Meter(supervisor, device.sheet, builders), say, crew)
            study = Study(setting)
            probed = study.prepare(supervisor, planned)
            closing = Closing(setting, probed, study.search())
            closing.finals()
            closing.programs()
            closing.crossover()
            closing.deployment()
        config = tuned_config(journal.records, kiln_version())
        decided = programs.decided(journal.records, device.sheet)
    try:
        tuned.write(out, config)
    except OSError as error:
        raise KilnError(f"{out} cannot be written: {error.strerror}; the journal beside it holds the study") from error
    say(f"wrote {out}; its journal is {journal_path(out)}")
    return decided


def _crew(request: Request, journal: Journal, say: Callable[[str], None]) -> AbstractContextManager[Crew | None]:
    """This run among those that share its storage, or None for a run on its own."""
    if request.storage is None:
        return nullcontext()
    crew = Crew(request.storage, journal, retry_crashed=request.retry_crashed)
    say(f"sharing trials through {shown(request.storage)} as {crew.worker}")
    return crew


def may_build_ahead(journal: Journal, crew: Crew | None, say: Callable[[str], None]) -> bool:
    """Not where others, who may be timing on this machine, share the search; nor after it went down with builders."""
    if journal.doubted:
        say("note: the machine went down while programs were built ahead of a trial: nothing is built ahead any more")
        journal.note(_ALONE)
    return crew is None and all(note["text"] != _ALONE for note in journal.of_kind("note"))


def kiln_version() -> str:
    """The installed distribution's version; a checkout that was never installed has none."""
    try:
        return distribution_version("kiln-workbench")
    except PackageNotFoundError:
        return "checkout"


def planned_of(request: Request, say: Callable[[str], None]) -> list[Planned]:
    """The workloads of a request; says what the plan left out. Raises KilnError where there is nothing to do."""
    try:
        found = plan(
            request.models,
            formats=request.weights,
            act=request.act,
            compute=request.compute,
            cache=request.cache,
            families=request.kernels,
        )
    except ValueError as error:
        raise KilnError(str(error)) from error
    for note in found.notes:
        say(f"note: {note}")
    for note in programs.too_few(request.max_programs, found.items):
        say(f"note: {note}")
    if not len(found):
        raise KilnError(f"{', '.join(request.models)} gives {', '.join(request.kernels)} nothing to do")
    return list(found)


def _greet(journal: Journal, device: DeviceChoice, say: Callable[[str], None]) -> None:
    name = f"{device.description['name']} ({device.description['platform_name']})"
    say(f"tuning for {device.slug}: {name}")
    if sheet := known_sheet(device.description):
        for contradiction in contradictions(sheet, device.sheet):
            say(f"note: {contradiction}")
        for why in sorted({denied.why for denied in device.sheet.denied}):
            say(f"note: some configurations are left out for what this compiler gets wrong: {why}")
    if journal.damaged:
        say(f"line {', '.join(map(str, journal.damaged))} of the journal was torn and is passed over")
    if journal.lost:
        crashed = f"{len(journal.lost)} candidate(s) were running when the machine went down"
        say(f"{crashed}: they count as crashed; --retry-crashed tries them again")
