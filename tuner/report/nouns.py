"""What a report is about, as data: kernels that were tuned, the searches behind them, and what speaks for each figure.

All times are ns of device time. What was measured and what a cost model predicted are different classes, so that no
table or figure can mix them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kernels.spec import Config, Verdict, Workload
from kernels.tuned import DeviceFacts, TunedConfig, Verification

Pair = tuple[float, float]  # a 95 % interval, low and high


@dataclass(frozen=True)
class Kernel:
    """What was decided for one workload, apart from its time."""

    workload: Workload
    parts: Mapping[str, str]  # model → which of its parts call it, as "q, o"; empty where no model sheet tells
    variant: str
    params: Mapping[str, Any]
    flops: float  # the least that any implementation must do (family.cost)
    bytes: float  # the same, every tensor touched once
    bandwidth_bytes: float | None  # what must come from memory by reading alone; None where writes count as well
    limited_by: str | None
    verification: Verification | None
    stale: bool  # this Kiln has another source of it than the one that ran

    @property
    def stored(self) -> str:
        """The format that tells it from its like: of the weights, the cache or the activations."""
        return self.workload.weights or self.workload.dtypes.cache or self.workload.dtypes.act

    @property
    def label(self) -> str:
        """For people: the parts that call it, of whatever models; its options where nothing tells them."""
        names = list(dict.fromkeys(self.parts.values()))
        return "; ".join(names) or self.workload.label or ", ".join(map(str, self.workload.options)) or "–"

    @property
    def intensity(self) -> float:
        """FLOPs per byte of what must be done at least."""
        return self.flops / self.bytes


@dataclass(frozen=True)
class Measured(Kernel):
    """A kernel that was timed on the device itself."""

    ns: float
    interval_ns: Pair
    rounds: int | None  # paired rounds behind it; None where only the document is here, which does not say
    default_ns: float | None
    default_interval_ns: Pair | None  # None without the journal: the document keeps the median alone
    is_default: bool  # the default itself won
    ratio: float | None  # default's time over tuned time
    ratio_interval: Pair | None  # from paired rounds; None without the journal, and where the default won
    percent: float | None  # of the limit that anchors showed in the same rounds
    percent_interval: Pair | None
    wall_gap: float | None  # by what fraction its share of a batch without profiling exceeded its event time

    @property
    def limit_ns(self) -> float | None:
        """The least time that the device allows, by the anchors of the same rounds."""
        return None if self.percent is None else self.percent / 100 * self.ns

    @property
    def standing(self) -> Literal["default", "faster", "slower", "open", "unknown"]:
        """Against the default: itself, surely faster, surely slower, not told apart, or no interval to say it by."""
        if self.is_default:
            return "default"
        if self.ratio_interval is None:
            return "unknown"
        low, high = self.ratio_interval
        return "faster" if low > 1 else "slower" if high < 1 else "open"


@dataclass(frozen=True)
class Predicted(Kernel):
    """A kernel that nobody has timed on the device: a cost model's figure."""

    predicted_ns: float
    model_version: str


@dataclass(frozen=True)
class Attempt:
    """One trial of a search."""

    number: int  # from 1, in the order of the search
    config: Config
    verdict: Verdict
    ns: float | None  # median at the study's pace; None where the verdict is not ok
    interval_ns: Pair | None
    samples: int | None
    at_least_ns: float | None  # of a trial that was given up: it is slower than this
    log: str
    driver_local: bool


@dataclass(frozen=True)
class Search:
    """All trials of one workload, and what the finals made of them."""

    workload: Workload
    attempts: tuple[Attempt, ...]
    winner: Config | None  # None: the study has not reached this workload's finals
    default: Config | None  # None: this Kiln no longer has it

    @property
    def best(self) -> Attempt | None:
        """The fastest trial."""
        return min((a for a in self.attempts if a.ns is not None), key=lambda a: a.ns or 0.0, default=None)


@dataclass(frozen=True)
class Phase:
    """One pass of a model in one weight format: the sum of its kernels' times, weighted by their calls."""

    model: str
    name: str  # "decode", "prefill 128"
    weights: str | None  # None: none of its kernels reads weights
    only: tuple[str, ...]  # the families in it, where the study left others out; () = all that the pass needs
    kernels: int
    missing: int  # kernels of the pass that were not tuned here; then there is no sum
    tuned_ns: float | None
    tuned_interval_ns: Pair | None  # all kernels at their intervals' ends at once: wider than 95 %
    default_ns: float | None


@dataclass(frozen=True)
class Check:
    """One reason to trust a study or not to."""

    state: Literal["good", "doubt", "unknown"]
    about: str
    text: str


@dataclass(frozen=True)
class Study:
    """One document, one journal, or both of one run."""

    files: tuple[str, ...]
    device: DeviceFacts
    document: TunedConfig | None  # None: the study has not reached its end
    measured: tuple[Measured, ...]
    predicted: tuple[Predicted, ...]
    searches: tuple[Search, ...]
    phases: tuple[Phase, ...]
    models: tuple[str, ...]
    protocol: Mapping[str, Any]
    provenance: Mapping[str, Any]
    notes: tuple[str, ...] = ()  # what a reader should know of the files

    @property
    def name(self) -> str:
        """The device, as its driver calls it, and what drives it."""
        raw = self.device.raw
        platform = {"Portable Computing Language": "PoCL"}.get(raw.get("platform_name", ""), raw.get("platform_name"))
        name = (raw.get("name") or self.device.model).removeprefix("pthread-")  # PoCL's word for a CPU
        return " · ".join(part for part in (name, platform) if part)
