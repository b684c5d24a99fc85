"""A runner without OpenCL, and without any of Kiln's code: the host's own reading of the protocol does not count here.

It keeps buffers in memory. The source of a `build` and the entry of a `run` say how it behaves, in a word or two:
"exit 7", "kill SEGV", "hang", "garbage", "truncate", "close", "wrong id", "half", "no ok", "strange kind", "fatal",
"endless", "say WORDS" (to stderr, then as usual), "leave" and "leave slowly" (after the answer), "resets N" (a run in
which the GPU was reset so often). Anything else is done as usual.
"""

import json
import os
import signal
import sys
import time

DEVICE = {
    "name": "Paper tiger",
    "vendor": "Nobody",
    "version": "OpenCL 3.0 paper",
    "opencl_c_version": "OpenCL C 1.2 paper",
    "driver_version": "1",
    "platform_name": "Paper",
    "platform_version": "OpenCL 3.0",
    "type": "gpu",
    "extensions": ["cl_khr_fp16"],
    "max_work_group_size": 256,
    "max_work_item_sizes": [256, 256, 64],
    "local_mem_size": 32768,
    "max_mem_alloc_size": 1 << 28,
    "global_mem_size": 1 << 30,
    "global_mem_cache_size": 1 << 20,
    "compute_units": 2,
    "max_clock_mhz": 1,
    "image2d_max_width": 0,
    "image2d_max_height": 0,
    "image_pitch_alignment": 0,
    "image_base_address_alignment": 0,
    "subgroup_sizes": [],
    "mem_base_addr_align_bytes": 128,
    "profiling_timer_resolution_ns": 1,
}
JUNK = {"garbage": b"printf says hello\n", "truncate": b'{"id":', "endless": b"x" * 4096}


def send(frame, *blobs):
    if blobs:
        frame["blobs"] = [len(blob) for blob in blobs]
    sys.stdout.buffer.write(json.dumps(frame).encode() + b"\n" + b"".join(blobs))
    sys.stdout.buffer.flush()


def behave(words, frame):
    """Act on a behaviour's words. Returns True where the request has been answered by it."""
    what, _, rest = words.partition(" ")
    if what == "say":
        print(rest, file=sys.stderr, flush=True)
    elif what == "exit":
        os._exit(int(rest))
    elif what == "kill":
        os.kill(os.getpid(), getattr(signal, "SIG" + rest))
    elif what == "hang":
        time.sleep(600)
    elif what == "close":
        os.close(1)
        time.sleep(600)
    elif words in JUNK:
        sys.stdout.buffer.write(JUNK[words])
        sys.stdout.buffer.flush()
        if words == "truncate":
            os._exit(0)
        return True
    elif words == "wrong id":
        send({"id": frame["id"] + 1, "ok": True})
        return True
    elif words == "half":
        send({"id": frame["id"], "ok": True})
        return True
    elif words == "no ok":
        send({"id": frame["id"]})
        return True
    elif words in ("strange kind", "fatal"):
        kind = "melted" if words == "strange kind" else "launch_failed"
        error = {"kind": kind, "message": "it did", "fatal": words == "fatal"}
        send({"id": frame["id"], "ok": False, "error": error})
        return True
    return False


def answer(frame, blobs, buffers):
    """The usual answer to a request, and its blobs."""
    op = frame["op"]
    if op == "hello":
        return {"protocol": 1, "runner": "fake", "device": DEVICE, "sensors": ["rss_bytes"]}, []
    if op == "put":
        name, size = frame["buf"], frame["bytes"]
        if blobs:
            buffers[name] = blobs[0]
        elif "pattern" in frame:
            pattern = bytes.fromhex(frame["pattern"])
            buffers[name] = (pattern * (size // len(pattern) + 1))[:size]
        else:
            return {"have": len(buffers.get(name, b"")) == size}, []
    if op == "drop":
        for name in frame["bufs"]:
            buffers.pop(name, None)
    if op == "build":
        limits = {"work_group": 256, "local_bytes": 0, "private_bytes": 0, "multiple": 64}
        return {"log": "fine", "build_ms": 1.5, "kernels": {"k": limits}}, []
    if op == "run":
        n, launches = frame["samples"], len(frame["launches"])
        what, _, count = frame["launches"][0]["entry"].partition(" ")
        resets = {"resets": json.loads(count)} if what == "resets" else {}
        if not frame["profile"]:
            return {"wall_ns": [1000 * n], **resets}, []
        samples = [[[0, 1, 10 + i, 110 + i]] * launches for i in range(n)]
        return {"samples_ns": samples, "wall_ns": [200] * n, "aborted": False, **resets}, []
    if op == "get":
        offset = frame.get("offset", 0)
        data = buffers[frame["buf"]]
        return {}, [data[offset : offset + frame.get("bytes", len(data))]]
    if op == "sensors":
        return {"values": {"rss_bytes": None}, "why": {"rss_bytes": "EACCES"}}, []
    return {}, []


class RefusedError(Exception):
    """An answer's kind and message of error."""


def main(answer=answer):
    buffers = {}
    while line := sys.stdin.buffer.readline():
        frame = json.loads(line)
        blobs = [sys.stdin.buffer.read(n) for n in frame.pop("blobs", [])]
        words = blobs[0].decode() if frame["op"] == "build" else ""
        words = frame["launches"][0]["entry"] if frame["op"] == "run" else words
        if sys.argv[1:] and frame["op"] == "hello":
            words = sys.argv[1]
        if behave(words, frame):
            continue
        try:
            fields, out = answer(frame, blobs, buffers)
        except RefusedError as refused:
            kind, message = refused.args
            send({"id": frame["id"], "ok": False, "error": {"kind": kind, "message": message, "fatal": False}})
            continue
        send({"id": frame["id"], "ok": True, **fields}, *out)
        if words == "leave slowly":
            time.sleep(0.2)
        if frame["op"] == "bye" or words.startswith("leave"):
            return


if __name__ == "__main__":
    main()
