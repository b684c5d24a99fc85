"""The final table: narrow enough to read, and true; the line that stands in for a progress bar."""

import pytest
from test_export import DESCRIPTION, final, workload

from harness.devices import sheet_from
from tuner.decisions import decisions
from tuner.progress import Progress
from tuner.summary import rows, summary

FINALS = [
    final(workload(16384, 2048), 36, 500_000.0, {"BLOCKS": 8}, 400_000.0),
    final(workload(2048, 16384, "int4/g64"), 18, 500_000.0, {"BLOCKS": 8}, 600_000.0),
    final(workload(4096, 4096, "e0m4/g128"), 18, 500_000.0, {"BLOCKS": 8}, 90_000.0),
]
for record in FINALS:  # as long as the longest name in a real plan
    record["workload"]["label"] = "mobilevlm-3b gate/up, something"
DECIDED = decisions(FINALS, sheet_from(DESCRIPTION))


def test_the_table_fits_a_terminal_and_says_what_sets_the_winner_apart() -> None:
    table, _, remark = summary(DECIDED).rpartition("\n")
    assert max(map(len, table.splitlines())) <= 120
    assert "1.25× [1.25, 1.25]" in table
    assert "BLOCKS=8" in table
    assert "25 bandwidth" in table
    kept = next(line for line in table.splitlines() if "int4/g64" in line)
    assert "the default" in kept
    assert "[" not in kept  # the default is not faster than itself, by any interval
    assert remark.startswith("mobilevlm-3b gate/up, something 1×4096×4096 e0m4/g128: 111 %")


def test_a_driver_local_winner_is_named() -> None:
    record = final(workload(16384, 2048), 36, 500_000.0, {"BLOCKS": 8}, 600_000.0)
    record["finalists"][1]["samples_ns"] = [300_000 + i for i in range(9)]
    decided = decisions([record], sheet_from(DESCRIPTION))
    assert summary(decided).endswith("local=driver")


def test_json_rows_keep_the_whole_configuration() -> None:
    first = rows(DECIDED)[0]
    assert first["winner"].startswith("panel P=")
    assert first["speedup"] == pytest.approx(1.25, rel=1e-4)
    assert first["limited_by"] == "bandwidth"


def test_without_a_terminal_each_workload_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(5.0, 0) as progress:
        progress.workload("gemma-2b q int4/g128")
    assert "searching: gemma-2b q int4/g128" in capsys.readouterr().err
