"""The native runner under AddressSanitizer and UndefinedBehaviorSanitizer: the transcript, then damaged streams of it.

libFuzzer (`make runner-fuzz`) is at the worker's loop alone; here the whole program is met, supervisor and pipes too.
"""

import json
import os
import random
import subprocess
from pathlib import Path

import native
import pytest
from test_protocol import TRANSCRIPT, play

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(native.ABSENT), reason=native.ABSENT)]
STREAMS = 200
FOUND = (b"Sanitizer", b"runtime error")


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    runner = native.build("build/kiln-runner-sanitized")
    return (str(runner), "--library", str(native.fake_opencl(tmp_path_factory.mktemp("paper"))))


def stream() -> list[bytes]:
    """The transcript's requests, each with its blobs."""
    requests = []
    for line in TRANSCRIPT.read_text().splitlines():
        step = json.loads(line)
        blobs = [bytes.fromhex(blob) for blob in step.get("blobs", [])]
        frame = step["request"] | ({"blobs": [len(blob) for blob in blobs]} if blobs else {})
        requests.append(json.dumps(frame).encode() + b"\n" + b"".join(blobs))
    return requests


def damaged(rng: random.Random) -> bytes:
    """The stream after a few injuries: bytes changed, cut out, put in; requests lost, doubled, in another order."""
    requests = stream()
    for _ in range(rng.randrange(3)):
        at = rng.randrange(len(requests))
        requests[at : at + 1] = rng.choice(([], [requests[at]] * 2, [requests[at][: rng.randrange(len(requests[at]))]]))
    data = bytearray(b"".join(requests))
    for _ in range(rng.randrange(1, 20)):
        at = rng.randrange(len(data))
        size = rng.choice((0, 1, 1, 1, 8))
        put_in = (rng.randbytes(rng.randrange(4)), b"-", b"9" * rng.randrange(20), b'"', b"\n")
        data[at : at + size] = rng.choice(put_in)
    return bytes(data)


def test_the_golden_transcript_under_sanitizers(command: tuple[str, ...]) -> None:
    play(command)


def test_damaged_streams(command: tuple[str, ...], tmp_path: Path) -> None:
    env = os.environ | {"FAKE_LAUNCHES": "2000", "ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=1"}
    for seed in range(STREAMS):
        file = tmp_path / "stream"
        file.write_bytes(damaged(random.Random(seed)))
        with file.open("rb") as source:
            done = subprocess.run(command, stdin=source, capture_output=True, check=False, env=env, timeout=60)
        assert done.returncode == 0, (seed, done.stderr[-3000:])
        assert not any(word in done.stderr + done.stdout for word in FOUND), (seed, done.stderr[-3000:])
        for line in done.stdout.split(b"\n")[:-1]:
            if line.startswith(b'{"id":'):  # not the bytes of a blob
                assert b'"ok":' in line
