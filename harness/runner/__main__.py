"""`python -m harness.runner`: one OpenCL device at the other end of stdin and stdout. Started by the host only.

--list prints, as one JSON line, the drivers that load and their devices; --device SELECTOR serves one of them.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import BinaryIO

import pyopencl as cl

from harness import runtimes
from harness.runner.binaries import Binaries, share_pocl_cache
from harness.runner.describe import describe
from harness.runner.faults import Faults
from harness.runner.hints import LEVELS
from harness.runner.opencl import Device
from harness.runner.server import serve

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Read the arguments, take the pipe away from the driver, serve."""
    parser = argparse.ArgumentParser(prog="python -m harness.runner")
    parser.add_argument("--driver", help="load this driver alone (a name that harness.runtimes.find gives)")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--device", metavar="SELECTOR", help='"platform|device", or its number in the list')
    parser.add_argument("--binaries", type=Path, metavar="DIR", help="keep built programs here, and look for them")
    for name in ("priority", "performance"):
        parser.add_argument(f"--{name}", choices=LEVELS, help="a hint to the driver, where it takes one")
    parser.add_argument("--inject", action="store_true", help="for tests: accept requests for faults")
    args = parser.parse_args()
    _die_with_parent()
    source, sink = _take_pipe()
    if args.binaries:
        args.binaries.mkdir(parents=True, exist_ok=True)
        share_pocl_cache(args.binaries)
    found = runtimes.prepare(args.driver)
    devices = _devices()
    if args.list:
        listed = [{"selector": selector, **describe(device)} for selector, device in devices.items()]
        sink.write(json.dumps({"runtimes": dataclasses.asdict(found), "devices": listed}).encode() + b"\n")
        sink.flush()
        return 0
    device = devices.get(args.device) or dict(enumerate(devices.values())).get(_index(args.device))
    if device is None:
        print(f"no device {args.device!r}; there are: {', '.join(devices) or 'none'}", file=sys.stderr)
        return 3
    binaries = Binaries(args.binaries, device) if args.binaries else None
    handlers = Device(device, binaries, args.priority, args.performance).handlers()
    serve(source, sink, Faults(handlers, sink).handlers if args.inject else handlers)
    return 0


def _devices() -> dict[str, cl.Device]:
    """Every device by selector; the second of two with one name gets a "|2" behind it."""
    try:
        platforms = cl.get_platforms()
    except cl.Error:  # the loader's way to say that it has no driver
        return {}
    found: dict[str, cl.Device] = {}
    for platform in platforms:
        for device in platform.get_devices():
            base = selector = f"{platform.name.strip()}|{device.name.strip()}"
            count = 1
            while selector in found:
                count += 1
                selector = f"{base}|{count}"
            found[selector] = device
    return found


def _index(selector: str | None) -> int:
    return int(selector) if selector is not None and selector.isdecimal() else -1


def _take_pipe() -> tuple[BinaryIO, BinaryIO]:
    """Move the protocol to private descriptors; what drivers print to stdout goes to stderr from here on."""
    source = os.fdopen(os.dup(0), "rb", buffering=1 << 20)
    sink = os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return source, sink


def _die_with_parent() -> None:
    """Have Linux end this process with its parent, even in the middle of a kernel. Elsewhere the pipe's end does it."""
    if sys.platform.startswith("linux"):
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died in between
            os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
