"""harness/tables.py: numbers as people read them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import tables


@pytest.mark.parametrize(
    ("ns", "text"),
    [(None, "–"), (0, "0 ns"), (170, "170 ns"), (999.4, "999 ns"), (1610, "1.61 µs"), (21_000, "21 µs"),
     (999_600, "1 ms"), (4.25e6, "4.25 ms"), (3.2e9, "3.2 s"), (2e12, "2000 s")],
)  # fmt: skip
def test_times(ns: float | None, text: str) -> None:
    assert tables.time_text(ns) == text


@pytest.mark.parametrize(
    ("count", "text"), [(None, "–"), (512, "512 B"), (32768, "32 KiB"), (1 << 20, "1 MiB"), (5 << 30, "5 GiB")]
)
def test_sizes(count: float | None, text: str) -> None:
    assert tables.bytes_text(count) == text


def test_rates_and_percentages() -> None:
    assert tables.gigabytes_per_second(51.96) == "52.0 GB/s"
    assert tables.percent_text(84.6) == "85 %"
    assert tables.gigabytes_per_second(None) == tables.percent_text(None) == "–"


def test_columns_of_numbers_stand_to_the_right() -> None:
    lines = tables.table(["name", "time"], [["a", "5 ns"], ["bb", None], ["c", "12 µs"]]).splitlines()
    assert lines[2].endswith(" 5 ns")
    assert lines[3].endswith("–")
    assert lines[4] == "c        12 µs"


def test_an_empty_table_has_its_headers() -> None:
    assert tables.table(["a", "b"], []).split()[:2] == ["a", "b"]


def test_json_refuses_what_json_does_not_have() -> None:
    assert tables.json_text({"b": 1, "a": None}) == '{\n  "a": null,\n  "b": 1\n}'
    with pytest.raises(ValueError, match="Out of range float"):
        tables.json_text({"a": float("nan")})


SAY = """
import sys
from harness.errors import KilnError
from harness.tables import say
try:
    say("x" * 100_000)
except KilnError as error:
    print(error, file=sys.stderr)
    raise SystemExit(1)
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_left_is_fine_and_a_full_disk_a_sentence(unbuffered: str) -> None:
    command = [sys.executable, "-c", SAY]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    cwd = Path(__file__).parent.parent
    pipe, writing = os.pipe()
    os.close(pipe)
    with open(writing, "wb") as closed:
        done = subprocess.run(command, cwd=cwd, env=environment, stdout=closed, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, cwd=cwd, env=environment, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(b"the output cannot be written: No space left")
    assert done.stderr.count(b"\n") == 1
