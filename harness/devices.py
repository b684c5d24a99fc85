"""Which device a name means: lists what is attached, in runner processes of their own, and chooses."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from harness import runtimes
from harness.adb import attach
from harness.adb.phone_link import PhoneLink
from harness.child import environment
from harness.errors import DeviceMissing, KilnError, UsageError
from harness.link import Link
from harness.runtimes import Driver, Missing, Runtimes
from harness.scratch import Scratch
from harness.supervisor import RunnerLost, Supervisor
from kernels.claims import denied
from kernels.identity import versions
from kernels.sheet import Identity, Sheet, Strings, identity, sheet_names, sheet_of
from kernels.spec import DeviceSheet

_LIST_TIMEOUT_S = 60.0
_PHONES = ("Qualcomm", "Arm")  # vendors of GPUs that come in a phone
_INSTALL = "pip install 'kiln-workbench[cpu]'"


@dataclass(frozen=True)
class LiveDevice:
    """A device that is attached, and the driver that shows it."""

    driver: str
    selector: str
    description: Mapping[str, Any]  # as harness.runner.describe documents it

    def choice(self) -> DeviceChoice:
        """This device to work on, through the Python runner."""
        d = self.description
        return DeviceChoice(slug(d), runner_command(self.driver, self.selector), d, sheet_from(d), python_runner=True)

    def __str__(self) -> str:
        return f'"{self.description["name"]}" ({self.description["platform_name"]})'


@dataclass(frozen=True)
class Attached:
    """Everything that was found, and what was not or did not work."""

    devices: tuple[LiveDevice, ...]
    runtimes: Runtimes


@dataclass(frozen=True)
class DeviceChoice:
    """One device to work on."""

    slug: str  # short and stable, for file names: cpu-pocl, adreno750
    command: tuple[str, ...]  # starts its runner
    description: Mapping[str, Any]
    sheet: DeviceSheet
    python_runner: bool = False  # the command is harness.runner's and takes its options
    link: Link | None = None  # what lies between, for the supervisor


def runner_command(driver: str, selector: str, *more: str) -> tuple[str, ...]:
    """The command of a Python runner for one device. It loads that device's driver alone, so that no other can hurt."""
    return (sys.executable, "-P", "-m", "harness.runner", "--driver", driver, "--device", selector, *more)


def list_devices() -> Attached:
    """Every device of every driver, each driver in a process of its own: one that crashes is reported, and no more."""
    found = runtimes.find()
    with ThreadPoolExecutor(max_workers=4) as pool:
        listed = list(pool.map(_list, found.drivers))
    devices, drivers, missing = [], [], list(found.missing)
    for live, driver, wrong in listed:
        devices += live
        drivers.append(driver)
        missing += wrong
    return Attached(tuple(devices), Runtimes(tuple(drivers), tuple(missing)))


def _list(driver: Driver) -> tuple[list[LiveDevice], Driver, list[Missing]]:
    command = (sys.executable, "-P", "-m", "harness.runner", "--driver", driver.name, "--list")
    remedy = f"reinstall the driver that {driver.origin} belongs to, or remove it"
    try:
        with Scratch() as scratch:
            done = subprocess.run(
                command,
                check=False,
                capture_output=True,
                timeout=_LIST_TIMEOUT_S,
                env=environment(scratch.path),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
    except subprocess.TimeoutExpired:
        return [], driver, [Missing(f"{driver.origin} hangs when its devices are listed", remedy)]
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        what = f"{driver.origin} ended with status {done.returncode} when its devices were listed: {words[0]}"
        return [], driver, [Missing(what, remedy)]
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        what = f"{driver.origin} said something else than its devices: {done.stdout[:80]!r}"
        return [], driver, [Missing(what, remedy)]
    live = [LiveDevice(driver.name, d.pop("selector"), d) for d in answer["devices"]]
    loaded = [Driver(**d) for d in answer["runtimes"]["drivers"]]
    return live, loaded[0] if loaded else driver, [Missing(**m) for m in answer["runtimes"]["missing"]]


def resolve(name: str) -> DeviceChoice:
    """The device that `--device NAME` means.

    NAME is `auto` (the first GPU, else `cpu`), `cpu` (PoCL's, else the first), `ocl:SUBSTRING` of "platform / device",
    `exec:'COMMAND'` (a native runner), `adb` or `adb:SERIAL` (a phone on the cable) or a sheet: a device of this
    machine, else a phone. Raises UsageError for another name, DeviceMissing where nothing attached is meant by it.
    """
    if name.startswith("exec:"):
        words = _command_line(name)
        return _native(words, words[0])
    if name.partition(":")[0] == "adb":
        return _phone(attach.named(name.partition(":")[2]))
    if name == "ocl:" or not (name in ("auto", "cpu", *sheet_names()) or name.startswith("ocl:")):
        raise UsageError(
            f'unknown device "{name}"; choose auto, cpu, ocl:SUBSTRING of a platform or device name, '
            f"exec:'COMMAND' of a native runner, adb, adb:SERIAL, or a GPU model: {', '.join(sheet_names())}"
        )
    attached = list_devices()
    if name in sheet_names():
        return _of_model(identity(name), attached)
    if not attached.devices:
        raise DeviceMissing(_no_opencl(attached.runtimes))
    if name.startswith("ocl:"):
        chosen = _by_substring(name.removeprefix("ocl:"), attached.devices)
    else:
        chosen = _default(name, attached.devices)
    return chosen.choice()


def _default(name: str, devices: Sequence[LiveDevice]) -> LiveDevice:
    gpus = [d for d in devices if d.description["type"] == "gpu"]
    if name == "auto" and gpus:
        return gpus[0]
    cpus = [d for d in devices if d.description["type"] == "cpu"]
    cpus.sort(key=lambda d: _platform(d.description) != "pocl")
    if not cpus:
        raise DeviceMissing(f"no CPU device: found {_listing(devices)}; {_INSTALL} brings one")
    return cpus[0]


def _by_substring(text: str, devices: Sequence[LiveDevice]) -> LiveDevice:
    for device in devices:
        if text.lower() in f"{device.description['platform_name']} / {device.description['name']}".lower():
            return device
    raise DeviceMissing(f'no platform or device has "{text}" in its name: found {_listing(devices)}')


def _of_model(sheet: Identity, attached: Attached) -> DeviceChoice:
    for device in attached.devices:
        if sheet.matches(Strings.of(device.description)):
            return device.choice()
    links, wrong = attach.every()
    others = list(map(str, attached.devices))
    for link in links:
        try:
            choice = _phone(link)
        except KilnError as error:
            wrong.append(str(error))
            continue
        if sheet.matches(Strings.of(choice.description)):
            return choice
        others.append(f'phone {link.phone.serial} ("{choice.description["name"]}")')
    found = f"found {', '.join(others)}" if others else _no_opencl(attached.runtimes)
    found += "".join(f", and {why}".replace("; ", ", ") for why in wrong)
    remedy = "connect the phone" if sheet.vendor in _PHONES else "attach it"
    raise DeviceMissing(f"no {sheet.model} is attached: {found}; {remedy} or try --device cpu")


def _command_line(name: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(name.removeprefix("exec:")))
    except ValueError as error:
        raise UsageError(f"{name} is not a command line: {error}") from error
    if not words:
        raise UsageError("exec: needs the command line of a native runner, as in --device exec:'./runner --gpu 0'")
    return words


def _phone(link: PhoneLink) -> DeviceChoice:
    return _native(link.command, f"phone {link.phone.serial}", link)


def _native(words: tuple[str, ...], title: str, link: Link | None = None) -> DeviceChoice:
    """Ask a native runner what its device is. One that has none says so itself, in a sentence, and exits with 3."""
    try:
        with Supervisor(words, link=link) as supervisor:
            description = supervisor.hello().device
    except RunnerLost as lost:
        if "ended with exit status 3 " in lost.log:
            said = lost.log.strip().splitlines()[-1].removeprefix("kiln-runner: ")
            raise DeviceMissing(f"{title}: {said}") from lost
        raise DeviceMissing(f"{title} does not answer as a runner: {lost}") from lost
    except DeviceMissing:
        raise
    except KilnError as error:
        raise DeviceMissing(f"{title} does not answer as a runner: {error}") from error
    try:
        return DeviceChoice(slug(description), words, description, sheet_from(description), link=link)
    except (KeyError, TypeError, AttributeError) as error:
        raise DeviceMissing(f"{title} does not describe its device as a runner does: {error!r}") from error


def _listing(devices: Sequence[LiveDevice]) -> str:
    return ", ".join(map(str, devices))


def _no_opencl(found: Runtimes) -> str:
    told = "; ".join(m.what for m in found.missing) or "its drivers show no device"
    return f"no OpenCL device on this machine ({told}): {_INSTALL} brings one that needs no GPU"


# ---------------------------------------------------------------- reading a description


def sheet_from(description: Mapping[str, Any]) -> DeviceSheet:
    """What a live device's description says about legality, and its sheet about what its compiler gets wrong."""
    d = description
    known = known_sheet(d)
    images = (d["image2d_max_width"], d["image2d_max_height"])
    version = re.search(r"OpenCL C (\d+)\.(\d+)", d["opencl_c_version"])
    return DeviceSheet(
        name=slug(d),
        vendor=d["vendor"],
        kind=d["type"] if d["type"] in ("cpu", "gpu") else "other",
        max_work_group=d["max_work_group_size"],
        max_work_item_sizes=tuple(d["max_work_item_sizes"]),
        local_bytes=d["local_mem_size"],
        max_alloc_bytes=d["max_mem_alloc_size"],
        global_bytes=d["global_mem_size"],
        compute_units=d["compute_units"],
        cache_bytes=d.get("last_level_cache_bytes") or d["global_mem_cache_size"],
        image2d=images if all(images) else None,
        image_pitch_texels=d["image_pitch_alignment"],
        image_base_texels=d["image_base_address_alignment"],
        subgroup_sizes=tuple(d["subgroup_sizes"]),
        extensions=frozenset(d["extensions"]),
        opencl_c=(int(version[1]), int(version[2])) if version else (1, 0),
        vector_floats=d.get("vector_floats", 0),
        denied=denied(known, versions(d)[1]) if known else (),
    )


def known_sheet(description: Mapping[str, Any]) -> Sheet | None:
    """The sheet of a live device's model, if there is one."""
    return sheet_of(Strings.of(description))


def slug(description: Mapping[str, Any]) -> str:
    """A short stable name of a device: its sheet's, `cpu-<platform>`, or vendor and model, as in nvidia-h200."""
    if sheet := known_sheet(description):
        return sheet.name
    if description["type"] == "cpu":
        return f"cpu-{_platform(description)}"
    vendor = _plain(description["vendor"]).split("-")[0]
    model = _plain(description["name"])
    return model if model.startswith(vendor) else f"{vendor}-{model}"


def _platform(description: Mapping[str, Any]) -> str:
    name = description["platform_name"]
    return "pocl" if name == "Portable Computing Language" else _plain(name)


def _plain(text: str) -> str:
    """Lower-case words joined by dashes, without what vendors decorate names with."""
    text = re.sub(r"\((r|tm|c)\)|\b(corporation|corp|inc|opencl|graphics|gpu)\b", " ", text.lower())
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-") or "unknown"
