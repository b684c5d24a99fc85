"""kernels/engine/kiln.hpp gives what kernels.select gives: the same documents, devices and sizes, the same answers."""

import json
import random
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import tuned_samples as samples
from engine_tool import query_tool
from tuned_samples import FEW, ONE, SPARE, WIDE, box, config, entry, on

import kernels
from kernels.bundle import bundle
from kernels.entry import source_sha256
from kernels.select import select
from kernels.spec import Workload, evaluate
from kernels.tuned import Deny, TunedConfig, dumps, load, loads, write
from kernels.tuned.encode import encode

RESULTS = sorted((Path(__file__).parent.parent / "results").glob("*.json"))
SAMPLES = {"gemv_decode": samples.FAMILY}
CASES = 300  # random queries of each document


def current(document: TunedConfig) -> TunedConfig:
    """The document as if it had been tuned for today's sources: a bundle holds no others."""
    families = kernels.families()
    made = {}
    for name, section in document.kernels.items():
        sha = {v.name: source_sha256(v) for v in families[name].variants}
        entries = tuple(replace(e, source_sha256=sha[e.variant]) for e in section.entries)
        made[name] = replace(section, entries=entries)
    return replace(document, kernels=made)


def query(workload, device, predicted):
    d = workload.dtypes
    asked = {
        "family": workload.family, "dims": dict(workload.dims), "weights": workload.weights,
        "dtypes": {"act": d.act, "compute": d.compute, "acc": d.acc, "cache": d.cache},
        "options": dict(workload.options), "predicted": predicted,
    }  # fmt: skip
    return asked | {"device": encode(replace(config(), device=device))["device"]}


def python_answer(configs, workload, device, family, predicted):
    try:
        chosen = select(configs, workload, device, family, predicted=predicted)
    except ValueError:
        return {"error": True}
    e = chosen.entry
    return {
        # Built-in entries have one name in Python and one for each configuration in a bundle.
        "entry": e.id, "level": str(chosen.level), "how": chosen.how, "source_sha256": e.source_sha256,
        "build_options": list(e.build_options),
        "launches": [
            {"entry": launch.entry, "grid": [evaluate(size, workload.dims) for size in launch.grid],
             "local": list(launch.local or ())}
            for launch in e.launches
        ],
        "scratch": {s.name: evaluate(s.bytes, workload.dims) for s in e.scratch},
        "layout": dict(e.layout),
    }  # fmt: skip


def compare(folders, configs, families, queries):
    """Ask both sides; returns how often each level was the answer."""
    lines = "".join(json.dumps(query(w, d, p)) + "\n" for w, d, p in queries)
    done = subprocess.run(
        [query_tool(), "select", *folders], input=lines, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr[-4000:]
    levels: dict[str, int] = {}
    answers = done.stdout.splitlines()
    assert len(answers) == len(queries)
    for (workload, device, predicted), line in zip(queries, answers, strict=True):
        got = json.loads(line)
        wanted = python_answer(configs, workload, device, families[workload.family], predicted)
        if "error" in wanted:
            assert "error" in got, (workload.key, got)
            levels["error"] = levels.get("error", 0) + 1
            continue
        if wanted["level"] == "built-in":
            wanted["entry"] = got.get("entry")
            assert str(wanted["entry"]).startswith("built-in")
        assert got == wanted, workload.key
        levels[wanted["level"]] = levels.get(wanted["level"], 0) + 1
    return levels


def sizes(rng, entry, family):
    """Sizes of a workload like an entry's: at the ends of its bucket, near them, or anywhere."""
    dims = {}
    for dim in family.dims:
        if dim in family.fixed:
            dims[dim] = entry.match.options[dim]
            continue
        low, high = (entry.bucket or {}).get(dim, (1, None))
        ends = [low, high or low * 4, low + 1, max(1, low - 1), (high or low) + 1]
        size = rng.choice([*ends, int(2 ** rng.uniform(0, 16)), 128 * rng.randint(1, 200)])
        dims[dim] = size if dim == "M" or rng.random() < 0.3 else -(-size // 128) * 128
    if {"T", "S"} <= set(dims) and rng.random() < 0.9:  # most jobs are possible ones: M ≤ T ≤ S
        dims["T"], dims["S"] = sorted((max(dims["T"], dims["M"]), max(dims["S"], dims["M"])))
    return dims


def devices(rng, device):
    sheet = device.sheet
    choices = [
        device, device, device,
        on(device, driver="another"),
        on(device, compiler=""),
        on(device, model="another"),
        on(device, model="another", compute_units=max(1, sheet.compute_units // 64), local_bytes=8192),
        on(device, family="another", model="another"),
        on(device, vendor="another", kind="cpu", vector_floats=rng.choice([0, 4, 8, 16])),
        on(device, vendor="another", kind="gpu"),
        on(device, max_work_group=rng.choice([1, 32, 64, 128]), max_work_item_sizes=(64, 64, 64)),
        on(device, local_bytes=rng.choice([0, 1024, 4096])),
        on(device, max_alloc_bytes=1 << rng.randint(10, 30)),
        on(device, subgroup_sizes=(), opencl_c=(1, 2), extensions=frozenset()),
        on(device, image2d=None, image_pitch_texels=0),
    ]  # fmt: skip
    return rng.choice(choices)


def random_queries(document, families, seed, count):
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        name = rng.choice(sorted(document.kernels))
        family, picked = families[name], rng.choice(document.kernels[name].entries)
        options = {key: value for key, value in picked.match.options.items() if key not in family.fixed}
        workload = Workload(name, sizes(rng, picked, family), picked.match.dtypes, picked.match.weights, options)
        found.append((workload, devices(rng, document.device), rng.random() < 0.3))
    return found


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_real_documents_give_the_same_answers(path, tmp_path):
    document = current(load(path))
    write(tmp_path / "a.json", document)
    bundle(tmp_path / "a.json", tmp_path / "bundle", kernels.families())
    queries = random_queries(document, kernels.families(), path.stem, CASES)
    levels = compare([tmp_path / "bundle"], [document], kernels.families(), queries)
    assert set(levels) >= {"exact", "stale", "family", "vendor", "built-in", "error"}, levels


def test_sample_documents_give_the_same_answers(tmp_path):
    """Rules of a toy family, images, deny rules, predictions and several documents at once."""
    deny = Deny({"variant": "rows", "WG": 64}, (">=E031.38", "<E031.46"), "wrong results at M = 1")
    documents = {
        "whole": config(deny=(deny,)),
        "split": config(entry("split", box((1, 16), (1, None)), SPLIT=4, job=samples.workload(k=16384)), SPARE),
        "guess": config(entry("guess", box((1, 16), (1, None)), predicted=True), device=on(model="adreno-740")),
        "edges": config(entry("a", box((1, 1), (1, 1024))), entry("b", box((2, 4), (1, 1024))), SPARE),
    }
    for name, document in documents.items():
        write(tmp_path / f"{name}.json", document)
        bundle(tmp_path / f"{name}.json", tmp_path / name, SAMPLES)
    seen: dict[str, int] = {}
    for names in [*([name] for name in documents), list(documents), ["guess", "edges"]]:
        chosen = [documents[name] for name in names]
        queries = [q for d in chosen for q in random_queries(d, SAMPLES, repr(names), 100)]
        for workload, device, predicted in queries[::9]:
            queries.append((workload, on(device, compiler="E031.46"), predicted))
        for level, count in compare([tmp_path / name for name in names], chosen, SAMPLES, queries).items():
            seen[level] = seen.get(level, 0) + count
    assert set(seen) >= {"exact", "stale", "family", "vendor", "built-in", "error"}, seen


def test_an_edited_document_is_seen_by_both(tmp_path):
    text = dumps(config(ONE, WIDE, FEW, SPARE))
    cases = {
        "whole.json": text,
        "spaced.json": json.dumps(json.loads(text)),
        "edited.json": text.replace('"median_ns": 123456.5', '"median_ns": 99.0'),
    }
    for number, value in enumerate((1e16, 1e-5, 123456789.123, 5e-324, 1e22, 0.1, 100.0, 1.5e300, 2e-7, 0.00012)):
        stats = replace(samples.STATS, median_ns=value)
        cases[f"float{number}.json"] = dumps(config(replace(ONE, stats=stats), SPARE))
    for name, content in cases.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    paths = [str(tmp_path / name) for name in cases]
    done = subprocess.run([query_tool(), "load"], input="\n".join(paths), capture_output=True, text=True, check=True)
    wanted = ["edited" if loads(content).edited else "ok" for content in cases.values()]
    assert done.stdout.split() == wanted
    assert wanted.count("edited") == 1
