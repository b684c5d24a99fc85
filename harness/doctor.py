"""What OpenCL is here, in numbers that matter to Kiln, and for each thing that is missing what mends it.

Every device is asked by a runner of its own: a driver that crashes or hangs is a line of the report, not its end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from harness import timing
from harness.adb.checkup import PhoneCheckup, hint, look_at
from harness.adb.phone_link import PhoneLink
from harness.answers import Refused, RunnerLost
from harness.devices import DeviceChoice, known_sheet, list_devices
from harness.errors import KilnError
from harness.probe_kernels import ProbeBed, ProbeKernel
from harness.runtimes import Driver
from harness.supervisor import Supervisor
from harness.tables import bytes_text, table, time_text
from harness.telemetry.feeds import RunnerFeed
from harness.telemetry.probing import probe
from kernels.claims import Contradiction, contradictions
from kernels.identity import versions

# What Kiln has variants for, and the extensions that any of brings it.
FEATURES: Mapping[str, tuple[str, ...]] = {
    "fp16 arithmetic": ("cl_khr_fp16",),
    "subgroups": ("cl_khr_subgroups", "cl_intel_subgroups"),
    "image2d from buffer": ("cl_khr_image2d_from_buffer",),
    "integer dot product": ("cl_khr_integer_dot_product", "cl_arm_integer_dot_product_int8"),
    "priority hints": ("cl_khr_priority_hints", "cl_qcom_priority_hint"),
}
_EMPTY_SAMPLES = 100


@dataclass(frozen=True)
class Checkup:
    """One device."""

    slug: str
    description: Mapping[str, Any]  # as harness.runner.describe documents it
    driver: str  # which library shows it, and where that comes from
    repair: str  # made to the driver before use, "" = none
    compiler: str | None
    features: Mapping[str, bool]
    launch_ns: float | None  # device time of an empty kernel, None where the timer cannot see it
    launch_wall_ns: float | None  # its share of a batch
    sensors: Mapping[str, float | None]
    why: Mapping[str, str]  # reason of each sensor that reads nothing
    wrong: str | None  # what failed when it was tried, None = it runs kernels
    sheet: str | None = None  # of its model
    contradictions: tuple[Contradiction, ...] = ()  # what that sheet says and the device does not confirm
    phone: PhoneCheckup | None = None
    telemetry: tuple[Signal, ...] = ()  # what can be sampled at the end of a cable, and what not


@dataclass(frozen=True)
class Signal:
    """Something that `python -m harness telemetry` would sample."""

    name: str
    where: str  # path or command
    why: str | None  # it cannot be read; None where it can


@dataclass(frozen=True)
class Remedy:
    """Something that is missing or broken, and the command that mends it."""

    what: str
    remedy: str


@dataclass(frozen=True)
class Report:
    """The whole machine."""

    devices: tuple[Checkup, ...]
    missing: tuple[Remedy, ...]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def examine(only: DeviceChoice | None = None) -> Report:
    """Look at every device, or at the chosen one. Seconds: each runs two small batches.

    Raises KilnError where the chosen one is a phone that does not answer any more.
    """
    if only is not None and isinstance(only.link, PhoneLink):
        phone, wrong = look_at(only.link)
        checkup = replace(_checkup(only, None), phone=phone, driver=phone.library)
        return Report((checkup,), tuple(Remedy(item.what, item.remedy) for item in wrong))
    if only is not None and not only.python_runner:  # nothing of this machine's drivers is behind it
        return Report((_checkup(only, None),), ())
    attached = list_devices()
    missing = [Remedy(item.what, item.remedy) for item in attached.runtimes.missing]
    drivers = {driver.name: driver for driver in attached.runtimes.drivers}
    found = []
    for live in attached.devices:
        choice = live.choice()
        if only is None or choice.command == only.command:
            found.append(_checkup(choice, drivers.get(live.driver)))
    return Report(tuple(found), tuple(missing))


def _checkup(choice: DeviceChoice, driver: Driver | None) -> Checkup:
    described = choice.description
    with Supervisor(choice.command, link=choice.link) as supervisor:
        launch_ns, wall_ns, sensors, why, wrong = _try(supervisor)
        telemetry = () if wrong or choice.python_runner else _telemetry(supervisor, choice)
    sheet = known_sheet(described)
    return Checkup(
        slug=choice.slug,
        description=described,
        driver=f"{driver.library} ({driver.origin})" if driver else " ".join(choice.command),
        repair=driver.note if driver else "",
        compiler=compiler(described),
        features={name: not set(needed).isdisjoint(described["extensions"]) for name, needed in FEATURES.items()},
        launch_ns=launch_ns,
        launch_wall_ns=wall_ns,
        sensors=sensors,
        why=why,
        wrong=wrong,
        telemetry=telemetry,
        sheet=sheet.name if sheet else None,
        contradictions=contradictions(sheet, choice.sheet) if sheet else (),
    )


def _try(
    supervisor: Supervisor,
) -> tuple[float | None, float | None, Mapping[str, float | None], Mapping[str, str], str | None]:
    """Run empty kernels and read the sensors: (device time, wall time, readings, reasons, what is wrong)."""
    bed, nothing = ProbeBed(supervisor), ProbeKernel("nothing")
    try:
        run = bed.run(nothing, samples=_EMPTY_SAMPLES, warmup=10)
        batch = bed.run(nothing, samples=_EMPTY_SAMPLES, warmup=10, profile=False)
        read = supervisor.sensors()
    except (Refused, RunnerLost, KilnError) as failure:
        return None, None, {}, {}, str(failure)
    why_invalid = timing.invalid(run.samples_ns)
    launch_ns = None if why_invalid else timing.stats(timing.durations(run.samples_ns)).median_ns
    return launch_ns, batch.wall_ns[0] / _EMPTY_SAMPLES, read.values, read.why, None


def _telemetry(supervisor: Supervisor, choice: DeviceChoice) -> tuple[Signal, ...]:
    """What of a device that is not this machine can be sampled."""
    try:
        _, probed = probe(RunnerFeed(supervisor).read, choice.link.shell if choice.link else None)
    except (Refused, RunnerLost, KilnError) as failure:
        return (Signal("telemetry", "the runner", str(failure)),)
    return tuple(Signal(one.source.signal, one.path, one.why) for one in probed)


def compiler(description: Mapping[str, Any]) -> str | None:
    """The compiler's own version where the driver tells it: on Adreno and PoCL bugs follow it, not the GPU."""
    driver, told = versions(description)
    return None if told == driver else told


# ---------------------------------------------------------------- for people


def text(report: Report) -> str:
    """The report as a table with one column a device, and the list of what is missing."""
    parts = []
    if report.devices:
        columns = [_column(device) for device in report.devices]
        rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
        parts.append(table(["", *(device.slug for device in report.devices)], rows))
    else:
        parts.append("No OpenCL device was found.")
    for device in report.devices:
        parts += [f"{device.slug}: {note}" for note in _notes(device)]
    parts += [f"missing: {item.what}\n   mend it: {item.remedy}" for item in report.missing]
    return "\n".join(parts)


def _column(device: Checkup) -> dict[str, str]:
    d = device.description
    images = f"{d['image2d_max_width']} × {d['image2d_max_height']}" if d["image2d_max_width"] else "none"
    pitch = d["image_pitch_alignment"]
    subgroups = ", ".join(map(str, d["subgroup_sizes"])) or "–"
    clock = device.sensors.get("gpu_clock_mhz") or device.sensors.get("cpu_clock_mhz")
    readable = [name for name, value in device.sensors.items() if value is not None]
    readable += [signal.name for signal in device.telemetry if signal.why is None and signal.name not in readable]
    return {
        "device": d["name"],
        "platform": _short(d["platform_name"]),
        "platform version": _short(d["platform_version"]),
        "version": _short(d["version"]),
        "OpenCL C": d["opencl_c_version"].removeprefix("OpenCL C ").strip(),
        "driver": _short(d["driver_version"]),
        "compiler": device.compiler or "not told",
        **{name: "yes" if has else "no" for name, has in device.features.items()},
        "subgroup sizes": subgroups,
        "compute units": str(d["compute_units"]),
        "work-group limit": f"{d['max_work_group_size']} ({' × '.join(map(str, d['max_work_item_sizes']))})",
        "local memory": bytes_text(d["local_mem_size"]),
        "largest buffer": bytes_text(d["max_mem_alloc_size"]),
        "memory": bytes_text(d["global_mem_size"]),
        "last-level cache": bytes_text(d.get("last_level_cache_bytes") or d["global_mem_cache_size"]),
        "largest image": images + (f", pitch {pitch} texels" if pitch else ""),
        "timer resolution": time_text(d["profiling_timer_resolution_ns"]),
        "empty kernel": time_text(device.launch_ns) + ", launched in " + time_text(device.launch_wall_ns),
        "clock": f"{clock:.0f} MHz" if clock else "not readable",
        "telemetry": "\n".join(readable) or "nothing readable",
        **(device.phone.rows() if device.phone else {}),
        "works": "no" if device.wrong else "yes",
    }


def _short(words: str, most: int = 44) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"


def _notes(device: Checkup) -> Sequence[str]:
    notes = [f"driver {device.driver}"]
    if device.repair:
        notes.append(f"repaired: {device.repair}")
    if device.wrong:
        notes.append(f"does not run kernels: {device.wrong}")
    notes += map(str, device.contradictions)
    if device.phone and (how := hint(device.phone)):
        notes.append(how)
    if device.sheet and not device.contradictions:
        notes.append(f"it has the limits that its sheet, {device.sheet}, says")
    sampled = {one.name for one in device.telemetry}
    why = {name: reason for name, reason in device.why.items() if name not in sampled}
    why |= {f"{one.name} ({one.where})": one.why for one in device.telemetry if one.why}
    return [*notes, *(f"{name} is not readable: {reason}" for name, reason in why.items())]
