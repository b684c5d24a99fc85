"""The runner protocol, version 1: frames over a pipe, so that a runner can be written twice (Python here, C on phones).

A frame is one line of UTF-8 JSON that ends with a newline; where it has "blobs": [n1, n2, …], exactly those many raw
bytes follow, blob after blob. A request carries "id" (an integer) and "op"; its answer echoes "id" and has "ok": true,
or "ok": false with "error": {"kind", "message", "fatal"} of the kinds below; "fatal": true says that the device can no
longer be trusted, so that the host should start another runner. One request is answered before the next is read. A
runner never dies of a bad request, and ends when its input does.

A runner of two processes (the native one) outlives its driver: "crashed" says that the process with the driver ended,
"timeout" that it was killed after the request's `limit_ms`, which any request may carry where hello's ops have "limit".
Both are fatal, and what was resident is gone; but the same runner answers the next request with a fresh process.

    hello {protocol}                           → {protocol, runner, device: {…}, sensors: [name, …], hints?, ops?}
                                                  hints: {priority?, performance?}: what came of each that the
                                                  runner was started with, in words
                                                  ops: those of the optional requests below that it answers
    put {buf, bytes} + blob                    → buffer `buf` is resident with that content
    put {buf, bytes, pattern: "hex"}           → the same, filled with the pattern over and over
    put {buf, bytes, from: "other"}            → the same, with the first bytes of a resident buffer
    put {buf, bytes}                           → {have: bool}
    drop {bufs: […], programs: […]}            → unknown names are ignored
    build {program, options: […]} + source     → {log, build_ms, kernels: {entry: {work_group, local_bytes,
                                                  private_bytes, multiple}}, cached?}; the same id again is free.
                                                  cached true: the build came from a folder of the runner's own
    run {program, launches, warmup, samples, rotate, restore, abort_above_ns, profile, clock}
        launches: [{entry, global: […], local: […] | null, args: […], program?}]
                  A launch that names a program is of that one instead of the run's, so that the kernels of a whole
                  model can follow each other on one queue
        args:     {buf, offset?, bytes?} | {i32: v} | {f32: v}
                  | {image: {buf, offset?, channels, type, width, height, texels?}}
                  An image is a view of its buffer (cl_khr_image2d_from_buffer). With texels true, for a device without
                  that extension and a source that knows, a buffer stands in for it, made anew before each launch:
                  16 bytes (width, height, 0, 0 as uint32), then for each texel the 16 bytes that read_image gives
        rotate:   {bufs: […], copies: n, first: k}: sample i, warm-up included, uses copy (k + i) mod n of each buffer;
                  copy 0 is the buffer itself, the others are made on the device and kept until it is dropped
        restore:  [{buf, from}]: `from` is copied over `buf` before each sample, outside its timed events
      profile true                             → {samples_ns: [[[queued, submit, start, end] per launch] per sample],
                                                  wall_ns: [per sample, enqueue to finish], aborted: bool}
                                                  a sample longer than abort_above_ns is the last
      profile true, clock true                 → as well {host_ns: [[[before, after] per launch] per sample],
                                                  finished_ns: [per sample]}: CLOCK_MONOTONIC of the runner's machine
                                                  around each enqueue, and when the queue had finished
      profile false                            → {wall_ns: [all samples, enqueued back to back, to finish]}
                                                  either may carry resets: how often the GPU was reset between the
                                                  run's begin and end (KGSL's reset_count); absent where unreadable
    get {buf, offset, bytes}                   → blob
    sensors                                    → {values: {name: number | null}, why: {name: reason where null}}
    bye                                        → ok, then the runner exits 0

Optional, "read" and "watch" in hello's ops (`watched` comes with `watch`); harness/telemetry makes sense of the texts:

    read {paths: [path, …]}                    → {texts: [text | null, …], why: [null | "EACCES: …", …]}
                                                  the first 64 KiB of each file, invalid UTF-8 replaced. Of a path that
                                                  ends in / the names in that folder, one a line; a runner that does
                                                  not list folders says why it has no text, as for any file
    watch {files: [{path, period_ms}, …]}      → {clock_ns}: now, on the clock of the samples, which is monotonic.
                                                  A thread of the runner's samples these files from now on, each at
                                                  its period (≥ 1), instead of those of an earlier watch; [] ends it.
                                                  It keeps to the slowest cores, and tries a file that it could not
                                                  read again at its next turn. Files of one period are read in their
                                                  order, those due together in one turn
    watched                                    → {clock_ns, samples: [[t_ns, file's index, text | null], …],
                                                  why: {"index": reason}, dropped: n, cpu_ns?}: what was sampled since
                                                  the last call, in the order of time; the latest reason of each file
                                                  that has had a null; how many of the oldest samples gave way for
                                                  lack of room since the last call; the thread's CPU time since `watch`

For tests:

    inject {fault, on, after, lasting}         → tests only: the `after`-th next `on` goes wrong in that way, and with
                                                  lasting true all that follow; fault null takes it back

A missing optional field means null. Numbers are finite. Buffer names are the host's choice; content goes by
"sha256:…", so that weights cross once.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from typing import Any

PROTOCOL = 1
MAX_LINE_BYTES = 64 << 20  # a line this long is garbage, not a frame: 10⁵ samples of 4 launches are 32 MB


class Kind(enum.StrEnum):
    """Why a request was not done."""

    BAD_REQUEST = "bad_request"
    BUILD_FAILED = "build_failed"  # the message is the compiler's log
    LAUNCH_FAILED = "launch_failed"
    OUT_OF_RESOURCES = "out_of_resources"
    UNSUPPORTED = "unsupported"
    INTERNAL = "internal"
    CRASHED = "crashed"  # by a runner that outlives it: the process with the driver ended, the message says how
    TIMEOUT = "timeout"  # the same: it was killed after the request's limit_ms


class GarbageError(Exception):
    """What arrived is not a frame."""


def encode(frame: Mapping[str, Any], blobs: Sequence[bytes | bytearray | memoryview] = ()) -> bytes:
    """The line of a frame; its blobs are to be written after it."""
    if blobs:
        frame = {**frame, "blobs": [len(blob) for blob in blobs]}
    return json.dumps(frame, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes | bytearray) -> tuple[dict[str, Any], list[int]]:
    """The frame of a line and the lengths of the blobs that follow it. Raises GarbageError."""
    try:
        frame = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise GarbageError(f"not JSON: {bytes(line[:80])!r}") from error
    if not isinstance(frame, dict):
        raise GarbageError(f"not an object: {bytes(line[:80])!r}")
    lengths = frame.pop("blobs", [])
    if not (isinstance(lengths, list) and all(type(n) is int and n >= 0 for n in lengths)):
        raise GarbageError(f"blob lengths are {lengths!r}")
    return frame, lengths


# ---------------------------------------------------------------- parts of a run, as the host writes them


def buffer_arg(name: str, offset: int | None = None, size: int | None = None) -> dict[str, Any]:
    """A whole buffer, or the `size` bytes of it from byte `offset` (a multiple of mem_base_addr_align_bytes)."""
    part = {"offset": offset, "bytes": size}
    return {"buf": name, **{k: v for k, v in part.items() if v is not None}}


def i32_arg(value: int) -> dict[str, Any]:
    """An `int` argument."""
    return {"i32": value}


def f32_arg(value: float) -> dict[str, Any]:
    """A `float` argument."""
    return {"f32": value}


def image_arg(
    name: str, channels: str, type: str, width: int, height: int, offset: int = 0, texels: bool = False
) -> dict[str, Any]:
    """A 2D image over the buffer from byte `offset`, or its texels; rows follow each other without a gap."""
    view = {"buf": name, "offset": offset, "channels": channels, "type": type, "width": width, "height": height}
    return {"image": view | ({"texels": True} if texels else {})}


def launch(
    entry: str, global_size: Sequence[int], local_size: Sequence[int] | None, args: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """One kernel launch of a run; `local_size` None leaves the work-group to the driver."""
    local = None if local_size is None else list(local_size)
    return {"entry": entry, "global": list(global_size), "local": local, "args": list(args)}
