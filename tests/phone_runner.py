"""A runner on a fake phone: as fake_runner.py, and a kernel called `unplug` takes its phone off the cable.

--describe=FILE: its device. --protocol=N. --platformless: it finds no OpenCL. --list: as kiln-runner has it.
"""

import json
import os
import sys
import time
from pathlib import Path

import fake_runner


def told(name):
    return next((word.partition("=")[2] for word in sys.argv if word.startswith(f"--{name}=")), None)


def answer(frame, blobs, buffers):
    if frame["op"] == "run" and frame["launches"][0]["entry"] == "unplug":
        (Path(os.environ["PHONE"]) / "gone").touch()
        time.sleep(600)
    fields, out = fake_runner.answer(frame, blobs, buffers)
    if frame["op"] == "hello":
        if told("describe"):
            fields["device"] = json.loads(Path(told("describe")).read_text())
        fields["protocol"] = int(told("protocol") or 1)
        fields["hints"] = {"words": " ".join(sys.argv[1:])} if "--priority" in sys.argv else {}
    return fields, out


if __name__ == "__main__":
    if "--list" in sys.argv:
        driver = {"name": "adreno", "library": "/vendor/lib64/libOpenCL.so", "origin": "the phone", "note": ""}
        print(json.dumps({"runtimes": {"drivers": [driver], "missing": []}, "devices": []}))
        sys.exit()
    if "--platformless" in sys.argv:
        print("no OpenCL device: /vendor/lib64/libOpenCL.so returns no platform", file=sys.stderr)
        sys.exit(3)
    fake_runner.main(answer)
