"""The fake runner with sensors: `read`, `watch` and `watched` over the tree in its second argument, in no thread.

Its clock is 1,000 s ahead of the host's. Each `watched` brings two samples of each file, 20 and 10 ms old, as the file
is then. A file `dropped` in the tree holds how many samples it says it dropped, `samples` what it sends in their place;
with a file `short`, `read` forgets one text.
"""

import json
import os
import sys
import time
from pathlib import Path

import fake_runner

AHEAD_NS = 1000 * 10**9
ROOT = sys.argv[2]
watched_files = []


def text(path):
    """A file's text and why there is none."""
    try:
        whole = Path(ROOT + path)
        names = sorted(os.listdir(whole)) if path.endswith("/") else None
        return (whole.read_text() if names is None else "".join(f"{n}\n" for n in names)), None
    except OSError as error:
        return None, f"ENOENT: {error.strerror}"


def answer(frame, blobs, buffers):
    clock_ns = time.monotonic_ns() + AHEAD_NS
    if frame["op"] == "hello":
        usual, out = fake_runner.answer(frame, blobs, buffers)
        return {**usual, "ops": ["read", "watch"]}, out
    if frame["op"] == "read":
        texts = [text(path) for path in frame["paths"]][1 if text("/short")[0] else 0 :]
        return {"texts": [t for t, _ in texts], "why": [w for _, w in texts]}, []
    if frame["op"] == "watch":
        watched_files[:] = [one["path"] for one in frame["files"]]
        return {"clock_ns": clock_ns}, []
    if frame["op"] == "watched":
        got = [text(path) for path in watched_files]
        samples = [[clock_ns - age, i, t] for age in (20_000_000, 10_000_000) for i, (t, _) in enumerate(got)]
        why = {str(i): w for i, (_, w) in enumerate(got) if w}
        lies, _ = text("/samples")
        dropped, _ = text("/dropped")
        samples = json.loads(lies) if lies else samples
        return {"clock_ns": clock_ns, "samples": samples, "why": why, "dropped": int(dropped or 0), "cpu_ns": 1000}, []
    return fake_runner.answer(frame, blobs, buffers)


if __name__ == "__main__":
    fake_runner.main(answer)
