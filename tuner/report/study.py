"""From files to a study: what the document says, with what the journal beside it can add."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import dropwhile
from typing import Any

import kernels
from harness.devices import sheet_from
from harness.errors import KilnError
from harness.records import Record
from kernels.identity import identify
from kernels.tuned import ConfigError, TunedConfig
from tuner import programs
from tuner.decisions import Decision, latest_study
from tuner.export import tuned_config
from tuner.report.models import parts_of, phases_of
from tuner.report.nouns import Measured, Predicted, Search, Study
from tuner.report.rows import kernels_of, order, unknown_sources
from tuner.report.searches import searches
from tuner.report.sources import Pair
from tuner.run import kiln_version


def study_of(pair: Pair) -> Study:
    """What a document and its journal tell. Raises KilnError naming the journal where its records make no sense."""
    notes: list[str] = []
    document = pair.document[1] if pair.document else None
    decided: list[Decision] = []
    found: list[Search] = []
    records: Sequence[Record] = ()
    if pair.journal is not None:
        path, contents = pair.journal
        records = list(dropwhile(lambda record: record["kind"] != "study", contents.records))
        try:
            made, decided = _finished(records, notes)
            found, unfinished = searches(records, decided)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise KilnError(f"{path}: it does not say what a journal of this Kiln says ({error!r:.80})") from error
        except KilnError as error:
            raise KilnError(f"{path}: {error}") from error
        if contents.damaged:
            lines = ", ".join(map(str, contents.damaged[:5])) + (", …" if len(contents.damaged) > 5 else "")
            notes.append(
                f"line {lines} of {path.name} cannot be read and is passed over: torn by a power loss or a kill"
            )
        if unfinished:
            notes.append(
                f"{unfinished} candidate(s) were begun and nothing came of them: the run was killed, or the machine "
                "went down, or it is running now"
            )
        if document is None:
            document = made
        elif made is None:
            notes.append("the journal beside the document has no finals of its own yet: the document is of another run")
    elif document is not None and document.evidence == "measured":
        notes.append(
            "there is no journal beside this document, so ratios have no intervals, and the search itself "
            "(convergence, importance, slices, failures) cannot be shown"
        )
    return _study(pair, document, decided, found, records, notes)


def _finished(records: Sequence[Record], notes: list[str]) -> tuple[TunedConfig | None, list[Decision]]:
    """The document that the journal would give, and its decisions; nothing before its finals."""
    try:
        study, finals = latest_study(records)
    except KilnError as error:
        notes.append(str(error))
        return None, []
    if gone := _gone(finals):
        notes.append(f"the journal's finals count for nothing here, as this Kiln has no {', '.join(gone)} any more")
        return None, []
    sheet = sheet_from(study["device"])
    try:
        decided = programs.decided(records, sheet)
        made = tuned_config(records, kiln_version())
    except KilnError as error:
        notes.append(f"the journal's finals give no document: {error}")
        return None, []
    if changed := unknown_sources(decided, study, records):
        notes.append(f"{changed} of {len(decided)} winners have other sources in this Kiln than those that ran")
    return made, decided


def _gone(finals: Sequence[Record]) -> list[str]:
    """Families and variants that ran in these finals and that this Kiln does not have."""
    ours = {name: {variant.name for variant in family.variants} for name, family in kernels.families().items()}
    ran = {(final["workload"]["family"], item["config"]["variant"]) for final in finals for item in final["finalists"]}
    return sorted(f"{family}/{variant}" for family, variant in ran if variant not in ours.get(family, ()))


def _study(
    pair: Pair,
    document: TunedConfig | None,
    decided: Sequence[Decision],
    found: Sequence[Search],
    records: Sequence[Record],
    notes: list[str],
) -> Study:
    last: dict[str, Any] = next((dict(r) for r in reversed(records) if r["kind"] == "study"), {})
    if document is not None:
        device, protocol, provenance = document.device, document.protocol, document.provenance
    else:
        device = identify(last["device"], sheet_from(last["device"]))
        protocol = {"id": last.get("protocol"), "probe": last.get("rates", {})}
        provenance = {"request": last.get("request", {}), "started": last.get("started")}
    request = provenance.get("request", {})
    parts, more = parts_of(request)
    notes += more
    measured: list[Measured] = []
    predicted: list[Predicted] = []
    if document is not None:
        try:
            measured, predicted, more = kernels_of(document, decided, parts)
        except (ConfigError, KeyError) as error:
            raise KilnError(f"{pair.files[0]}: {error}") from error
        notes += more
    measured.sort(key=order)
    predicted.sort(key=order)
    if document is not None and document.edited:
        notes.append(f"{pair.files[0]} was edited after it was written: its checksum does not fit")
    return Study(
        files=pair.files,
        device=device,
        document=document,
        measured=tuple(measured),
        predicted=tuple(predicted),
        searches=tuple(sorted(found, key=lambda s: (s.workload.family, s.workload.key))),
        phases=tuple(phases_of(request, measured)),
        models=tuple(request.get("models", ())),
        protocol=protocol,
        provenance=provenance,
        notes=tuple(notes),
    )
