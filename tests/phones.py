"""Phones for the fake adb: folders with an Android's few files and commands that Kiln asks for."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: {powered}
  status: 2
  level: {percent}
  scale: 100
  voltage: 4123
  temperature: {tenths}
"""
THERMAL = """IsStatusOverride: false
Thermal Status: {status}
Cached temperatures:
	Temperature{{mValue=31.2, mType=3, mName=SKIN, mStatus=0}}
"""
COMMANDS = {
    "getprop": 'if [ -n "$1" ]; then cat "$PHONE/props/$1" 2>/dev/null; else for f in $PHONE/props/*; do '
    'echo "[$(basename $f)]: [$(cat $f)]"; done; fi',
    "dumpsys": 'cat "$PHONE/dumpsys/$1" 2>/dev/null || { echo "Can\'t find service: $1"; exit 1; }',
    "df": 'echo "Filesystem 1K-blocks Used Available Use% Mounted on"; '
    'echo "/dev/block/dm-5 110000000 1 $(cat $PHONE/free_kib) 1% /data"',
    "id": 'if [ -n "$FAKE_ROOT" ]; then echo 0; else echo 2000; fi',
    "su": 'if [ ! -e "$PHONE/rooted" ]; then echo "su: inaccessible or not found" >&2; exit 127; fi\n'
    '[ "$1" = -c ] || exit 1\nFAKE_ROOT=1 exec sh -c "$2"',
}


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


class Phone:
    """One phone."""

    def __init__(self, home, serial):
        self.serial, self.home = serial, home / serial
        for folder in ("root/data/local/tmp", "root/sys", "root/proc/sys/kernel/random", "bin", "props", "dumpsys"):
            (self.home / folder).mkdir(parents=True)
        for name, text in COMMANDS.items():
            script(self.home / "bin" / name, text)
        self.file("/proc/sys/kernel/random/boot_id", "boot-1\n")
        props = {"sys.boot_completed": 1, "ro.build.version.sdk": 34, "ro.build.version.release": 14}
        props |= {"ro.product.model": "Paper Phone", "ro.soc.model": "SM8650", "ro.serialno": serial}
        for name, value in props.items():
            (self.home / "props" / name).write_text(f"{value}\n")
        (self.home / "free_kib").write_text("50000000")
        self.is_()

    def is_(self, percent=80, battery_c=30.0, status=0, powered="true"):
        battery = BATTERY.format(percent=percent, tenths=round(10 * battery_c), powered=powered)
        (self.home / "dumpsys/battery").write_text(battery)
        (self.home / "dumpsys/thermalservice").write_text(THERMAL.format(status=status))

    def file(self, path, text=None):
        """Write a file of the phone, or (None) read it."""
        place = self.home / "root" / path.lstrip("/")
        if text is None:
            return place.read_text()
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        return text

    @property
    def calls(self):
        calls = self.home / "calls"
        return calls.read_text().splitlines() if calls.exists() else []


class Cable:
    """A fake adb on the PATH, its phones, and a runner to push. `words` is a command line of Python's."""

    def __init__(self, folder, monkeypatch):
        self.home, self._patch = folder / "phones", monkeypatch
        self.home.mkdir()
        tools = folder / "tools"
        tools.mkdir()
        script(tools / "adb", f'exec {sys.executable} -IS {HERE / "fake_adb.py"} "$@"')
        monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("FAKE_ADB", str(self.home))
        monkeypatch.delenv("ANDROID_SERIAL", raising=False)
        self.runner = folder / "kiln-runner"
        monkeypatch.setenv("KILN_RUNNER", str(self.runner))
        self.runs(f"{HERE / 'phone_runner.py'}")

    def runs(self, words):
        script(self.runner, f'exec {sys.executable} {words} "$@"')

    def phone(self, serial="PAPER1"):
        return Phone(self.home, serial)
