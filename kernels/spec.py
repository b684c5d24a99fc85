"""The nouns of Kiln: what is asked (a workload), what may run (a variant's configuration), what came of it.

Everything here is frozen data; nothing here touches a GPU. The field's words are defined in README.md. It is one file,
and a long one, because every other module imports it and its nouns refer to each other.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from kernels.jobs import Ask, Found
    from kernels.models import ModelSheet

Config = Mapping[str, Any]  # {"variant": name, PARAMETER: value, …}: one assignment of a variant's parameters
Dims = Mapping[str, int]


# ---------------------------------------------------------------- what is asked


@dataclass(frozen=True)
class DTypes:
    """The dtype policy of a workload. It is asked for, never searched: a search must not trade accuracy for speed."""

    act: Literal["fp16", "fp32"]  # storage of the activations that go in and come out
    compute: Literal["fp32", "fp16", "int8"]  # arithmetic of the products (int8: activations are quantised on the fly)
    acc: Literal["fp32", "fp16", "int32"]  # type of the long sums
    cache: Literal["fp16", "int8", "int4"] | None = None  # storage of the KV cache, where the family has one

    def __str__(self) -> str:
        text = f"act={self.act},compute={self.compute},acc={self.acc}"
        return text if self.cache is None else f"{text},cache={self.cache}"


_FORMAT = re.compile(r"(?P<kind>int4|e0m4)/g(?P<group>32|64|128)|(?P<plain>fp16|int8)")


@dataclass(frozen=True)
class WeightFormat:
    """How numbers become codes, e.g. `int4/g128`. How codes are arranged in memory is a layout."""

    kind: Literal["fp16", "int8", "int4", "e0m4"]
    group: int  # weights along K that share one scale and bias; 0 where a format has no groups

    @staticmethod
    @cache
    def parse(text: str) -> WeightFormat:
        """Read `fp16`, `int8`, `int4/gN` or `e0m4/gN` (N = 32, 64, 128). Raises ValueError naming the choices."""
        match = _FORMAT.fullmatch(text)
        if match is None:
            raise ValueError(
                f'unknown weight format "{text}"; choose fp16, int8, int4/gN or e0m4/gN with N = 32, 64 or 128'
            )
        if match["plain"]:
            return WeightFormat(match["plain"], 0)  # type: ignore[arg-type]
        return WeightFormat(match["kind"], int(match["group"]))  # type: ignore[arg-type]

    @property
    def bits_per_weight(self) -> float:
        """Bits that one weight occupies with its share of fp16 scale and bias (int8's one scale per row left out)."""
        if self.group:
            return 4 + 32 / self.group
        return 16 if self.kind == "fp16" else 8

    def __str__(self) -> str:
        return f"{self.kind}/g{self.group}" if self.group else self.kind


@dataclass(frozen=True)
class Workload:
    """One concrete job of a family. Two workloads with one `key` are the same job, whatever their labels."""

    family: str
    dims: Dims
    dtypes: DTypes
    weights: str | None = None  # a WeightFormat's text, None for families without weights
    options: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""  # for people: "gemma-2b lm_head"

    def __post_init__(self) -> None:
        object.__setattr__(self, "dims", MappingProxyType(dict(self.dims)))
        # An option that is off is no option: two ways to say so would be two jobs, each missing the other's entry.
        given = {name: value for name, value in self.options.items() if value is not False}
        object.__setattr__(self, "options", MappingProxyType(given))

    @property
    def key(self) -> str:
        """Stable text that names the job: family, weights, dtypes, dims, options."""
        parts = [self.family, self.weights or "-", str(self.dtypes), _pairs(self.dims)]
        if self.options:
            parts.append(_pairs(dict(sorted(self.options.items()))))
        return ":".join(parts)

    @property
    def format(self) -> WeightFormat:
        """The parsed weight format. Raises ValueError where the workload has no weights."""
        return WeightFormat.parse(self.weights or "")

    def with_dims(self, **dims: int) -> Workload:
        """The same job at other sizes."""
        return Workload(self.family, {**self.dims, **dims}, self.dtypes, self.weights, self.options, self.label)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Workload) and self.key == other.key


def _pairs(mapping: Mapping[str, Any]) -> str:
    return ",".join(f"{name}={value}" for name, value in mapping.items())


# ---------------------------------------------------------------- sizes that an engine can evaluate


@dataclass(frozen=True)
class Ceil:
    """ceil(dims[dim] / by): the only operation on a dim, so that an engine needs integer arithmetic alone."""

    dim: str
    by: int


Size = tuple["int | Ceil", ...]  # a product of its factors


def evaluate(size: Size, dims: Dims) -> int:
    """The number that a product of integers and ceil terms stands for at these dims."""
    total = 1
    for factor in size:
        total *= -(-dims[factor.dim] // factor.by) if isinstance(factor, Ceil) else factor
    return total


@dataclass(frozen=True)
class ImageView:
    """A 2D image over an argument's buffer (cl_khr_image2d_from_buffer), one `read_only image2d_t` in the kernel."""

    of: str  # name of the buffer argument
    channels: Literal["R", "RG", "RGBA"]
    type: Literal["uint32", "uint16", "fp16", "fp32"]
    width: Size  # texels; the row pitch is width times the texel size
    height: Size


@dataclass(frozen=True)
class Launch:
    """One clEnqueueNDRangeKernel. `local` None leaves the work-group size to the driver."""

    entry: str
    grid: tuple[Size, ...]  # work-items per dimension, a multiple of `local`
    local: tuple[int, ...] | None
    args: tuple[str | ImageView, ...]  # by ABI, dim or scratch name, in the order of the kernel's signature


@dataclass(frozen=True)
class Scratch:
    """A buffer that the launches of one candidate share; its content does not outlive them."""

    name: str
    bytes: Size


@dataclass(frozen=True)
class Schedule:
    """What runs, in order, for one candidate."""

    launches: tuple[Launch, ...]
    scratch: tuple[Scratch, ...] = ()


# ---------------------------------------------------------------- devices, as far as legality needs them


@dataclass(frozen=True)
class Denied:
    """Configurations that a device's driver is known to get wrong."""

    family: str
    params: tuple[tuple[str, Any], ...]  # `variant` and parameters; a configuration equal in all named is denied
    why: str

    def covers(self, family: str, config: Config) -> bool:
        """Whether a configuration is one of them."""
        return family == self.family and all(name in config and config[name] == value for name, value in self.params)


@dataclass(frozen=True)
class DeviceSheet:
    """Facts of a device that decide what may run on it. A live device gives one, a sheet file claims one."""

    name: str
    vendor: str
    kind: Literal["gpu", "cpu", "other"]
    max_work_group: int
    max_work_item_sizes: tuple[int, ...]
    local_bytes: int
    max_alloc_bytes: int
    global_bytes: int
    compute_units: int
    cache_bytes: int  # last-level cache, 0 = unknown
    image2d: tuple[int, int] | None  # largest width and height in texels, None = no images
    image_pitch_texels: int  # alignment of an image2d-from-buffer's row pitch, 0 = unsupported
    image_base_texels: int
    subgroup_sizes: tuple[int, ...]  # () = no subgroups
    extensions: frozenset[str]
    opencl_c: tuple[int, int]
    vector_floats: int = 0  # floats that a CPU's widest vector register holds; 0 = unknown, or no CPU
    denied: tuple[Denied, ...] = ()  # what its compiler gets wrong, by a sheet's traps (kernels.claims)

    def has(self, extension: str) -> bool:
        """Whether the device reports this extension."""
        return extension in self.extensions

    @property
    def vector_registers(self) -> int:
        """Vector registers of a CPU: 16 on an x86 with 256 bits (AVX2), 32 with AVX-512, on 64-bit Arm and unknown."""
        return 16 if self.vector_floats == 8 else 32

    def registers(self, lanes: int) -> int:
        """Vector registers of a CPU that a vector of `lanes` floats takes.

        Narrow ones (NEON's four floats) count as 16, as unknown ones do: no kernel is written for fewer than eight.
        """
        return -(-lanes // (self.vector_floats if self.vector_floats >= 8 else 16))


# ---------------------------------------------------------------- what may run


@dataclass(frozen=True)
class Rule:
    """One condition of legality. Naming the parameters it reads lets enumeration cut a branch early."""

    why: str  # read as "rejected because not: <why>"
    names: tuple[str, ...]
    holds: Callable[[Config, Workload, DeviceSheet], bool]
    prunes: bool = False  # only slow where it does not hold, not wrong: an engine may run it at such sizes


@dataclass(frozen=True)
class Traffic:
    """What one configuration really moves and holds, for pruning and prediction."""

    read_bytes: float
    write_bytes: float
    flops: float
    local_bytes: int = 0  # per work-group
    registers: int = 0  # 32-bit registers a work-item needs at least
    work_items: int = 0


@dataclass(frozen=True)
class Cost:
    """The least that any implementation must do: arithmetic, and bytes with every tensor touched once."""

    flops: float
    bytes: float
    written: float = 0.0  # of `bytes`: what is written
    cold: float = 0.0  # of `bytes`: weights and caches, which a model reads from DRAM at every call


@dataclass(frozen=True)
class Variant:
    """One algorithm of a family: source, parameters, rules and launch geometry."""

    name: str
    source: str  # OpenCL C with its includes flattened
    params: Mapping[str, tuple[Any, ...]]  # each is an #ifndef of the source
    default: Mapping[str, Any]
    rules: tuple[Rule, ...]
    schedule: Callable[[Config, Workload], Schedule]
    traffic: Callable[[Config, Workload, DeviceSheet], Traffic]
    layouts: Callable[[Config, Workload], Mapping[str, str]]  # packed tensor → layout name
    workload_rules: tuple[Rule, ...] = ()  # when the variant is for this workload and device at all; `names` empty
    any_local: bool = False  # right at every work-group size, so that the driver may choose one
    needs: tuple[str, ...] = ()  # extensions
    options: tuple[str, ...] = ()  # compiler options that its source needs, as -cl-std=CL3.0

    def config(self, **params: Any) -> dict[str, Any]:
        """The default configuration with `params` changed. Raises KeyError for a parameter it does not have."""
        if unknown := sorted(set(params) - set(self.params)):
            raise KeyError(f"variant {self.name} has no parameter {', '.join(unknown)}")
        return {"variant": self.name, **self.default, **params}


@dataclass(frozen=True)
class Arg:
    """One argument of a family's ABI."""

    name: str
    role: Literal["input", "weight", "cache", "output", "inout", "dim"]  # cache: a KV cache that is only read
    about: str


@dataclass(frozen=True)
class Abi:
    """The named arguments an engine binds. A change that old engines cannot bind raises `version`."""

    version: int
    args: tuple[Arg, ...]

    def names(self, role: str) -> tuple[str, ...]:
        """Names of the arguments that play one role, in order."""
        return tuple(arg.name for arg in self.args if arg.role == role)

    @property
    def cold(self) -> tuple[str, ...]:
        """Arguments that a model reads from DRAM at every call, because each layer has its own."""
        return (*self.names("weight"), *self.names("cache"))


@dataclass(frozen=True)
class Tolerance:
    """A candidate is right if both errors against the float64 reference stay at or under these."""

    nmse: float  # sum of squared errors over sum of squared expected values
    max_scaled: float  # largest absolute error over the root mean square of the expected values


@dataclass(frozen=True)
class Stored:
    """How an output lies in memory."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """Inputs of one workload, the right answer and how near one must come to it."""

    pack: Callable[[Mapping[str, str]], Arrays]  # layouts → inputs, weights and first content of in-place buffers
    outputs: Mapping[str, Stored]  # by ABI name; in-place buffers are stored as `pack` gives them
    expected: Arrays  # float64, by name of what `read` gives
    tolerance: Tolerance
    # (what came back, outputs and in-place buffers as stored; layouts) → the values to compare with `expected`, such as
    # codes times their scales, or a cache in the order of its positions. None: outputs are compared as they are stored.
    read: Callable[[Arrays, Mapping[str, str]], Arrays] | None = None
    exact: frozenset[str] = frozenset()  # of `expected`: must be equal in every element, as what nobody may write


@dataclass(frozen=True)
class Family:
    """One kernel operation: what it means (ABI, reference through `case`, cost) and the variants that compute it."""

    name: str
    about: str
    abi: Abi
    dims: tuple[str, ...]
    case: Callable[[Workload, int], Case]  # (workload, seed)
    cost: Callable[[Workload], Cost]
    defines: Callable[[Workload], Mapping[str, int | float]]  # dtype policy, formats, options, as the source reads them
    variants: tuple[Variant, ...]
    default: Callable[[Workload, DeviceSheet], Config]  # what an engine would run untuned: safe on every device
    workload_rules: tuple[Rule, ...]
    awkward: Callable[[Workload], tuple[Workload, ...]]  # small hard shapes that the same build serves
    # Small workloads, hard sizes among them, that between them have every format, policy and option of the family: what
    # `harness validate`, the sanitizer and the conformance kit run.
    cover: Callable[[], tuple[Workload, ...]]
    jobs: Callable[[ModelSheet, Ask], Found]  # what a model asks of it
    bounds: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)  # dims it serves, where not 1 … any
    fixed: tuple[str, ...] = ()  # dims that a build or its rules depend on, such as head_dim: matched exactly, no range
    # Names what its layouts arrange where other families read the same tensors ("weights", "cache"): they then share
    # one layout in a model. "": its own affair.
    shares: str = ""
    # The job as somebody without a GPU writes it in NumPy (float32 where the reference is in float64), for orientation
    # beside measured times: gives a call that does it once.
    numpy: Callable[[Workload], Callable[[], object]] | None = None

    def variant(self, name: str) -> Variant:
        """The variant of that name. Raises KeyError naming the choices."""
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise KeyError(f"{self.name} has no variant {name}; it has {', '.join(v.name for v in self.variants)}")


def build_options(family: Family, config: Config, workload: Workload) -> tuple[str, ...]:
    """Compiler options of a candidate: relaxed mathematics, then the variant's, the policy's and its own."""
    variant = family.variant(config["variant"])
    defines = {**family.defines(workload), **{name: config[name] for name in variant.params}}
    return (
        "-cl-mad-enable",
        "-cl-fast-relaxed-math",
        *variant.options,
        *(f"-D{name}={_literal(value)}" for name, value in defines.items()),
    )


def _literal(value: Any) -> str:
    """A define's value as OpenCL C reads it: a float is no double."""
    return f"{value!r}f" if isinstance(value, float) else str(value)


# ---------------------------------------------------------------- what came of it


class Verdict(enum.StrEnum):
    """Outcome of one candidate. A median exists if and only if it is OK."""

    OK = "ok"
    WRONG_RESULT = "wrong_result"
    BUILD_FAILED = "build_failed"
    LAUNCH_FAILED = "launch_failed"
    OUT_OF_RESOURCES = "out_of_resources"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    THROTTLED = "throttled"
    ABANDONED = "abandoned"
    INVALID_TIMING = "invalid_timing"
    WORKER_LOST = "worker_lost"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True)
class Stats:
    """Device time of one candidate from event profiling: first START to last END of its launches."""

    median_ns: float
    interval_ns: tuple[float, float]  # bootstrap 95 % of the median
    samples: int


@dataclass(frozen=True)
class Errors:
    """Distance from the reference: of each metric, over the shapes checked, what came nearest to its shape's limit."""

    nmse: float
    max_scaled: float
    limits: Tolerance  # of the shapes that those two were seen on; they differ from shape to shape
    shapes: tuple[str, ...]

    def and_also(self, other: Errors) -> Errors:
        """Both together."""
        nmse = max((self, other), key=lambda e: e.nmse / e.limits.nmse)
        largest = max((self, other), key=lambda e: e.max_scaled / e.limits.max_scaled)
        limits = Tolerance(nmse.limits.nmse, largest.limits.max_scaled)
        return Errors(nmse.nmse, largest.max_scaled, limits, self.shapes + other.shapes)


@dataclass(frozen=True)
class Measurement:
    """Verdict, device-time statistics and the conditions they were taken under."""

    verdict: Verdict
    log: str = ""  # compiler output, the failing shape, the driver's last words
    stats: Stats | None = None
    samples_ns: tuple[float, ...] = ()
    errors: Errors | None = None
    conditions: Mapping[str, Any] = field(default_factory=dict)
    build_ms: float | None = None
    build_cached: bool = False  # build_ms is of taking a binary from a cache
    at_least_ns: float | None = None  # for ABANDONED: the lower bound that was seen
    kernel: Mapping[str, Any] = field(default_factory=dict)  # per entry: work-group limit, local and private bytes

    def __post_init__(self) -> None:
        if (self.stats is not None) != (self.verdict is Verdict.OK):
            raise ValueError(f"a median exists if and only if the verdict is ok, not {self.verdict}")

    @property
    def pace(self) -> float:
        """How many times slower the device was than the study's pace, as a reference beside it told; else 1."""
        return float(self.conditions.get("pace") or 1.0)

    @staticmethod
    def failed(verdict: Verdict, log: str, **more: Any) -> Measurement:
        """A measurement without a time."""
        return Measurement(verdict, log=log, **more)
