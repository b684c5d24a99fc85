"""The runs that share a storage: which study a workload has there, and who this run is among its workers.

There is one study per workload, device, driver, kernel sources and protocol, so that results of different devices never
meet.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import uuid
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import optuna
from optuna.storages import BaseStorage

from harness.candidate import Candidate
from harness.journal import IDENTITY, PROTOCOL, Journal, trial_key
from kernels.entry import source_sha256
from kernels.space import Space
from kernels.spec import Config
from tuner.board import Trial
from tuner.decisions import workload_record
from tuner.export import entry_id
from tuner.sharing import Member, Shared
from tuner.storages import again, open_storage, speaking

LAPSES = 2  # workers that are lost with one configuration: it is to blame, and nobody else tries it
_NOTE = "worker"  # the journal's note of who wrote it


class Crew:
    """This run as one of those that work on a storage. Use it as a context manager."""

    def __init__(self, url: str, journal: Journal, *, retry_crashed: bool = False) -> None:
        """Open the storage. Raises UsageError and KilnError, each with a sentence, where that fails."""
        self._journal = journal
        self.worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        # Nobody else writes this journal, so those who did are gone, however fresh their leases look.
        gone = frozenset(note["id"] for note in journal.of_kind("note") if note["text"] == _NOTE)
        lapses = math.inf if retry_crashed else LAPSES
        self._member = Member(url, open_storage(url), self.worker, gone, lapses)
        journal.note(_NOTE, id=self.worker)

    def board(self, space: Space, device: Mapping[str, Any]) -> Shared:
        """The study of one workload; `device` is the runner's raw description."""

        def candidate(config: Config) -> Candidate:
            return Candidate(space.family, space.workload, config)

        def record(trial: Trial) -> None:
            made = candidate(trial.config)
            self._journal.trial(trial_key(made, device), made, trial.measurement, trial.worker)

        facts = study_facts(space, device)
        digest = sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        name = f"kiln {space.workload.family} {entry_id(space.workload)} on {space.sheet.name} {digest[:16]}"
        with speaking(self._member.url):
            again(lambda: _ensure_study(self._member.storage, name, facts))
        return Shared(self._member, name, lambda config: trial_key(candidate(config), device), record)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(Exception):  # of a connection that may be long gone
            self._member.storage.remove_session()


def study_facts(space: Space, device: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal for two runs to share a study: its name is their digest, its user attributes are they."""
    family, workload = space.family, space.workload
    default = Candidate(family, workload, family.default(workload, space.sheet))
    return {
        "workload": {**workload_record(workload), "label": ""},
        "device": {name: str(device.get(name, "")) for name in IDENTITY} | dict(device.get("hints", {})),
        "sources": {variant.name: source_sha256(variant) for variant in family.variants},
        "parameters": {variant.name: {n: list(v) for n, v in variant.params.items()} for variant in family.variants},
        "default": default.key,  # options and launches that come from the program, not from a source
        "protocol": PROTOCOL,
    }


def _ensure_study(storage: BaseStorage, name: str, facts: Mapping[str, Any]) -> None:
    """Make the study where it is not there yet."""
    optuna.create_study(storage=storage, study_name=name, direction="minimize", load_if_exists=True)
    study_id = storage.get_study_id_from_name(name)
    missing = set(facts) - set(storage.get_study_user_attrs(study_id))
    for fact in sorted(missing):
        storage.set_study_user_attr(study_id, fact, facts[fact])
