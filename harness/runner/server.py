"""The runner's loop: reads requests, calls the driver's side, turns every exception into an answer."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from harness.runner.protocol import MAX_LINE_BYTES, GarbageError, Kind, decode, encode

Blobs = list[bytearray]
Answer = tuple[dict[str, Any], list[bytes | memoryview]]
Handler = Callable[[Mapping[str, Any], Blobs], Answer]


class RequestError(Exception):
    """A request that was not done, for the host to judge; a fatal one leaves the device in doubt."""

    def __init__(self, kind: Kind, message: str, fatal: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.fatal = fatal


def serve(source: BinaryIO, sink: BinaryIO, handlers: Mapping[str, Handler]) -> None:
    """Answer requests until `bye` or the end of `source`."""
    while _serve_one(source, sink, handlers):
        pass


def _serve_one(source: BinaryIO, sink: BinaryIO, handlers: Mapping[str, Handler]) -> bool:
    """Its own function, so that no blob outlives its request: they are as large as a model's weights."""
    request = _read(source, sink)
    if request is None:
        return False
    frame, blobs = request
    op = frame.get("op")
    answer, out = _handle(op, handlers, frame, blobs)
    sink.write(encode({"id": frame.get("id"), **answer}, out))
    for blob in out:
        sink.write(blob)
    sink.flush()
    return op != "bye"


def _read(source: BinaryIO, sink: BinaryIO) -> tuple[dict[str, Any], Blobs] | None:
    """The next frame; garbage lines are answered and skipped. None at the end of input."""
    while line := source.readline(MAX_LINE_BYTES):
        try:
            frame, lengths = decode(line)
        except GarbageError as error:
            sink.write(encode({"id": None, **_refusal(Kind.BAD_REQUEST, str(error))}))
            sink.flush()
            continue
        blobs = [bytearray(n) for n in lengths]
        for blob in blobs:
            if not _fill(source, blob):
                return None
        return frame, blobs
    return None


def _fill(source: BinaryIO, blob: bytearray) -> bool:
    view = memoryview(blob)
    while view:
        count = source.readinto(view)  # type: ignore[attr-defined]
        if not count:
            return False
        view = view[count:]
    return True


def _handle(op: Any, handlers: Mapping[str, Handler], frame: Mapping[str, Any], blobs: Blobs) -> Answer:
    handler = handlers.get(op) if isinstance(op, str) else None
    try:
        if handler is None:
            raise RequestError(Kind.BAD_REQUEST, f"unknown op {op!r}; there are {', '.join(sorted(handlers))}")
        answer, out = handler(frame, blobs)
    except RequestError as error:
        return _refusal(error.kind, str(error), error.fatal), []
    except MemoryError:
        return _refusal(Kind.OUT_OF_RESOURCES, "the runner is out of memory"), []
    except (LookupError, TypeError, ValueError, OverflowError):  # a field is missing, of another type, too large
        return _refusal(Kind.BAD_REQUEST, traceback.format_exc()), []
    except Exception:  # a bug of the runner's own: the host must hear of it, and the runner must live on
        return _refusal(Kind.INTERNAL, traceback.format_exc()), []
    return {"ok": True, **answer}, out


def _refusal(kind: Kind, message: str, fatal: bool = False) -> dict[str, Any]:
    return {"ok": False, "error": {"kind": kind, "message": message, "fatal": fatal}}
