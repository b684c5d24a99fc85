"""`doctor --bundle`: everything that helps to find out from afar why a device does not work, in one zip file.

Text alone, which its sender can read first. Serial numbers, the user's and the machine's name and home folder are
replaced in every file; nothing is asked of a phone that is about its owner (no log, no list of apps, no accounts).
"""

from __future__ import annotations

import contextlib
import getpass
import platform
import re
import socket
import sys
import zipfile
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version
from pathlib import Path

from harness import doctor
from harness.adb.client import Adb, find, phones, version
from harness.adb.condition import LOOK
from harness.adb.phone_link import FOLDER
from harness.devices import resolve
from harness.errors import KilnError, UsageError
from harness.tables import json_text

_PACKAGES = ("kiln-workbench", "numpy", "pyopencl", "pocl-binary-distribution", "intel-opencl-rt", "optuna", "scipy")
_PROPS = re.compile(
    r"ro\.(build\.(version\.(release|sdk|security_patch|incremental)|fingerprint|type)|product\.(manufacturer|brand|model"
    r"|device|board|cpu\.abilist64?)|soc\.(manufacturer|model)|board\.platform|hardware(\.egl|\.vulkan)?|opengles\.version"
    r"|vendor\.api_level|gfx\.driver\.0)"
)
_PHONE: Mapping[str, str] = {  # file of the bundle → what a phone is asked
    "condition.txt": LOOK,
    "libraries.txt": "ls -l /vendor/lib64/*OpenCL* /system/vendor/lib64/*OpenCL* /vendor/lib64/egl/*mali* "
    "/vendor/lib64/egl/*/*mali* /vendor/lib64/*PVROCL* 2>&1; cat /vendor/etc/public.libraries*.txt 2>&1",
    "gpu.txt": "for f in /sys/class/kgsl/kgsl-3d0/gpu_model /sys/class/misc/mali0/device/gpuinfo /proc/gpufreqv2/"
    'gpufreq_status; do echo "== $f"; cat $f 2>&1; done',
    "kernel.txt": "uname -r; uname -m; cat /proc/meminfo | head -n 3",
    "runner.txt": f"ls -l {FOLDER} 2>&1; cd {FOLDER} && for r in ./kiln-runner-*; do $r --version 2>&1; "
    "LD_LIBRARY_PATH=/vendor/lib64:/system/vendor/lib64 $r --list 2>&1; echo status $?; done",
}
_READ_ME = """What is in here: versions of Kiln and its packages, what `python -m harness doctor` found or why it
failed, and of each phone that adb lists its build, GPU, OpenCL libraries, battery, temperature and free space.
What is not: serial numbers, user, host and home folder (replaced by words in capitals), logs, apps, accounts.
Read it before you send it.
"""


def pack(path: Path, device: str | None) -> KilnError | None:
    """Write the bundle; `device` as for doctor. Returns what went wrong with the device, which is in the bundle too.

    Raises UsageError for a path that is no .zip, KilnError where it cannot be written.
    """
    if path.suffix != ".zip" or path.is_dir():
        raise UsageError(f"--bundle must name a .zip file, not {path}")
    files, failure = {"README.txt": _READ_ME, "versions.json": json_text(_versions())}, None
    secrets = _own_names()
    try:
        files["doctor.json"] = json_text(doctor.examine(resolve(device) if device else None).to_json())
    except KilnError as error:
        failure = error
        files["doctor-failed.txt"] = f"exit code {error.exit_code}: {error}\n"
    for number, phone in enumerate(_phones(files), 1):
        name = f"SERIAL-{number}"
        secrets[phone.serial] = name
        props = _answer(phone, "getprop")
        for serial in re.findall(r"\[ro\.(?:boot\.)?serialno\]: \[(.+)\]", props):
            secrets[serial] = name
        kept = [line for line in props.splitlines() if _PROPS.fullmatch(line.partition("]")[0].strip("["))]
        files[f"{name}/getprop.txt"] = "\n".join(kept) + "\n"
        files |= {f"{name}/{file}": _answer(phone, text) for file, text in _PHONE.items()}
    try:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
            for file, text in files.items():
                bundle.writestr(file, redacted(text, secrets))
    except OSError as error:
        raise KilnError(f"{path} cannot be written: {error.strerror}") from error
    return failure


def redacted(text: str, secrets: Mapping[str, str]) -> str:
    """The text with each secret replaced by its word, the longest first; a short word only where it stands alone."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])", secrets[secret], text)
    return text


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": sys.version, "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = distribution_version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _own_names() -> dict[str, str]:
    """This machine's and its user's names, and what stands for them."""
    names = {str(Path.home()): "HOME", socket.gethostname(): "HOST"}
    with contextlib.suppress(OSError, KeyError):  # a user without a name
        names[getpass.getuser()] = "USER"
    return {name: word for name, word in names.items() if len(name) > 1 and name not in ("/", "root", "localhost")}


def _phones(files: dict[str, str]) -> Iterable[Adb]:
    """Every phone that adb lists, and what it says of them in `files`."""
    adb = find()
    if adb is None:
        files["adb.txt"] = "adb is not on the PATH\n"
        return
    try:
        found = phones(adb)
    except KilnError as error:
        files["adb.txt"] = f"{error}\n"
        return
    lines = [f"SERIAL-{n} {phone.state} {phone.model}".rstrip() for n, phone in enumerate(found, 1)]
    files["adb.txt"] = "\n".join([version(adb), *(lines or ["no phone"])]) + "\n"
    yield from (Adb(adb, phone.serial) for phone in found)


def _answer(phone: Adb, text: str) -> str:
    done = phone.shell(text, timeout_s=60.0)
    if done is None:
        return "no answer within 60 s\n"
    return done.out + done.err + (f"status {done.status}\n" if done.status else "")
