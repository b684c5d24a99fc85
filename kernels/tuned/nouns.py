"""The tuned config as data: what one document says of one device. `kernels.tuned` writes and loads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kernels.spec import Abi, DeviceSheet, DTypes, Family, Launch, Scratch, Workload

FORMAT = "kiln-tuned-config"
SCHEMA_VERSION = "1.1.0"  # of the documents written here
READER = (1, 0)  # what this reader understands; a document's `min_reader` is at most this

Interval = tuple[int, int | None]  # both ends inclusive, None = unbounded
Bucket = Mapping[str, Interval]
Evidence = Literal["measured", "predicted", "built-in"]  # built-in never enters a document


class ConfigError(ValueError):
    """A document that must not be used. The text is one sentence: where, what, what next."""

    def __init__(self, text: str) -> None:
        # Names in a document may hold anything, a new line and a byte-order mark too.
        super().__init__("".join(c if c.isprintable() else "?" for c in text))


@dataclass(frozen=True)
class DeviceFacts:
    """Which device this is and what it can do: said by a document, or read from a live one.

    Vendor, family and model are normalised (`qualcomm`, `adreno-7xx`, `adreno-750`); `raw` keeps the driver's words.
    The compiler is apart from the driver because deny rules are about compilers; "" = unknown.
    """

    vendor: str
    family: str
    model: str
    driver: str
    compiler: str
    raw: Mapping[str, str]
    sheet: DeviceSheet


@dataclass(frozen=True)
class Match:
    """What an entry is for, apart from sizes. It fits a workload only if all three are equal."""

    weights: str | None
    dtypes: DTypes
    options: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(workload: Workload, family: Family) -> Match:
        """What an entry for this workload would say. Dims that the family fixes stand among the options."""
        fixed = {dim: workload.dims[dim] for dim in family.fixed}
        return Match(workload.weights, workload.dtypes, {**workload.options, **fixed})

    def __str__(self) -> str:
        options = "".join(f",{name}={value}" for name, value in sorted(self.options.items()))
        return f"{self.weights or '-'} {self.dtypes}{options}"


@dataclass(frozen=True)
class Needs:
    """What a device must offer before an entry may run. An engine checks it again after building."""

    work_group: int  # work-items of the largest fixed work-group; 1 where the driver chooses
    local_bytes: int  # per work-group
    extensions: tuple[str, ...] = ()
    image2d: tuple[int, int] | None = None  # largest image at the sizes tuned for; a launch's views say it at others
    multiple_of: Mapping[str, int] = field(default_factory=dict)  # dims that must be multiples, beyond the bucket


@dataclass(frozen=True)
class EntryStats:
    """Device time of one call at the sizes tuned for, and what it is compared with. None = not measured."""

    median_ns: float
    interval_ns: tuple[float, float]  # bootstrap 95 % of the median
    default_ns: float | None  # the family's default configuration, measured interleaved
    driver_local_ns: float | None  # the default with the driver's own work-group size, where that is right
    percent_of_limit: float | None
    limited_by: str | None  # "bandwidth", "arithmetic", "launch"
    # By what fraction the fastest kernel is faster here, where few programs were to serve many sizes. None: this is it.
    regret: float | None = None


@dataclass(frozen=True)
class Prediction:
    """What a cost model expects of one call; nobody has measured it on this device."""

    ns: float
    limited_by: str
    model_version: str


@dataclass(frozen=True)
class ProvenOn:
    """The device that executed the correctness check."""

    device: str
    half: Literal["native", "emulated"]
    subgroup: int | None  # width; None = the variant uses none


@dataclass(frozen=True)
class Verification:
    """How far the results were from the float64 reference, and how far they may be, where the two came nearest."""

    metric: str  # "nmse", "max_scaled"
    value: float
    limit: float
    shapes: tuple[str, ...]
    proven_on: ProvenOn


@dataclass(frozen=True)
class Entry:
    """One configuration an engine may run, complete: source, options, launches, what it needs and why it is believed.

    A `bucket` of None is never found by size: the entry is some other's alternate, or the default.
    """

    id: str
    match: Match
    bucket: Bucket | None
    variant: str
    params: Mapping[str, Any]
    source_sha256: str  # of the flattened source
    build_options: tuple[str, ...]
    launches: tuple[Launch, ...]
    scratch: tuple[Scratch, ...]
    layout: Mapping[str, str]  # packed tensor → layout
    needs: Needs
    evidence: Evidence
    stats: EntryStats | None
    prediction: Prediction | None
    verification: Verification | None  # None only where built-in
    alternates: tuple[str, ...] = ()  # ids, tried in order when this entry may not run

    @property
    def config(self) -> dict[str, Any]:
        """The configuration as `kernels.spec` writes it."""
        return {"variant": self.variant, **self.params}


@dataclass(frozen=True)
class Deny:
    """A rule against configurations that a compiler gets wrong."""

    params: Mapping[str, Any]  # `variant` and parameters; all named ones must be equal
    compiler: tuple[str, ...]  # all must hold, e.g. (">=E031.38", "<E031.45"); () = every compiler
    why: str


@dataclass(frozen=True)
class Programs:
    """That few programs were to serve all buckets of a kernel, and what it costs: fractions of the fastest's time."""

    most: int  # that were asked for; `count` is more where formats and options alone need more
    count: int
    worst_regret: float
    mean_regret: float


@dataclass(frozen=True)
class KernelSection:
    """One family's part of a document."""

    abi: Abi
    entries: tuple[Entry, ...]
    default: str  # id of the entry for sizes that nothing else serves
    deny: tuple[Deny, ...] = ()
    programs: Programs | None = None  # None: every bucket has what was fastest there


@dataclass(frozen=True)
class Route:
    """Which family serves an operation: the one that won there. Weights None = every format."""

    kernel: str
    weights: str | None
    bucket: Bucket


@dataclass(frozen=True)
class TunedConfig:
    """What was decided for one device."""

    device: DeviceFacts
    protocol: Mapping[str, Any]  # how it was measured, and under which conditions
    provenance: Mapping[str, Any]  # what it was made from
    ops: Mapping[str, tuple[Route, ...]]
    kernels: Mapping[str, KernelSection]
    schema_version: str = SCHEMA_VERSION
    min_reader: str = f"{READER[0]}.{READER[1]}"
    edited: bool = False  # when loaded: the content is not what its checksum was made of

    @property
    def evidence(self) -> Evidence:
        """`measured` only if every entry was: whoever reads the top alone is not misled."""
        every = (entry for section in self.kernels.values() for entry in section.entries)
        return "measured" if all(entry.evidence == "measured" for entry in every) else "predicted"
