"""A runner that always gives the same answers: times and failures follow from a program's options and the launch.

As fake_runner.py without any of Kiln's code. Of builds, some are refused and a few end the runner. Sources count for
nothing, so that a kernel may change and the answers stay.
"""

import hashlib
import os
import re

import fake_runner

ENTRY = re.compile(r"__kernel[^;{]*?\bvoid\s+(\w+)\s*\(")


def draw(*words):
    """A number below 2^32 that follows from the words."""
    return int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:4], "big")


OPTIONS = {}  # by program


def answer(frame, blobs, buffers):
    if frame["op"] == "build":
        lot = draw("build", *OPTIONS.setdefault(frame["program"], frame.get("options", [])))
        if lot % 29 == 0:
            os._exit(7)
        if lot % 7 == 0:
            raise fake_runner.RefusedError("build_failed", "line 1: some error")
        limits = {"work_group": 256, "local_bytes": 0, "private_bytes": 0, "multiple": 64}
        kernels = dict.fromkeys(ENTRY.findall(blobs[0].decode()), limits) if blobs else {}
        return {"log": "", "build_ms": 1.5, "kernels": kernels}, []
    if frame["op"] == "run":
        took = [
            10_000 + draw(*OPTIONS[frame["program"]], one["entry"], one["global"], one["local"]) % 90_000
            for one in frame["launches"]
        ]  # ns
        n, total = frame["samples"], sum(took)
        if not frame["profile"]:
            return {"wall_ns": [total * n]}, []
        ends = [sum(took[: i + 1]) for i in range(len(took))]
        samples = [[[0, 0, end - ns, end] for ns, end in zip(took, ends, strict=True)]] * n
        return {"samples_ns": samples, "wall_ns": [total] * n, "aborted": False}, []
    return fake_runner.answer(frame, blobs, buffers)


if __name__ == "__main__":
    fake_runner.main(answer)
