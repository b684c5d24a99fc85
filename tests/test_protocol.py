import io
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.child import Child
from harness.runner.protocol import GarbageError, Kind, buffer_arg, decode, encode, image_arg, launch
from harness.runner.server import RequestError, serve

NATIVE = "always"
TRANSCRIPT = Path(__file__).parent / "data" / "transcript.jsonl"


def test_a_frame_is_one_line_of_json():
    assert encode({"id": 1, "op": "bye"}) == b'{"id":1,"op":"bye"}\n'
    assert encode({"id": 1}, [b"abc", b""]) == b'{"id":1,"blobs":[3,0]}\n'
    assert decode(b'{"id":1,"blobs":[3,0]}\n') == ({"id": 1}, [3, 0])


@pytest.mark.parametrize(
    "line", [b"hello\n", b"[1]\n", b"\xff\xfe\n", b'{"blobs":[-1]}', b'{"blobs":["1"]}', b'{"id":']
)
def test_garbage_is_told_from_frames(line):
    with pytest.raises(GarbageError):
        decode(line)


def test_parts_leave_out_what_is_not_asked():
    assert buffer_arg("a") == {"buf": "a"}
    assert buffer_arg("a", 0, 4) == {"buf": "a", "offset": 0, "bytes": 4}
    assert launch("k", (8,), None, [image_arg("w", "RGBA", "uint32", 4, 2)]) == {
        "entry": "k",
        "global": [8],
        "local": None,
        "args": [
            {"image": {"buf": "w", "offset": 0, "channels": "RGBA", "type": "uint32", "width": 4, "height": 2}},
        ],
    }


def conversation(*requests: bytes, **handlers: Any) -> list[Any]:
    sink = io.BytesIO()
    serve(io.BytesIO(b"".join(requests)), sink, {"bye": lambda frame, blobs: ({}, []), **handlers})
    return [json.loads(line) for line in sink.getvalue().splitlines()]


def refuse(frame, blobs):
    raise RequestError(Kind.LAUNCH_FAILED, "no", fatal=True)


def fail(frame, blobs):
    raise frame_error(frame["error"])


def frame_error(name: str) -> Exception:
    return {"memory": MemoryError(), "bug": ZeroDivisionError(), "key": KeyError("x"), "big": OverflowError()}[name]


def test_the_loop_outlives_every_exception():
    answers = conversation(
        b"nonsense\n",
        b'{"id":1,"op":"dance"}\n',
        b'{"id":2,"op":["bye"]}\n',
        b'{"id":3,"op":"refuse"}\n',
        b'{"id":4,"op":"fail","error":"memory"}\n',
        b'{"id":5,"op":"fail","error":"bug"}\n',
        b'{"id":6,"op":"fail","error":"key"}\n',
        b'{"id":7,"op":"fail","error":"big"}\n',
        b'{"id":8,"op":"size","blobs":[3,2]}\nabcde',
        b'{"id":9,"op":"bye"}\n',
        b'{"id":10,"op":"size"}\n',
        refuse=refuse,
        fail=fail,
        size=lambda frame, blobs: ({"sizes": [len(b) for b in blobs]}, []),
    )
    assert [a["id"] for a in answers] == [None, *range(1, 10)]
    kinds = [a["error"]["kind"] for a in answers[:8]]
    bad = "bad_request"
    assert kinds == [bad, bad, bad, "launch_failed", "out_of_resources", "internal", bad, bad]
    assert answers[1]["error"]["message"] == "unknown op 'dance'; there are bye, fail, refuse, size"
    assert answers[3]["error"]["fatal"]
    assert answers[8] == {"id": 8, "ok": True, "sizes": [3, 2]}


def test_a_blob_that_is_cut_short_ends_the_loop():
    assert conversation(b'{"id":1,"op":"size","blobs":[3]}\nab', size=lambda frame, blobs: ({}, [])) == []


def meets(got: Any, expected: Any) -> bool:
    """Equality, where "<number>", "<text>", "<any>" and "<times>" stand for what differs between devices and runs."""
    if expected == "<any>":
        return True
    if expected == "<number>":
        return isinstance(got, int | float)
    if expected == "<text>":
        return isinstance(got, str)
    if expected == "<times>":
        return isinstance(got, list) and len(got) > 0 and all(isinstance(x, int) for x in got)
    if isinstance(expected, dict):
        return isinstance(got, dict) and got.keys() == expected.keys() and all(meets(got[k], expected[k]) for k in got)
    if isinstance(expected, list):
        return isinstance(got, list) and len(got) == len(expected) and all(map(meets, got, expected))
    return bool(got == expected)


def play(command: Sequence[str], patience_s: float = 120.0) -> None:
    """The golden transcript with a runner: what any one, in any language, must answer. Blobs are hexadecimal in it."""
    child = Child(command)
    try:
        deadline = time.monotonic() + patience_s
        for line in TRANSCRIPT.read_text().splitlines():
            step = json.loads(line)
            answer, blobs = child.ask(step["request"], [bytes.fromhex(b) for b in step.get("blobs", [])], deadline)
            if step["request"]["op"] == "hello" and answer["ok"]:
                answer.setdefault("ops", [])  # a runner without any optional request need not say so
            assert meets(answer, step["answer"]), (step["request"], answer)
            assert [b.hex() for b in blobs] == step.get("answer_blobs", []), step["request"]
        assert child._process.wait(20) == 0
    finally:
        child.close()


def test_the_golden_transcript(device):
    play(device.command)
