"""tuner/pareto.py: what may be traded for what, from a journal alone, and nothing that was not measured."""

import json
from pathlib import Path
from typing import Any

import pytest
from fakes import FAMILY as TOY
from fakes import SHEET as TOY_SHEET
from fakes import WORKLOAD
from simulated import Clock, SimulatedMeter, probed, simulate
from test_export import DESCRIPTION, STUDY, final
from test_programs import COLUMNS, ROWS, TALL, WIDE, note

from harness.candidate import Candidate
from harness.contest import compete
from harness.devices import sheet_from
from harness.runner import sensors
from tuner.cli import main
from tuner.pareto import Front, fronts, text
from tuner.request import objectives

SHEET = sheet_from(DESCRIPTION)
ALL = ("time", "dispatch", "programs", "energy")


def records() -> list[dict[str, Any]]:
    """Two sizes with a winner each; either also ran where the other won."""
    return [
        STUDY,
        final(ROWS, 10, 500_000.0, WIDE, 400_000.0),
        final(COLUMNS, 1, 500_000.0, TALL, 400_000.0),
        note(ROWS, 500_000.0, {8: 400_000.0, 2: 480_000.0}),
        note(COLUMNS, 500_000.0, {2: 400_000.0, 8: 440_000.0}),
    ]


def front(found: list[dict[str, Any]], *wanted: str) -> Front:
    (only,) = fronts(found, SHEET, wanted)
    return only


def values(found: Front) -> list[tuple[float, int]]:
    return [(round(point.time_ns / 1e5), point.programs) for point in found.points]


def test_fewer_programs_cost_time() -> None:
    found = front(records(), "time", "programs")
    assert values(found) == [(44, 2), (44, 1)]  # 10 × 400 + 400 µs, and 10 × 400 + 440
    assert [round(point.time_ns) for point in found.points] == [4_400_044, 4_440_044]
    assert [point.chosen for point in found.points] == [True, False]
    assert set(found.points[1].kernels) == {ROWS.key, COLUMNS.key}
    assert len(set(found.points[1].kernels.values())) == 1


def test_pairs_that_never_ran_are_not_made_up() -> None:
    found = front(records()[:3], "time", "programs")
    # Without the contests one program alone, the default, ran at both sizes.
    assert values(found) == [(44, 2), (55, 1)]


def test_a_shorter_dispatch_is_worth_a_longer_time() -> None:
    made = records()[:2]
    default, _, winner = made[1]["finalists"]
    winner["launches_ns"] = [400_000]
    default["launches_ns"] = [250_000, 240_000]  # slower, in two halves
    found = front(made, "time", "dispatch")
    assert [(p.dispatch_ns, p.chosen) for p in found.points] == [(400_000.0, True), (250_000.0, False)]
    assert front(made, "time").points == found.points[:1]
    winner["launches_ns"] = [245_000]  # now it is better by both
    assert [p.chosen for p in front(made, "time", "dispatch").points] == [True]


def test_energy_is_an_objective_where_it_was_counted() -> None:
    made = records()[:2]
    default, local, winner = made[1]["finalists"]
    default["energy_j"], local["energy_j"], winner["energy_j"] = 0.002, 0.004, 0.003
    found = front(made, "time", "energy")
    assert [(round(p.energy_j or 0, 4), p.chosen) for p in found.points] == [(0.03, True), (0.02, False)]
    assert found.why == {}
    assert "0.02 J" in text([found], ("time", "energy"))


def test_what_nobody_told_is_missing_with_the_reason() -> None:
    made = records()
    made[1]["facts"] = {**made[1]["facts"], "conditions": {"why": {"cpu_energy_j": "no energy counter here"}}}
    found = front(made, *ALL)
    assert found.why == {"energy": "no energy counter here"}
    assert all(point.energy_j is None for point in found.points)
    said = text([found], ALL)
    assert "energy is missing: no energy counter here" in said
    assert "–" in said
    for record in made[1:]:
        for item in record["finalists"]:
            del item["launches_ns"], item["energy_j"]  # as journals were written before
    assert "older than its records" in front(made, *ALL).why["dispatch"]


def test_differences_that_nobody_notices_make_no_point() -> None:
    made = [STUDY, final(ROWS, 10, 500_000.0, WIDE, 499_000.0)]
    assert len(front(made, "time", "dispatch").points) == 1


def test_the_command_reads_the_journal_beside_a_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.dumps(record) for record in records()]
    (tmp_path / "a.journal.jsonl").write_text("\n".join(lines) + "\n")
    assert main(["pareto", str(tmp_path / "a.json"), "--objectives", "programs", "--json"]) == 0
    (only,) = json.loads(capsys.readouterr().out)
    assert only["family"] == "gemv_decode"
    assert [point["programs"] for point in only["points"]] == [2, 1]
    assert main(["pareto", str(tmp_path / "a.json")]) == 0
    said = capsys.readouterr().out
    assert "longest dispatch" in said
    assert "chosen" in said


def test_time_comes_first_whatever_is_asked_for() -> None:
    assert objectives("energy,dispatch") == ("time", "dispatch", "energy")
    assert objectives("") == ()


# ---------------------------------------------------------------- measured


def test_a_contest_tells_each_launch_and_the_energy_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(1, noise=0.01, drift=0.0)
    simulate(monkeypatch, clock)
    meter: Any = SimulatedMeter(TOY_SHEET, clock, lambda candidate: 1e6)
    entrants = [Candidate(TOY, WORKLOAD, {"variant": "plain", "WG": wg, "VEC": 1}) for wg in (32, 64)]
    told = compete(meter, entrants, probed()).contestants
    assert [one.energy_j for one in told] == [None, None]
    assert all(one.launches_ns == pytest.approx((1e6,), rel=0.4) for one in told)
    meter.watts = 5.0
    for one in compete(meter, entrants, probed()).contestants:
        assert one.energy_j == pytest.approx(5e-3, rel=0.4)  # 5 W for a millisecond


def test_the_processors_counters_are_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensors, "_POWERCAP", tmp_path)
    assert sensors.read()["values"]["cpu_energy_j"] is None
    assert "RAPL" in str(sensors.read()["why"]["cpu_energy_j"])
    for name, micro in (("intel-rapl:0", 2_500_000), ("intel-rapl:1", 500_000), ("intel-rapl:0:0", 9_000_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{micro}\n")
    assert sensors.read()["values"]["cpu_energy_j"] == 3.0
