"""harness/trace.py: the trace is what Chromium's format says, and its numbers are the profile's."""

import json
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from profiles import ORIGIN_NS, made_up

from harness import telemetry, trace
from harness.errors import KilnError


def check_events(events: list[dict[str, Any]]) -> None:
    """Every event is of a kind and shape that Perfetto reads; slices of one track nest or follow each other."""
    tracks: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    named = {(e["pid"], e["tid"]) for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    for event in events:
        assert event["ph"] in ("X", "M", "C")
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert isinstance(event["args"], dict)
        if event["ph"] == "M":
            continue
        assert event["ts"] >= 0
        if event["ph"] == "C":
            assert event["args"]
            assert all(isinstance(value, int | float) for value in event["args"].values())
        else:
            assert event["dur"] >= 0
            assert (event["pid"], event["tid"]) in named
            tracks[event["pid"], event["tid"]].append((event["ts"], round(event["ts"] + event["dur"], 3)))
    for track, slices in tracks.items():
        slices.sort()
        for (_, end), (start, _) in pairwise(slices):
            assert start >= end - 1e-6, f"slices of track {track} overlap at {start}"


def slices(found: dict[str, Any], pid: int, tid: int) -> list[dict[str, Any]]:
    return [e for e in found["traceEvents"] if (e["ph"], e["pid"], e["tid"]) == ("X", pid, tid)]


def test_the_trace_is_valid_and_complete() -> None:
    found = trace.to_json(made_up())
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    check_events(found["traceEvents"])
    kernels = slices(found, trace.DEVICE, trace.KERNELS)
    assert [e["name"] for e in kernels] == 2 * ["layer 0 attention norm", "layer 0 q", "layer 0 q"]
    assert {e["cat"] for e in kernels} == {"rmsnorm", "gemv_decode"}
    first = kernels[0]
    assert (first["ts"], first["dur"]) == (1050.0, 10.0)
    assert first["args"]["queued_to_submit_us"] == 1.0
    assert first["args"]["submit_to_start_us"] == 39.0
    assert first["args"]["call_limit_us"] == 6.0
    gaps = slices(found, trace.DEVICE, trace.GAPS)
    assert [(e["ts"], e["dur"]) for e in gaps] == [(1060.0, 5.0), (1080.0, 5.0), (2070.0, 10.0), (2110.0, 10.0)]
    assert len(slices(found, trace.HOST, trace.ENQUEUES)) == 6
    (compiled,) = slices(found, trace.HOST, trace.COMPILES)
    assert (compiled["ts"], compiled["dur"]) == (1.0, 500.0)
    assert [e["name"] for e in slices(found, trace.HOST, trace.PHASES)] == ["token-eval", "token-eval"]
    depths = [e["args"]["launches"] for e in found["traceEvents"] if e["name"] == "launches in the queue"]
    assert max(depths) == 3
    assert depths[-1] == 0
    assert sum(e["name"].startswith("queue delay") for e in found["traceEvents"]) == 6


def test_the_metadata_says_how_far_to_trust_the_axis() -> None:
    profile = made_up()
    known = trace.metadata(profile)
    assert known["origin_monotonic_ns"] == ORIGIN_NS
    assert known["clock"]["method"] == "made up"
    assert known["clock"]["uncertainty_ns"] == 500
    assert known["clock"]["bounds_agree"] is True
    assert known["telemetry"] == "it was not asked for: --telemetry"
    assert known["layers"] == {"decoder": "2 of 3 resident"}


def test_launches_that_overlap_get_a_track_of_their_own() -> None:
    profile = made_up()
    step = profile.steps[0]
    sample = step.samples[0]
    q, s, start, end = sample.stamps_ns[1]
    stamps = (sample.stamps_ns[0], (q, s, start - 7000, end), sample.stamps_ns[2])
    early = replace(profile, steps=(replace(step, samples=(replace(sample, stamps_ns=stamps),)),))
    found = trace.to_json(early)
    check_events(found["traceEvents"])
    assert [e["name"] for e in slices(found, trace.DEVICE, trace.BESIDE)] == ["layer 0 q"]


def test_telemetry_lies_on_the_same_axis() -> None:
    signal = telemetry.Signal("cpu_clock_mhz", "MHz", "/proc/cpuinfo", 100, True)
    gone = telemetry.Signal("gpu_clock_mhz", "MHz", "/sys/x", 100, False, "ENOENT")
    load = telemetry.Signal("cpu_percent", "%", "/proc/stat", 100, True, over="interval")
    t_ns = ORIGIN_NS + 5000, ORIGIN_NS + 9000
    series = {
        "cpu_clock_mhz": telemetry.Series(t_ns, (2400.0, 2500.0)),
        "cpu_percent": telemetry.Series(t_ns, (7.0, 9.0)),
    }
    recording = telemetry.Recording(
        platform="linux",
        start_ns=ORIGIN_NS,
        end_ns=ORIGIN_NS + 10_000,
        signals=(signal, gone, load),
        series=series,
        phases=(),
        summary={},
        sampler_percent=0.1,
        sampler_why=None,
        energy=None,
        energy_why="no power",
    )
    found = trace.to_json(replace(made_up(), recording=recording, recording_why=None))
    check_events(found["traceEvents"])
    counters = [e for e in found["traceEvents"] if e["ph"] == "C" and e["pid"] == trace.TELEMETRY]
    assert [(e["name"], e["ts"], e["args"]) for e in counters] == [
        ("cpu_clock_mhz", 5.0, {"MHz": 2400.0}),
        ("cpu_clock_mhz", 9.0, {"MHz": 2500.0}),
        ("cpu_percent", 0.0, {"%": 7.0}),
        ("cpu_percent", 5.0, {"%": 9.0}),
    ], "what cannot be read has no counter, least of all one that shows 0"


def test_a_place_that_takes_no_file_is_known_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(KilnError, match="is a folder; name a file"):
        trace.claim(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(KilnError, match="cannot be written"):
        trace.claim(tmp_path / "file" / "trace.json")
    trace.claim(tmp_path / "new" / "trace.json")
    trace.write(tmp_path / "new" / "trace.json", made_up())
    check_events(json.loads((tmp_path / "new" / "trace.json").read_text())["traceEvents"])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["trace.json"]
