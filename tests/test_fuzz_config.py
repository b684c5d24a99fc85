"""Damaged documents: neither loader crashes, hangs or takes one that breaks the schema, and both take the same."""

import itertools
import json
import random
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
from damage import damaged
from engine_tool import query_tool
from tuned_samples import FAMILY, FEW, ONE, SPARE, WIDE, box, config, entry

from kernels.bundle import bundle
from kernels.tuned import ConfigError, Deny, dumps, load, write

ROOT = Path(__file__).parent.parent
SCHEMA = jsonschema.Draft202012Validator(
    json.loads((ROOT / "results/schema/tuned-config.schema.json").read_text("utf-8"))
)
BATCH = 250  # documents on the disk at a time


def originals():
    """Whole documents to damage: samples with deny rules, images and predictions, and small parts of real ones."""
    deny = Deny({"variant": "rows", "WG": 64}, (">=E031.38", "<E031.46"), "wrong")
    edges = [entry(f"e{i}", box((i, i), (1, 64 * i)), WG=128) for i in (1,)]
    found = [
        json.loads(dumps(document))
        for document in (
            config(ONE, WIDE, FEW, SPARE, deny=(deny,)),
            config(entry("guess", box((1, 16), (1, None)), predicted=True)),
            config(*edges, entry("e2", box((2, 2), (1, 64))), SPARE),
        )
    ]
    for path in sorted((ROOT / "results").glob("*.json")):
        document = json.loads(path.read_text("utf-8"))
        document["kernels"] = {"kv_concat": document["kernels"]["kv_concat"]}
        document["ops"] = {}
        found.append(document)
    return found


def python_verdict(path):
    try:
        return "edited" if load(path).edited else "ok"
    except ConfigError as error:
        reason = str(error)
    assert reason.isprintable(), reason
    return "refused"


def tiled(document):
    """Whether the buckets of each match cover every cell between their edges once, cell by cell."""
    for section in document["kernels"].values():
        groups = []
        for each in section["entries"]:
            if each["bucket"] is None:
                continue
            d = each["match"]["dtypes"]  # fields that nobody knows are no part of a match
            mine = (each["match"]["weights"], d["act"], d["compute"], d["acc"], d["cache"], each["match"]["options"])
            group = next((g for match, g in groups if match == mine), None)
            if group is None:
                groups.append((mine, group := []))
            group.append(each["bucket"])
        for _, buckets in groups:
            dims = sorted(buckets[0])
            if any(sorted(bucket) != dims for bucket in buckets):
                return False
            ends = [[(b[d][0], (b[d][1] or 2**60) + 1) for d in dims] for b in buckets]
            edges = [sorted({edge for box in ends for edge in box[i]}) for i in range(len(dims))]
            for corner in itertools.product(*(edge[:-1] for edge in edges)):
                inside = sum(all(a <= at < b for at, (a, b) in zip(corner, box, strict=True)) for box in ends)
                if inside != 1:
                    return False
    return True


def cpp_verdicts(paths):
    """Sanitizers end the process at the first finding, which is then no answer but an exit code."""
    done = subprocess.run(
        [query_tool(), "load"], input="\n".join(map(str, paths)).encode(), capture_output=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")[-4000:]
    lines = done.stdout.decode("utf-8", "replace").split("\n")[:-1]
    assert len(lines) == len(paths)
    assert all(line in ("ok", "edited") or "; " in line for line in lines)  # what to do next
    return [line if line in ("ok", "edited") else "refused" for line in lines]


def fuzz(folder, count, seed):
    whole, rng = originals(), random.Random(seed)
    seen = {"ok": 0, "edited": 0, "refused": 0}
    for start in range(0, count, BATCH):
        paths = []
        for number in range(start, min(count, start + BATCH)):
            path = folder / f"{number % BATCH}.json"
            path.write_bytes(damaged(rng, rng.choice(whole)))
            paths.append(path)
        for path, theirs in zip(paths, cpp_verdicts(paths), strict=True):
            ours = python_verdict(path)
            if ours != theirs:
                kept = folder / "disagreement.json"
                kept.write_bytes(path.read_bytes())
                pytest.fail(f"Python says {ours}, C++ says {theirs}: {kept}")
            if ours != "refused":
                document = json.loads(path.read_text("utf-8"))
                SCHEMA.validate(document)
                assert tiled(document), path
            seen[ours] += 1
    return seen


def test_whole_documents_are_taken(tmp_path):
    paths = []
    for number, document in enumerate(originals()):
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_text(json.dumps(document), encoding="utf-8")
    verdicts = [python_verdict(path) for path in paths]
    assert verdicts == cpp_verdicts(paths)
    assert set(verdicts[:3]) == {"ok"}
    assert set(verdicts[3:]) == {"edited"}  # parts of real ones


def test_damaged_documents(tmp_path):
    seen = fuzz(tmp_path, 400, 1)
    assert min(seen["edited"], seen["refused"]) > 20, seen


def test_damaged_manifests_of_bundles(tmp_path):
    """Only C++ reads them: each loads and every rule in it is asked, or a sentence says where it is wrong."""
    folder, rng, count = tmp_path / "whole", random.Random(3), 150
    deny = Deny({"variant": "rows", "WG": 64}, (), "wrong")
    write(tmp_path / "a.json", config(ONE, WIDE, FEW, SPARE, deny=(deny,)))
    bundle(tmp_path / "a.json", folder, {"gemv_decode": FAMILY})
    manifest = json.loads((folder / "bundle.json").read_text("utf-8"))
    for number in range(count):
        copied = shutil.copytree(folder, tmp_path / str(number))
        (copied / "bundle.json").write_bytes(damaged(rng, manifest))
    verdicts = cpp_verdicts([folder, *(tmp_path / str(number) for number in range(count))])
    assert verdicts[0] == "ok"
    assert 10 < verdicts.count("refused") < count


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_damaged_documents(tmp_path):
    seen = fuzz(tmp_path, 10_000, 2)
    assert min(seen["edited"], seen["refused"]) > 500, seen
