"""The cost model: from what a configuration moves, holds and computes to the time that it should take, and why.

It knows a device by its sheet and its peaks alone. Nothing is fitted to a device: a constant below is either a fact of
how such processors are built, or a middle of what is known of them, and says which. How well the result orders
configurations is not a matter of belief: `python -m tuner judge` compares it with recorded trials. Which terms it has
was settled while looking at trials of an H200 and an H100, so that what it says of those two is no independent test.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from harness.measure import cache_bytes
from harness.probe import Rates
from kernels.peaks import Peaks
from kernels.spec import Config, Cost, DeviceSheet, Family, Launch, Schedule, Traffic, Workload, evaluate
from kernels.tuned import Prediction

MODEL_VERSION = "kiln-cost-1"

# What units do at once overlaps, though not wholly: a norm of this order takes 26 % more for two equal terms than for
# one, and the larger term alone where they differ by more than a factor of two.
_NORM = 3.0
# A re-read that the last-level cache serves, over a read from memory. An H100's cache gives about twice its memory's
# rate, a phone's or a CPU's three to four times (recalled, unchecked): the least, so that re-reads are not free.
_CACHE_OVER_MEMORY = 2.0
# A plain operation takes a slot in which a multiply-add would do two: traffic counts operations of both kinds as FLOPs.
_SLOT = 2.0

# GPUs. From memory to a register under load: 400 to 800 ns, on phones and on servers alike (recalled, unchecked).
_LATENCY_NS = 600.0
_CACHE_LATENCY_NS = 100.0  # the same from a cache: 20 ns from the first level, 150 to 250 from the last
_IN_FLIGHT_BYTES = 64.0  # that a work-item waits for at once: four loads of 16 bytes, as far as compilers hoist them
# Work-items that one compute unit holds with that many registers each: half of NVIDIA's 2,048. An Adreno A7xx (16 waves
# of 64 at most; Mesa, ir3.c) and a Mali (1,024 at most) hold 512 then: the model is that much too hopeful of them.
_RESIDENT = 1024
_REGISTERS = 64  # where no source tells: NVIDIA's 65,536 of a multiprocessor, for so many
_INDEPENDENT = 512.0  # multiply-adds that keep a unit's 128 lanes busy: four cycles from one to the next that needs it
_LOAD_OVER_MADD = 0.25  # words that the first-level cache gives a cycle, over multiply-adds: 32 beside 128 lanes
_BARRIER_NS = 30.0  # some thirty cycles of a gigahertz, once every wave is there

# Where no source tells what an empty kernel takes, as for every phone: an H100 was probed at 5.1 µs, an H200 at 5.8.
_LAUNCH_NS = 5000.0

# CPUs. A work-group is a call through the runtime's queue; a core loads as many vectors as it multiplies.
_GROUP_NS = 300.0
_CPU_LOAD_OVER_MADD = 1.0


@dataclass(frozen=True)
class Predicted:
    """The time of one call, and what it consists of: `terms` are ns of each resource, were it alone."""

    ns: float
    limited_by: str  # the largest term's name
    terms: Mapping[str, float]

    @property
    def prediction(self) -> Prediction:
        """As an entry of a document holds it."""
        return Prediction(round(self.ns, 1), self.limited_by, MODEL_VERSION)


def peaks_of(rates: Rates, sheet: DeviceSheet) -> Peaks:
    """Peaks of a live device: what was probed, and what its sheet says; drivers tell neither registers nor waves."""
    return Peaks(
        read_per_ns=rates.read_per_ns,
        copy_per_ns=rates.copy_per_ns,
        flops_per_ns=dict(rates.flops_per_ns),
        launch_ns=rates.launch_ns,
        last_level_cache_bytes=cache_bytes(sheet),
        registers_per_work_item=None,
        wave=max(sheet.subgroup_sizes, default=None) if sheet.kind == "gpu" else None,
        compute_units=sheet.compute_units,
    )


def predict(family: Family, workload: Workload, config: Config, sheet: DeviceSheet, peaks: Peaks) -> Predicted:
    """What a legal configuration should take, its weights cold, from its own traffic."""
    return _predict(family, workload, family.cost(workload), config, sheet, peaks)


def _predict(
    family: Family, workload: Workload, least: Cost, config: Config, sheet: DeviceSheet, peaks: Peaks
) -> Predicted:
    variant = family.variant(config["variant"])
    traffic = variant.traffic(config, workload, sheet)
    schedule = variant.schedule(config, workload)
    shape = _Shape.of(schedule.launches, workload, traffic, sheet, peaks)
    operations = least.flops + _SLOT * max(0.0, traffic.flops - least.flops)  # beyond the least: plain operations
    madd_ns = operations / _flops_per_ns(workload, peaks, packed=_packed_dot(variant.needs))
    words = _words_per_madd(workload, traffic, sheet)
    loads = words * (_CPU_LOAD_OVER_MADD if sheet.kind == "cpu" else 1 / _LOAD_OVER_MADD)
    terms = {
        **_memory(least, traffic, sheet, peaks, shape),
        "latency": _latency(traffic, 2 * words * operations, shape),
        "arithmetic": madd_ns / shape.compute_share,
        "loads": madd_ns * loads / shape.busy_share,
        "launch": (peaks.launch_ns or _LAUNCH_NS) * len(schedule.launches),
        "stages": _stages(schedule, workload, traffic) if sheet.kind != "cpu" else 0.0,
    }
    at_once = [ns for name, ns in terms.items() if name not in ("launch", "stages")]
    overlapped = sum(ns**_NORM for ns in at_once) ** (1 / _NORM)
    total = terms["launch"] + terms["stages"] + overlapped * shape.spilled + shape.waiting_ns
    return Predicted(total, max(terms, key=lambda name: terms[name]), terms)


def rank(
    family: Family, workload: Workload, configs: Iterable[Config], sheet: DeviceSheet, peaks: Peaks
) -> list[tuple[Predicted, Config]]:
    """Configurations with their predictions, fastest first; equal ones keep their order."""
    least = family.cost(workload)
    found = [(_predict(family, workload, least, config, sheet, peaks), config) for config in configs]
    return sorted(found, key=lambda pair: pair[0].ns)


# ---------------------------------------------------------------- how the work lies on the device


@dataclass(frozen=True)
class _Shape:
    """How much of a device a launch keeps busy."""

    items: float  # work-items at work at once, over all compute units
    busy_share: float  # of the units, over the time: a last round that is not full leaves some idle
    compute_share: float  # of the multiply-add rate: lanes that are there and latency that is hidden
    spilled: float  # factor on everything for registers that there are not
    waiting_ns: float  # barriers, and work-groups being started

    @staticmethod
    def of(
        launches: tuple[Launch, ...], workload: Workload, traffic: Traffic, sheet: DeviceSheet, peaks: Peaks
    ) -> _Shape:
        """Of the launch that the traffic's work-items are counted of; the others prepare its work or join its parts."""
        items, main = _main(launches, workload, traffic)
        local = prod(main.local) if main.local else 64
        groups = max(1.0, items / local)
        units = max(1, peaks.compute_units or sheet.compute_units)
        return (_on_cpu if sheet.kind == "cpu" else _on_gpu)(groups, local, units, traffic, sheet, peaks)


def _on_gpu(groups: float, local: int, units: int, traffic: Traffic, sheet: DeviceSheet, peaks: Peaks) -> _Shape:
    registers = max(1, traffic.registers)
    half = peaks.registers_per_work_item or _REGISTERS
    room = _RESIDENT * min(1.0, half / registers)  # work-items of a unit, by registers
    together = max(1.0, room // local)  # work-groups of a unit
    if traffic.local_bytes:
        together = max(1.0, min(together, sheet.local_bytes // traffic.local_bytes))
    per_unit = min(together, groups / units)  # fewer than one: some units have none
    busiest = math.ceil(groups / units)
    busy = groups / (units * busiest)
    wave = peaks.wave or 32
    lanes = local / (math.ceil(local / wave) * wave)
    chains = min(4.0, max(1.0, registers / 8))  # sums that do not wait for one another
    hidden = min(1.0, max(1.0, per_unit) * local * chains / _INDEPENDENT)
    most = 2 * half  # where spilling begins: Adreno's 192 of 96; Mali's 64 of 64 and NVIDIA's 255 of 64 lie around it
    rounds = groups / (units * together)
    barriers = math.log2(max(2, local)) * _BARRIER_NS * max(1.0, rounds) if traffic.local_bytes else 0.0
    return _Shape(
        items=per_unit * units * local,
        busy_share=busy,
        compute_share=busy * lanes * hidden,
        spilled=max(1.0, registers / most),
        waiting_ns=barriers,
    )


def _on_cpu(groups: float, local: int, units: int, traffic: Traffic, sheet: DeviceSheet, peaks: Peaks) -> _Shape:
    busy = groups / (units * math.ceil(groups / units))
    # One work-item has its vectors written out; several are laid side by side in lanes, a vector register for each.
    lanes = sheet.vector_floats or 16
    vectors = traffic.registers / lanes if local == 1 else float(traffic.registers)
    return _Shape(
        items=math.inf,
        busy_share=busy,
        compute_share=busy,
        spilled=max(1.0, vectors / sheet.vector_registers),
        waiting_ns=_GROUP_NS * math.ceil(groups / units),
    )


# ---------------------------------------------------------------- what the work needs


def _packed_dot(needs: tuple[str, ...]) -> bool:
    return any("dot_product" in name for name in needs)


def _flops_per_ns(workload: Workload, peaks: Peaks, *, packed: bool) -> float:
    """The rate of the workload's arithmetic; where no source has it, float's, times four for packed products."""
    compute = workload.dtypes.compute
    if compute == "int8" and not packed:
        return peaks.flops_per_ns.get("fp32") or max(peaks.flops_per_ns.values())
    if known := peaks.flops_per_ns.get(compute):
        return known
    usual = peaks.flops_per_ns.get("fp32") or max(peaks.flops_per_ns.values())
    return 4 * usual if compute == "int8" else usual


def _memory(cost: Cost, traffic: Traffic, sheet: DeviceSheet, peaks: Peaks, shape: _Shape) -> dict[str, float]:
    """Weights and caches from memory; activations too where they do not fit the cache; what is read again from it.

    A cache of unknown size holds no activations, so that no prediction is below the roofline, but what is read again.
    """
    cache = peaks.last_level_cache_bytes
    moved = traffic.read_bytes + traffic.write_bytes
    again = max(0.0, moved - cost.bytes)
    warm = max(0.0, cost.bytes - cost.cold)
    from_memory = cost.cold + (warm if warm > cache else 0.0) + (again if 0 < cache < cost.bytes else 0.0)
    written = cost.written if warm > cache else 0.0
    copy_per_ns = peaks.copy_per_ns or peaks.read_per_ns
    memory_ns = max(0.0, from_memory - 2 * written) / peaks.read_per_ns + 2 * written / copy_per_ns
    cached = max(0.0, moved - from_memory)
    units_share = shape.busy_share if sheet.kind == "cpu" else 1.0  # a core alone does not fill the memory's bus
    return {
        "bandwidth": memory_ns / units_share,
        "cache": cached / (_CACHE_OVER_MEMORY * peaks.read_per_ns) / units_share,
    }


def _latency(traffic: Traffic, loaded_bytes: float, shape: _Shape) -> float:
    """By Little's law: what work-items wait for, over what all of them together have on its way."""
    moved = traffic.read_bytes + traffic.write_bytes
    each = min(_IN_FLIGHT_BYTES, max(4.0, traffic.read_bytes / max(1, traffic.work_items)))
    far, near = moved / each * _LATENCY_NS, max(0.0, loaded_bytes - moved) / _IN_FLIGHT_BYTES * _CACHE_LATENCY_NS
    return (far + near) / shape.items


def _main(launches: tuple[Launch, ...], workload: Workload, traffic: Traffic) -> tuple[int, Launch]:
    """The launch that does the work, and its work-items."""
    sizes = [(prod(evaluate(size, workload.dims) for size in launch.grid), launch) for launch in launches]
    return min(sizes, key=lambda pair: abs(math.log(pair[0] / max(1, traffic.work_items or pair[0]))))


def _stages(schedule: Schedule, workload: Workload, traffic: Traffic) -> float:
    """What the launches beside the main one wait for: they write or read the scratch, often with few work-items."""
    scratch = sum(evaluate(part.bytes, workload.dims) for part in schedule.scratch)
    main = _main(schedule.launches, workload, traffic)[1]
    items = [
        prod(evaluate(n, workload.dims) for n in launch.grid) for launch in schedule.launches if launch is not main
    ]
    return sum(scratch / (count * _IN_FLIGHT_BYTES) * _LATENCY_NS for count in items)


def _words_per_madd(workload: Workload, traffic: Traffic, sheet: DeviceSheet) -> float:
    """Words that the first-level cache gives for one multiply-add.

    A tile of s sums, as nearly square as it may be, loads 2 √s words for s multiply-adds; half of the registers are
    taken for sums. Halves are loaded one by one, as words are.
    """
    lanes = (sheet.vector_floats or 16) if sheet.kind == "cpu" else 1
    sums = max(1.0, traffic.registers / 2 / lanes)
    return 2 / math.sqrt(sums)
