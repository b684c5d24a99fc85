"""Proofs that outlive the run that made them: each is in the journal before the next candidate is tried.

Proving a model's kernels on a CPU takes minutes; a run that was stopped goes on where it was. A proof holds for one
program, schedule and workload, the limits it was held to, and the devices, with their drivers, that could prove it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from harness.candidate import Candidate
from harness.devices import DeviceChoice
from harness.journal import Journal, identity
from harness.records import errors_of
from kernels.spec import DeviceSheet, Verdict
from kernels.tuned import ProvenOn
from tuner.proving import Proof, Refusal

NOTE = "proof"  # the journal's note about one candidate
_NOBODYS_FAULT = frozenset({Verdict.WORKER_LOST})
_THE_MACHINES = frozenset({Verdict.CRASHED, Verdict.TIMEOUT})  # tried again under --retry-crashed


class Proves(Protocol):
    """What `tuner.absent` asks."""

    def able(self, candidate: Candidate) -> bool: ...  # noqa: D102
    def prove(self, candidate: Candidate) -> Proof | Refusal: ...  # noqa: D102


class Proofs:
    """A prover that remembers."""

    def __init__(
        self,
        prover: Proves,
        journal: Journal,
        claim: DeviceSheet,
        hosts: Sequence[DeviceChoice],
        *,
        retry_crashed: bool = False,
    ) -> None:
        self._prover, self._journal = prover, journal
        self._held = [asdict(claim), [identity(host.description) for host in hosts]]
        self._known: dict[str, Proof | Refusal] = {}
        for note in journal.of_kind("note"):
            if note["text"] == NOTE:
                found = _read(note)
                if not (retry_crashed and isinstance(found, Refusal) and found.verdict in _THE_MACHINES):
                    self._known[note["key"]] = found

    def __len__(self) -> int:
        return len(self._known)

    def able(self, candidate: Candidate) -> bool:
        """As the prover says."""
        return self._prover.able(candidate)

    def prove(self, candidate: Candidate) -> Proof | Refusal:
        """What is known, or else the prover's word, which is on disk when this returns."""
        key = self._key(candidate)
        if key not in self._known:
            found = self._prover.prove(candidate)
            if isinstance(found, Refusal) and found.verdict in _NOBODYS_FAULT:
                return found
            what = {"workload": candidate.workload.key, "config": dict(candidate.config)}
            self._journal.note(NOTE, key=key, **what, **_written(found))
            self._known[key] = found
        return self._known[key]

    def _key(self, candidate: Candidate) -> str:
        whole = [candidate.key, candidate.workload.key, self._held]
        return hashlib.sha256(json.dumps(whole, default=_plain).encode()).hexdigest()


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, frozenset) else str(value)


def _written(found: Proof | Refusal) -> dict[str, Any]:
    if isinstance(found, Proof):
        return {"errors": asdict(found.errors), "on": asdict(found.on)}
    return {"verdict": str(found.verdict), "why": found.why}


def _read(note: Mapping[str, Any]) -> Proof | Refusal:
    if "errors" in note:
        return Proof(errors_of(note["errors"]), ProvenOn(**note["on"]))
    return Refusal(Verdict(note["verdict"]), note["why"])
