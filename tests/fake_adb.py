"""An adb client that talks to phones which are folders: what Kiln uses of the real one, with its words and statuses.

After AOSP's sources and Debian's adb 29.0.6: `devices -l` and the states are list_transports and connection_state_name
in transport.cpp; `shell` (here always protocol 2), its refusal where a phone is not there, and exit status 0 where the
connection breaks are RemoteShell and read_and_dump in client/commandline.cpp; pushing is client/file_sync_client.cpp.

$FAKE_ADB is a folder with a folder for each phone, named by its serial, in which are
    root/      the phone's files          bin/       commands that its shell has beside this machine's
    state      as `adb devices` says it   model
    gone       while it is there, the cable is out: what runs over it breaks off
    back       "link" or "boot": `wait-for-device` finds the phone again, in the second case freshly booted
    full       while it is there, nothing can be pushed
    stubborn   {file: text}: what these files hold after every command, whatever was written
    calls      a line for each command
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

HOME = Path(os.environ["FAKE_ADB"])
MAPPED = re.compile(r"(?<![\w/.-])(/data/local/tmp|/sys/|/proc/)")
UNAUTHORIZED = """device unauthorized.
This adb server's $ADB_VENDOR_KEYS is not set
Try 'adb kill-server' if that seems wrong.
Otherwise check for a confirmation dialog on your device."""


def fail(words):
    print(words, file=sys.stderr, flush=True)
    sys.exit(1)


def state(phone):
    told = phone / "state"
    return told.read_text().strip() if told.exists() else "device"


def devices():
    print("List of devices attached")
    for number, phone in enumerate(sorted(HOME.iterdir()), 1):
        if (phone / "gone").exists():
            continue
        about = " product:fake model:Paper_Phone device:fake" if state(phone) == "device" else ""
        print(f"{phone.name:22} {state(phone)} usb:1-{number}{about} transport_id:{number}")
    print()


def error(serial):
    """Why the server would not open a transport, or None."""
    phone = HOME / serial
    if not phone.is_dir() or (phone / "gone").exists():
        return f"device '{serial}' not found"
    if state(phone) == "device":
        return None
    return UNAUTHORIZED if state(phone) == "unauthorized" else f"device {state(phone)}"


def on_phone(phone, text):
    return MAPPED.sub(lambda match: f"{phone}/root{match[0]}", text)


def settle(phone):
    """What the kernel makes of what was written."""
    root = phone / "root"
    for path in root.glob("sys/**/power_policy"):
        if "[" not in (held := path.read_text()):
            names = ("coarse_demand", "always_on")
            path.write_text(" ".join(f"[{name}]" if name == held.strip() else name for name in names) + "\n")
    for path in root.glob("proc/gpufreqv2/fix_target_opp_index"):
        if (held := path.read_text().strip()).lstrip("-").isdecimal():
            fixed = f"fix OPP index: {held}" if int(held) >= 0 else "fix target OPP index is disabled"
            path.write_text(f"[GPUFREQ-DEBUG] {fixed}\n")
    if (phone / "stubborn").exists():
        for path, text in json.loads((phone / "stubborn").read_text()).items():
            (root / path.lstrip("/")).write_text(text)


def shell(phone, words):
    if words[:1] == ["-T"]:
        words = words[1:]
    text = on_phone(phone, " ".join(words))
    place = {"PATH": f"{phone}/bin:{os.environ['PATH']}", "PHONE": str(phone)}
    start = {"args": ["/bin/sh", "-c", text], "env": {**os.environ, **place}, "start_new_session": True}
    if "exec env" not in text:
        done = subprocess.run(**start, check=False, capture_output=True, text=True)
        settle(phone)
        sys.stdout.write(done.stdout.replace(f"{phone}/root", ""))
        sys.stderr.write(done.stderr.replace(f"{phone}/root", ""))
        return done.returncode & 255
    child = subprocess.Popen(**start)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    try:
        while child.poll() is None:
            if (phone / "gone").exists():
                return 0
            time.sleep(0.01)
        return child.returncode if child.returncode >= 0 else 128 - child.returncode
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)  # adbd hangs up on what it started


def push(phone, local, remote):
    if (phone / "full").exists():
        fail(f"adb: error: failed to copy '{local}' to '{remote}': remote write failed: No space left on device")
    target = Path(on_phone(phone, remote))
    shutil.copyfile(local, target)
    print(f"{local}: 1 file pushed, 0 skipped. 17.0 MB/s ({target.stat().st_size} bytes in 0.001s)")


def wait(phone):
    while (phone / "gone").exists():
        back = phone / "back"
        if back.exists():
            if back.read_text() == "boot":
                boot = phone / "root/proc/sys/kernel/random/boot_id"
                boot.write_text(f"{boot.read_text().strip()}x\n")
            (phone / "gone").unlink()
        time.sleep(0.02)


def main(words):
    if words == ["devices", "-l"]:
        return devices()
    assert words[0] == "-s", words
    serial, verb, *rest = words[1:]
    phone = HOME / serial
    if phone.is_dir():
        with (phone / "calls").open("a") as calls:
            calls.write(" ".join([verb, *rest]) + "\n")
    if verb == "wait-for-device":
        return wait(phone)
    if why := error(serial):
        fail(f"adb: error: failed to get feature set: {why}" if verb == "push" else f"error: {why}")
    return shell(phone, rest) if verb == "shell" else push(phone, *rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
