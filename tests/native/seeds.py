"""Writes the golden transcript as seeds for fuzz.c: the whole stream, and each request after those it stands upon."""

import json
import sys
from pathlib import Path

DATA = Path(__file__).parent.parent / "data"


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stream = b""
    for line in (DATA / "transcript.jsonl").read_text().splitlines():
        step = json.loads(line)
        blobs = [bytes.fromhex(blob) for blob in step.get("blobs", [])]
        frame = step["request"] | ({"blobs": [len(blob) for blob in blobs]} if blobs else {})
        request = json.dumps(frame, separators=(",", ":")).encode() + b"\n" + b"".join(blobs)
        (folder / f"one-{frame['id']}").write_bytes(request)
        stream += request
    (folder / "all").write_bytes(stream)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
