"""The document and the table of a run without its device: predicted times, never beside measured ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import kernels
from harness.errors import KilnError
from harness.journal import Journal
from harness.tables import table, time_text
from kernels import tuned
from kernels.claims import deny_rules
from kernels.entry import make_entry
from kernels.tuned import Bucket, Entry, KernelSection, Match, TunedConfig
from tuner import absent, matmul
from tuner.absent import Claim, Foreseen, Ranked
from tuner.crossover import at
from tuner.export import buckets, entry_id, verification
from tuner.predict import predict
from tuner.proofs import Proofs
from tuner.proving import Proof, Prover
from tuner.request import Request
from tuner.run import journal_path, kiln_version, planned_of


def tune(request: Request, why: str, say: Callable[[str], None]) -> list[Foreseen]:
    """Carry out a request without its device, and write its document. Raises KilnError and its kin."""
    absent.check(request)
    claim = Claim.of(request.device)
    hosts = absent.provers()
    choices = [host.slug for host in hosts]
    say(absent.first_line(claim, why, choices))
    out = request.out or absent.default_out(claim)
    with Journal(journal_path(out)) as journal, Prover(hosts, claim.sheet) as prover:
        proofs = Proofs(prover, journal, claim.sheet, hosts, retry_crashed=request.retry_crashed)
        if len(proofs):
            say(f"resuming {journal.path}: what is proven there is not proven again")
        found = absent.foresee(request, claim, planned_of(request, say), proofs, say)
    try:
        tuned.write(out, document(request, claim, found, choices))
    except OSError as error:
        raise KilnError(f"{out} cannot be written: {error.strerror}") from error
    say(f"wrote {out}; every entry is predicted")
    return found


def document(request: Request, claim: Claim, found: Sequence[Foreseen], choices: Sequence[str]) -> TunedConfig:
    """The tuned config."""
    sections = {}
    for name, family in kernels.families().items():
        mine = [one for one in found if one.workload.family == name]
        if mine:
            entries = _entries(mine, claim)
            sections[name] = KernelSection(family.abi, tuple(entries), entries[0].id, deny_rules(claim.sources, name))
    routes = matmul.routes(crossings(found, claim), tuple(sections))
    return TunedConfig(
        device=claim.facts,
        protocol=absent.protocol(claim, choices),
        provenance={"generator": f"kiln-workbench {kiln_version()}", "request": request.as_json()},
        ops={"matmul": routes} if routes else {},
        kernels=sections,
    )


def _entries(found: Sequence[Foreseen], claim: Claim) -> list[Entry]:
    groups: dict[str, list[Foreseen]] = {}
    for one in found:
        groups.setdefault(str(Match.of(one.workload, one.job.space.family)), []).append(one)
    entries, spare = [], []
    for group in groups.values():
        for one, bucket in zip(group, buckets([other.workload for other in group], {}), strict=True):
            name = entry_id(one.workload)
            (winner, *others) = one.chosen
            more = [_entry(one, *other, f"{name}-alt{i}", None, claim) for i, other in enumerate(others, 1)]
            best = _entry(one, *winner, name, bucket, claim)
            entries.append(replace(best, alternates=tuple(entry.id for entry in more)))
            spare += more
    return entries + spare


def _entry(one: Foreseen, ranked: Ranked, proof: Proof, name: str, bucket: Bucket | None, claim: Claim) -> Entry:
    return make_entry(
        one.job.space.family,
        one.workload,
        ranked.config,
        claim.sheet,
        id=name,
        bucket=bucket,
        verification=verification(proof.errors, proof.on),
        prediction=ranked.predicted.prediction,
    )


def crossings(found: Sequence[Foreseen], claim: Claim) -> list[Mapping[str, Any]]:
    """Predicted times of GEMV's and GEMM's winners at row counts that both serve, as `tuner.matmul` reads measured."""
    winners = [one.candidate(one.chosen[0][0]) for one in found]
    notes: list[Mapping[str, Any]] = []
    for pair in matmul.rivals(winners):
        for rows in matmul.ROWS:
            times: dict[str, list[float]] = {}
            for name, side in ((matmul.FEW, pair.few), (matmul.MANY, pair.many)):
                moved = [there for one in side if (there := at(one, {"M": rows}, claim.sheet))]
                costs = [predict(c.family, c.workload, c.config, claim.sheet, claim.peaks).ns for c in moved]
                if costs:
                    times[name] = [min(costs)]
            if len(times) == 2:
                notes.append({"weights": pair.workload.weights, "rows": rows, "samples_ns": times})
    return notes


# ---------------------------------------------------------------- for people


def rows(found: Sequence[Foreseen]) -> list[dict[str, Any]]:
    """One record a workload, in numbers."""
    return [
        {
            "family": one.workload.family,
            "workload": one.workload.key,
            "label": one.workload.label,
            "predicted_ns": winner.cost_ns,
            "default_predicted_ns": one.default.cost_ns,
            "limited_by": winner.predicted.limited_by,
            "winner": str(one.candidate(winner)).partition("/")[2],
            "proven_on": proof.on.device,
            "alternates": len(one.chosen) - 1,
        }
        for one in found
        for winner, proof in one.chosen[:1]
    ]


def summary(found: Sequence[Foreseen]) -> str:
    """A table for people, and a sentence that keeps it from being taken for measurements."""
    lines = [
        [
            record["family"],
            f"{record['label']} {'×'.join(map(str, one.workload.dims.values()))}".strip(),
            one.workload.weights or one.workload.dtypes.cache or one.workload.dtypes.act,
            time_text(record["default_predicted_ns"]),
            time_text(record["predicted_ns"]),
            record["limited_by"],
            record["winner"].partition(" ")[0],
            record["proven_on"],
        ]
        for one, record in zip(found, rows(found), strict=True)
    ]
    heads = ["family", "workload", "stored", "default", "chosen", "limited by", "variant", "proven on"]
    return table(heads, lines) + "\nThese times are predictions: nobody has measured them on this device."
