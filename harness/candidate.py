"""A candidate: one configuration of one workload, with all that follows from it (source, options, launches, key)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from kernels.space import Space
from kernels.spec import (
    Config,
    DeviceSheet,
    Family,
    ImageView,
    Launch,
    Schedule,
    Variant,
    Workload,
    build_options,
    evaluate,
)

Ref = Mapping[str, Any]  # {"buf": name} or {"buf": name, "offset": bytes, "bytes": n}: an argument as a runner takes it


@dataclass(frozen=True, eq=False)
class Candidate:
    """(family, workload, config). Two candidates are the same one exactly when their `key` is."""

    family: Family
    workload: Workload
    config: Config
    driver_local: bool = False  # leave every work-group size to the driver: a baseline, for `any_local` variants alone

    def __post_init__(self) -> None:
        if self.driver_local and not self.variant.any_local:
            raise ValueError(f"variant {self.variant.name} is not right at every work-group size")

    @property
    def variant(self) -> Variant:
        """The algorithm that the configuration names."""
        return self.family.variant(self.config["variant"])

    @property
    def source(self) -> str:
        """OpenCL C, includes flattened."""
        return self.variant.source

    @cached_property
    def options(self) -> tuple[str, ...]:
        """Compiler options."""
        return build_options(self.family, self.config, self.workload)

    @cached_property
    def schedule(self) -> Schedule:
        """What runs, in order."""
        schedule = self.variant.schedule(self.config, self.workload)
        if not self.driver_local:
            return schedule
        return replace(schedule, launches=tuple(replace(launch, local=None) for launch in schedule.launches))

    @property
    def layouts(self) -> Mapping[str, str]:
        """How each packed tensor is arranged: tensor → layout name."""
        return self.variant.layouts(self.config, self.workload)

    @cached_property
    def program(self) -> str:
        """Names the build: sha256 of source and options, so that equal builds are made once."""
        return _sha256(self.source, *self.options)

    @cached_property
    def key(self) -> str:
        """Names the candidate: sha256 of source, options and the schedule at this workload's sizes."""
        return _sha256(self.program, json.dumps(self._evaluated(), sort_keys=True))

    def _evaluated(self) -> list[Any]:
        dims = self.workload.dims
        names = {name: {"name": name} for launch in self.schedule.launches for name in _names(launch)}
        scratch = [[part.name, evaluate(part.bytes, dims)] for part in self.schedule.scratch]
        return [launches(self, names), scratch]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidate) and (self.workload, self.key) == (other.workload, other.key)

    def __hash__(self) -> int:
        return hash((self.workload, self.key))

    def at(self, workload: Workload, sheet: DeviceSheet) -> Candidate | None:
        """The same program on other dims, or None where a rule forbids it there or the build would differ."""
        other = replace(self, workload=workload)
        if Space(self.family, workload, sheet).illegal(self.config):
            return None
        return other if other.program == self.program else None

    def __str__(self) -> str:
        params = " ".join(f"{name}={value}" for name, value in self.config.items() if name != "variant")
        return f"{self.family.name}/{self.variant.name} {params}".strip() + (
            " local=driver" if self.driver_local else ""
        )


def _sha256(*texts: str) -> str:
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode()
        digest.update(len(data).to_bytes(8, "little") + data)  # lengths keep ("ab", "c") apart from ("a", "bc")
    return digest.hexdigest()


def _names(launch: Launch) -> list[str]:
    return [arg.of if isinstance(arg, ImageView) else arg for arg in launch.args]


def launches(candidate: Candidate, refs: Mapping[str, Ref], *, texels: bool = False) -> list[dict[str, Any]]:
    """The schedule as a runner takes it: grids evaluated, arguments bound to `refs` by ABI and scratch name.

    Raises KeyError naming an argument that is neither a dim nor bound, which is a mistake in the family.
    """
    found = [_launch(candidate, launch, refs) for launch in candidate.schedule.launches]
    if texels:
        for image in (arg["image"] for launch in found for arg in launch["args"] if "image" in arg):
            image["texels"] = True
    return found


def _launch(candidate: Candidate, launch: Launch, refs: Mapping[str, Ref]) -> dict[str, Any]:
    dims = candidate.workload.dims
    return {
        "entry": launch.entry,
        "global": [evaluate(size, dims) for size in launch.grid],
        "local": None if launch.local is None else list(launch.local),
        "args": [_bind(candidate, arg, refs) for arg in launch.args],
    }


def _bind(candidate: Candidate, arg: str | ImageView, refs: Mapping[str, Ref]) -> dict[str, Any]:
    dims = candidate.workload.dims
    if isinstance(arg, ImageView):
        # An image spans its buffer from the given offset; its own size says how far.
        ref = {name: value for name, value in refs[arg.of].items() if name != "bytes"}
        size = {"width": evaluate(arg.width, dims), "height": evaluate(arg.height, dims)}
        return {"image": {**ref, "channels": arg.channels, "type": arg.type, **size}}
    if arg in refs:
        return dict(refs[arg])
    if arg in dims:
        return {"i32": dims[arg]}
    raise KeyError(f"{candidate}: argument {arg} is neither a dim, a buffer of the ABI nor scratch")
