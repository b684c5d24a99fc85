"""What a device can do at most, measured: read and copy bandwidth, multiply-add rate, launch latency, timer steps.

Each figure is the best over vector widths, unrolls, ways to share the work and build options, by median: a first look
at every way, then the best few again, interleaved. Best-of figures are not used, since memory has fast spells.
Rates are per nanosecond, so bytes come as GB/s and FLOPs as GFLOPS. Nouns, search and anchors are in one file, since
each figure comes about by the same look; the kernels are in harness/probe_kernels.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any, Literal

import numpy as np

from harness import timing
from harness.answers import Refused, RunnerLost
from harness.errors import KilnError
from harness.probe_kernels import ProbeBed, ProbeError, ProbeKernel
from harness.supervisor import Supervisor
from kernels.spec import Cost, DeviceSheet

# Bytes of one launch. Launches rotate through copies of that, COLD_BYTES and more in all: a launch as long as the
# candidates' own suffers as they do when the host takes the processor away, where one long launch always would.
READ_BYTES = {"cpu": 32 << 20, "gpu": 256 << 20, "other": 256 << 20}
COLD_BYTES = 256 << 20
_CACHES = 4  # memory below this many last-level caches is not cold
_MOST_BYTES = 1 << 30  # that copies take, and as much again where they are written: large EPYCs have 384 MiB of cache
_LOOK_SAMPLES = 5
_FINAL_ROUNDS = 9
_FINAL_SAMPLES = 5  # a round gives their median
_FINALISTS = 3
_MADD_NS = 1e6  # long enough that starting and ending the work-groups does not show
_EMPTY_SAMPLES = 200

# Ways to share reads and copies: (entry's suffix, work-items, work-group).
_SHARES: dict[str, tuple[tuple[str, int, int], ...]] = {
    "cpu": (("own", 64, 1), ("own", 1024, 1), ("own", 4096, 16), ("across", 4096, 64)),
    "gpu": (("across", 1 << 16, 256), ("across", 1 << 18, 256), ("across", 1 << 20, 256), ("own", 1 << 18, 64)),
}
_SHARES["other"] = _SHARES["gpu"] + _SHARES["cpu"]
_WIDTHS = {"cpu": (4, 8, 16), "gpu": (1, 2, 4), "other": (1, 4, 16)}
# Prefetching by software lifts a CPU's read rate by up to a third (Zen 5, PoCL and Intel), and kernels may do it too.
_AHEAD_BYTES = (4096, 16384)
_MADD_GROUPS = {"cpu": (1, 16), "gpu": (64, 256), "other": (16, 64)}
_MADD_ITEMS_PER_UNIT = {"cpu": 256, "gpu": 4096, "other": 1024}


@dataclass(frozen=True)
class Rate:
    """The best way found and what it reaches."""

    per_ns: float  # by the median time
    interval: tuple[float, float]  # 95 %
    kernel: ProbeKernel

    @property
    def spread(self) -> float:
        """Half the interval's width over the rate."""
        return (self.interval[1] - self.interval[0]) / 2 / self.per_ns


@dataclass(frozen=True)
class Rates:
    """What limits are computed from: a probe's figures, or those of anchors that ran beside the candidates."""

    read_per_ns: float
    copy_per_ns: float  # bytes read plus bytes written
    flops_per_ns: Mapping[str, float]  # by compute type: fp32, fp16
    launch_ns: float


@dataclass(frozen=True)
class ProbeResult:
    """All figures of one device."""

    read: Rate
    copy: Rate  # bytes read plus bytes written
    madd: Mapping[str, Rate]  # by compute type
    launch_ns: float  # device time of an empty kernel
    launch_wall_ns: float  # an empty kernel's share of a long batch on a queue without profiling
    timer_reported_ns: int
    timer_seen_ns: int | None  # smallest difference between two stamps
    cold: bool  # the memory read is larger than four last-level caches
    failures: tuple[str, ...]  # ways that crashed or computed nonsense

    @property
    def rates(self) -> Rates:
        """What limits are computed from."""
        return Rates(
            self.read.per_ns, self.copy.per_ns, {name: rate.per_ns for name, rate in self.madd.items()}, self.launch_ns
        )

    def headline(self) -> dict[str, float]:
        """The figures that a tuned config quotes: GB/s, ns, GFLOPS."""
        rates = {f"{name}_gflops": rate.per_ns for name, rate in self.madd.items()}
        return {"read_gb_per_s": self.read.per_ns, "launch_ns": self.launch_ns, **rates}

    def to_json(self) -> dict[str, Any]:
        """For the journal and `--json`."""
        return asdict(self)

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> ProbeResult:
        """What `to_json` gave. Raises KeyError and TypeError for anything else."""
        rates = {"read": _rate(record["read"]), "copy": _rate(record["copy"])}
        madd = {name: _rate(rate) for name, rate in record["madd"].items()}
        return ProbeResult(**{**record, **rates, "madd": madd, "failures": tuple(record["failures"])})


def _rate(record: Mapping[str, Any]) -> Rate:
    return Rate(record["per_ns"], (record["interval"][0], record["interval"][1]), ProbeKernel(**record["kernel"]))


@dataclass(frozen=True)
class Limit:
    """The least time that a workload can take on a device, and what says so."""

    ns: float
    limited_by: Literal["bandwidth", "arithmetic", "launch"]

    def percent(self, median_ns: float) -> float:
        """How near a time comes to the limit; above 100 the probe is broken (see `broken`)."""
        return 100.0 * self.ns / median_ns


def limit(cost: Cost, rates: Rates, compute: str = "fp32", cache_bytes: int = 0) -> Limit:
    """The largest of bytes / bandwidth, FLOPs / multiply-add rate and launch latency.

    Bytes that are written pair with as many that are read and move as fast as a copy does; the rest of what is read
    moves as fast as reading does. Activations that fit the last-level cache (`cache_bytes`) were just written by the
    kernel before and need no memory; weights and caches always do. A compute type that was not probed (int8) leaves
    the arithmetic out: the limit is then only a lower one.
    """
    if cost.bytes - cost.cold <= cache_bytes:
        moved_ns = cost.cold / rates.read_per_ns
    else:
        moved_ns = max(0.0, cost.bytes - 2 * cost.written) / rates.read_per_ns + 2 * cost.written / rates.copy_per_ns
    limits = [Limit(moved_ns, "bandwidth"), Limit(rates.launch_ns, "launch")]
    if compute in rates.flops_per_ns:
        limits.append(Limit(cost.flops / rates.flops_per_ns[compute], "arithmetic"))
    return max(limits, key=lambda found: found.ns)


def broken(percent_of_limit: float) -> str | None:
    """A sentence when a result is beyond the probed limit; None when it is possible."""
    if percent_of_limit <= 100.0:
        return None
    return (
        f"{percent_of_limit:.0f} % of the probed limit is impossible: the probe is broken "
        "or was disturbed; run it again on a quiet machine"
    )


# ---------------------------------------------------------------- probing


def probe(supervisor: Supervisor, sheet: DeviceSheet) -> ProbeResult:
    """Probe a device; seconds on a GPU, about half a minute on a CPU with its compiler.

    Raises KilnError when no way to read, to copy or to multiply works at all.
    """
    search = _Search(supervisor, sheet)
    read = search.best(_moving("read", sheet), "read memory")
    copy = search.best(_moving("copy", sheet, (read.kernel.width,)), "copy memory")
    madd = {"fp32": search.madd(half=False)}
    if sheet.has("cl_khr_fp16"):
        try:
            madd["fp16"] = search.madd(half=True)
        except KilnError as error:  # announced but not working: the fp32 rate stands alone
            search.failures.append(str(error))
    launch_ns, wall_ns, seen_ns = search.empty()
    search.bed.drop()
    reported_ns = supervisor.hello().device["profiling_timer_resolution_ns"]
    cold = read.kernel.buffer_bytes * read.kernel.copies > _CACHES * sheet.cache_bytes
    return ProbeResult(read, copy, madd, launch_ns, wall_ns, reported_ns, seen_ns, cold, tuple(search.failures))


def anchors(supervisor: Supervisor, sheet: DeviceSheet) -> dict[str, ProbeKernel]:
    """One kernel that waits for memory, "read", and one for arithmetic, "madd", in a second or two.

    They are not the device's utmost, as `probe` finds it, but go up and down with it, which is what anchors are for.
    Whatever does not work here is left out.
    """
    search = _Search(supervisor, sheet)
    found = {}
    if read := next((kernel for kernel in _moving("read", sheet) if search.verified(kernel)), None):
        found["read"] = read
    items = sheet.compute_units * _MADD_ITEMS_PER_UNIT[sheet.kind]
    madd = ProbeKernel("madd", width=_WIDTHS[sheet.kind][1], unroll=8, items=items, local=_MADD_GROUPS[sheet.kind][0])
    if sized := search.sized([madd]):
        found["madd"] = sized[0]
    search.bed.drop()
    return found


def _moving(what: str, sheet: DeviceSheet, widths: Sequence[int] = ()) -> list[ProbeKernel]:
    """Ways to read or copy READ_BYTES, or the largest power of two that the device allocates."""
    size = min(READ_BYTES[sheet.kind], 1 << (sheet.max_alloc_bytes.bit_length() - 1))
    cold = max(COLD_BYTES, _CACHES * sheet.cache_bytes)
    room = min(_MOST_BYTES, sheet.global_bytes // 8) // size
    copies = max(1, min(cold // size + 1, room)) if size < cold else 1
    ways = []
    for width in widths or _WIDTHS[sheet.kind]:
        for share, items, local in _SHARES[sheet.kind]:
            amount = size // (4 * width * items)
            if local <= sheet.max_work_group and amount >= 4:
                kernel = ProbeKernel(f"{what}_{share}", width=width, items=items, local=local, amount=amount)
                ahead = _AHEAD_BYTES if sheet.kind == "cpu" and share == "own" and width >= 8 else ()
                ways += [replace(kernel, copies=copies, prefetch=count) for count in (0, *ahead)]
    return ways


class _Search:
    """Tries ways on one device and remembers what failed."""

    def __init__(self, supervisor: Supervisor, sheet: DeviceSheet) -> None:
        self.bed = ProbeBed(supervisor)
        self.failures: list[str] = []
        self._sheet = sheet

    def time(self, kernel: ProbeKernel, samples: int) -> list[float] | None:
        """Device times, or None for a way that failed; PoCL's compiler, for one, aborts on some forms."""
        try:
            run = self.bed.run(kernel, samples=samples)
        except (Refused, RunnerLost) as failure:
            self.failures.append(f"{kernel}: {failure.verdict}: {str(failure).splitlines()[0]}")
            return None
        if why := timing.invalid(run.samples_ns):
            self.failures.append(f"{kernel}: {why}")
            return None
        return list(timing.durations(run.samples_ns))

    def look(self, ways: Iterable[ProbeKernel]) -> list[tuple[float, ProbeKernel]]:
        """(rate, way) of what works, fastest first."""
        found = []
        for kernel in ways:
            if times := self.time(kernel, _LOOK_SAMPLES):
                found.append((kernel.work / timing.stats(times).median_ns, kernel))
        return sorted(found, key=lambda pair: -pair[0])

    def best(self, ways: Iterable[ProbeKernel], what: str) -> Rate:
        """The way with the best median over interleaved rounds, its work verified."""
        verified = (kernel for _, kernel in self.look(ways) if self.verified(kernel))
        finalists = list(islice(verified, _FINALISTS))
        times: dict[ProbeKernel, list[float]] = {kernel: [] for kernel in finalists}
        for _ in range(_FINAL_ROUNDS):
            for kernel in finalists:
                if measured := self.time(kernel, _FINAL_SAMPLES):
                    times[kernel].append(float(np.median(measured)))
        rates = [_to_rate(kernel, measured) for kernel, measured in times.items() if measured]
        if not rates:
            told = "; ".join(self.failures[-3:])
            raise KilnError(f"no way to {what} works on {self._sheet.name}: {told}; the driver or the device is broken")
        return max(rates, key=lambda rate: rate.per_ns)

    def verified(self, kernel: ProbeKernel) -> bool:
        """Whether a way does its work."""
        try:
            self.bed.verify(kernel)
        except (Refused, RunnerLost, ProbeError) as failure:
            self.failures.append(f"{kernel}: {failure.verdict}: {str(failure).splitlines()[0]}")
            return False
        return True

    def madd(self, half: bool) -> Rate:
        """Width first, then unroll, then build options: each from the best so far."""
        sheet = self._sheet
        items = sheet.compute_units * _MADD_ITEMS_PER_UNIT[sheet.kind]
        first = ProbeKernel("madd", unroll=8, half=half, items=items)
        tried = self._madd_look(
            replace(first, width=width, local=local)
            for width in _WIDTHS[sheet.kind]
            for local in _MADD_GROUPS[sheet.kind]
            if local <= sheet.max_work_group
        )
        if tried:
            tried += self._madd_look(replace(tried[0][1], unroll=unroll) for unroll in (4, 16))
            tried.sort(key=lambda pair: -pair[0])
            tried += self._madd_look([replace(tried[0][1], relaxed=False)])
        ranked = sorted(tried, key=lambda pair: -pair[0])
        return self.best([kernel for _, kernel in ranked[:_FINALISTS]], f"multiply in fp{16 if half else 32}")

    def _madd_look(self, ways: Iterable[ProbeKernel]) -> list[tuple[float, ProbeKernel]]:
        return self.look(self.sized(ways))

    def sized(self, ways: Iterable[ProbeKernel]) -> list[ProbeKernel]:
        """Ways to multiply that work, each with so many rounds that it takes about _MADD_NS."""
        sized = []
        for kernel in ways:
            short = replace(kernel, amount=256)
            if times := self.time(short, _LOOK_SAMPLES):
                sized.append(replace(kernel, amount=max(256, round(256 * _MADD_NS / timing.stats(times).median_ns))))
        return sized

    def empty(self) -> tuple[float, float, int | None]:
        """(device time, share of a batch without profiling, smallest step between stamps) of an empty kernel, ns."""
        kernel = ProbeKernel("nothing")
        try:
            run = self.bed.run(kernel, samples=_EMPTY_SAMPLES, warmup=10)
            batch = self.bed.run(kernel, samples=_EMPTY_SAMPLES, warmup=10, profile=False)
        except (Refused, RunnerLost) as failure:
            raise KilnError(f"an empty kernel fails on {self._sheet.name}: {failure}") from failure
        wall_ns = batch.wall_ns[0] / _EMPTY_SAMPLES
        times = [end - start for ((_, _, start, end),) in run.samples_ns]
        believable = all(time >= 0 for time in times) and any(times)
        stamps = [stamp for ((_, _, start, end),) in run.samples_ns for stamp in (start, end)]
        # A timer too coarse to see an empty kernel leaves its share of the batch as the best that is known.
        launch_ns = timing.stats([float(time) for time in times]).median_ns if believable else wall_ns
        return launch_ns, wall_ns, timing.timer_step(stamps)


def _to_rate(kernel: ProbeKernel, times_ns: Sequence[float]) -> Rate:
    found = timing.stats(times_ns)
    low_ns, high_ns = found.interval_ns
    return Rate(kernel.work / found.median_ns, (kernel.work / high_ns, kernel.work / low_ns), kernel)
