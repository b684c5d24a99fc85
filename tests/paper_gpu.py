"""A GPU on paper: a runner that answers probes and norms as NumPy has them, and takes as long as a digest says.

--stall N FILE: the Nth norm that is built makes FILE and then nothing more, until the host is gone.
--programs FILE: {program: how many times as long it takes, or "build" where it does not build, or "wrong"}.
"""

import argparse
import hashlib
import json
import select
import sys
from pathlib import Path

import numpy as np
from fake_runner import DEVICE, send

from harness.runner.protocol import decode
from kernels.models import NORMS
from reference.norms import add_residual, layer_norm, rms_norm

LIMITS = {"work_group": 64, "local_bytes": 0, "private_bytes": 0, "multiple": 16}
ENTRIES = ("norm", "read_own", "read_across", "copy_own", "copy_across", "madd", "nothing")
MEMORY = {"max_mem_alloc_size": 1 << 22, "global_mem_size": 1 << 30}
GROUPS = {"max_work_group_size": 64, "max_work_item_sizes": [64, 64, 64], "extensions": []}


class Paper:
    """Buffers, and what each program was built with."""

    def __init__(self, args):
        self.device = {**DEVICE, **MEMORY, **GROUPS, "name": args.name, "driver_version": args.driver}
        stall, self.mark = args.stall or (0, None)
        self.stall = int(stall)
        self.strange = json.loads(Path(args.programs).read_text()) if args.programs else {}
        self.buffers = {}
        self.programs = {}

    def hello(self, frame, blobs):
        return {"protocol": 1, "runner": "paper", "device": self.device, "sensors": []}, []

    def put(self, frame, blobs):
        name, size = frame["buf"], frame["bytes"]
        if blobs:
            self.buffers[name] = bytearray(blobs[0])
        elif "pattern" in frame:
            pattern = bytes.fromhex(frame["pattern"])
            self.buffers[name] = bytearray((pattern * (size // len(pattern) + 1))[:size])
        else:
            return {"have": len(self.buffers.get(name, b"")) == size}, []
        return {}, []

    def drop(self, frame, blobs):
        for name in frame["bufs"]:
            self.buffers.pop(name, None)
        return {}, []

    def build(self, frame, blobs):
        norms = [name for name in self.programs if not name.startswith("probe:")]
        known = frame["program"] in self.programs
        if not (known or frame["program"].startswith("probe:")) and len(norms) + 1 == self.stall:
            Path(self.mark).touch()
            select.select([sys.stdin], [], [])  # the host sends nothing while it waits: this is its end
            sys.exit()
        if self.strange.get(frame["program"]) == "build":
            return {"error": {"kind": "build_failed", "message": "internal compiler error", "fatal": False}}, []
        words = (option.removeprefix("-D").partition("=") for option in frame["options"])
        self.programs[frame["program"]] = {name: value for name, _, value in words}
        return {"log": "", "build_ms": 1.0, "kernels": dict.fromkeys(ENTRIES, LIMITS)}, []

    def run(self, frame, blobs):
        samples, durations = frame["samples"], []
        for launch in frame["launches"]:
            if self.strange.get(frame["program"]) != "wrong":
                getattr(self, launch["entry"].partition("_")[0])(launch, self.programs[frame["program"]])
            digest = hashlib.sha256(f"{frame['program']} {launch['entry']}".encode()).digest()
            usual = 1_000 if launch["entry"] == "nothing" else 50_000 + int.from_bytes(digest[:2]) // 4
            strange = self.strange.get(frame["program"])
            durations.append(round(usual * strange) if isinstance(strange, float) else usual)
        if not frame["profile"]:
            return {"wall_ns": [samples * sum(durations)]}, []
        stamps, end = [], 0
        for duration in durations:
            stamps.append([end, end, end + 1, end + 1 + duration])
            end += 1 + duration
        return {"samples_ns": [stamps] * samples, "wall_ns": [end] * samples, "aborted": False}, []

    def get(self, frame, blobs):
        offset, data = frame.get("offset", 0), self.buffers[frame["buf"]]
        return {}, [bytes(data[offset : offset + frame.get("bytes", len(data))])]

    def sensors(self, frame, blobs):
        return {"values": {}, "why": {}}, []

    def bye(self, frame, blobs):
        return {}, []

    # ------------------------------------------------------------ kernels

    def write(self, arg, array):
        data, offset = array.tobytes(), arg.get("offset", 0)
        self.buffers[arg["buf"]][offset : offset + len(data)] = data

    def norm(self, launch, options):
        *tensors, rows, width = launch["args"]
        shape = rows["i32"], width["i32"]
        residual, norm = options["RESIDUAL"] == "1", NORMS[int(options["NORM"])]
        read = [np.frombuffer(self.buffers[arg["buf"]], np.float16, offset=arg.get("offset", 0)) for arg in tensors]
        s = read[0][: shape[0] * shape[1]].reshape(shape)
        if residual:
            s = add_residual(s, read[1][: s.size].reshape(shape))
            self.write(tensors[-2], s)
        eps = float(options["EPS"].rstrip("f"))
        gains = [array[: shape[1]] for array in read[1 + residual : len(read) - 1 - residual]]
        y = layer_norm(s, *gains, eps) if norm == "layer" else rms_norm(s, *gains, eps, offset=float(norm == "rms1p"))
        self.write(tensors[-1], y.astype(np.float16))

    def read(self, launch, options):
        size = 4 * int(options["WIDTH"]) * launch["global"][0]
        self.write(launch["args"][1], np.full(size // 4, launch["args"][2]["i32"], np.float32))

    def copy(self, launch, options):
        self.buffers[launch["args"][1]["buf"]][:] = self.buffers[launch["args"][0]["buf"]]

    def madd(self, launch, options):
        size = int(options["WIDTH"]) * launch["global"][0]
        self.write(launch["args"][0], np.full(size, int(options["UNROLL"]), np.float32))

    def nothing(self, launch, options):
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--driver", default="1")
    parser.add_argument("--stall", nargs=2)
    parser.add_argument("--programs")
    paper = Paper(parser.parse_args())
    while line := sys.stdin.buffer.readline():
        frame, lengths = decode(line)
        blobs = [sys.stdin.buffer.read(n) for n in lengths]
        fields, out = getattr(paper, frame["op"])(frame, blobs)
        send({"id": frame["id"], "ok": "error" not in fields, **fields}, *out)
        if frame["op"] == "bye":
            return


if __name__ == "__main__":
    main()
