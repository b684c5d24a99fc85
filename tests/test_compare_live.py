"""The demonstration that `compare --commits` neither sleeps nor cries wolf: `make bench-demo`, half an hour.

In a clone of this repository one commit slows one kernel down by 15 %, another adds a comment to every source. While a
process that burns a core starts and stops in the background, the first must be found in 5 of 5 runs, and of the second
10 runs must find nothing. Each run takes the heaviest workload of each family that the commit touches.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SLOWED, UNCHANGED = 5, 10
FAMILIES = ("flash_attention", "gemm_prefill", "gemv_decode", "kv_concat", "rmsnorm")
COMPARE = ("-m", "harness", "compare", "--device", "cpu", "--weights", "int4/g128", "--json")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * 3600)]

# Three work-items of twenty do all their work twice. How often the loop turns is nothing that a compiler can know, or
# it would see that only the last turn counts.
LOOP = "  for (int c = 0; c < chunk_count(K); c++) {\n#if XLOCAL\n    barrier"
AGAIN = """  for (int again = g % 20 < 3 ? (M > 1000000 ? K : 1) : 0; again >= 0; again--) {
#pragma unroll
  for (int b = 0; b < BLOCKS; b++)
#pragma unroll
    for (int m = 0; m < MT; m++) total[b][m] = (floatV)(0.0f);
"""
END = "#pragma unroll\n  for (int b = 0; b < BLOCKS; b++) store_block"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone: its branch `slow` has one kernel slowed down, its branch `comment` changes nothing that counts."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    path = tmp_path_factory.mktemp("clone") / "kiln"
    git(ROOT, "clone", "--quiet", str(ROOT), str(path))
    git(path, "branch", "base")
    git(path, "checkout", "--quiet", "-b", "slow")
    source = path / "kernels" / "gemv_decode" / "panel.cl"
    text = source.read_text()
    assert text.count(LOOP) == 1
    assert text.count(END) == 1
    source.write_text(text.replace(LOOP, AGAIN + LOOP).replace(END, "  }\n" + END))
    commit(path, "gemv panel: slower")
    git(path, "checkout", "--quiet", "-b", "comment", "base")
    for one in path.glob("kernels/*/*.cl"):
        one.write_text(one.read_text() + "// The same kernel.\n")
    commit(path, "a comment in every source")
    return path


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(folder), *words], check=True)


def commit(folder: Path, message: str) -> None:
    git(folder, "-c", "user.name=demo", "-c", "user.email=demo@example.org", "commit", "--quiet", "-am", message)


@pytest.fixture(scope="module", autouse=True)
def burner() -> Iterator[None]:
    """A process that burns a core, started and stopped at random every few seconds."""
    done = threading.Event()
    chance = random.Random(0)

    def burn() -> None:
        while not done.wait(chance.uniform(0.3, 4.0)):
            with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
                done.wait(chance.uniform(0.3, 4.0))
                process.kill()

    thread = threading.Thread(target=burn)
    thread.start()
    yield
    done.set()
    thread.join()


def compare(clone: Path, other: str, *more: str) -> tuple[int, dict[str, Any]]:
    """Exit code and report."""
    command = [sys.executable, "-P", *COMPARE, *more, "--commits", "base", other]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=clone, env=env, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def told(report: dict[str, Any]) -> str:
    lines = [f"{report['seconds']:.0f} s; anchors {report['anchors']}"]
    for one in report["workloads"]:
        if effect := one.get("effect"):
            change, low, high = (100 * (ratio - 1) for ratio in (effect["ratio"], *effect["interval"]))
            what = f"{one['family']:16} {one['label']:24} {change:+6.1f} % ({low:+.1f} to {high:+.1f})"
            again = "" if one["control"] is None else ", measured again"
            lines.append(f"  {what}, {effect['sessions']} sessions, {one['way']}{again}: {one['verdict']}")
    return "\n".join(lines)


def test_a_slow_down_of_15_percent_is_caught_every_time(clone: Path) -> None:
    caught = 0
    for run in range(SLOWED):
        code, report = compare(clone, "slow", "--heaviest", "1")
        verdicts = {one["workload"]: one["verdict"] for one in report["workloads"] if not one["identical"]}
        assert {key.split(":")[0] for key in verdicts} == {"gemv_decode"}
        caught += code == 1 and "regressed" in verdicts.values()
        print(f"\nslowed down, run {run + 1}: exit code {code}, {told(report)}", flush=True)
    assert caught == SLOWED


def test_unchanged_kernels_raise_no_alarm(clone: Path) -> None:
    alarms = 0
    for run in range(UNCHANGED):
        code, report = compare(clone, "comment", "--heaviest", "1", "--seconds", "3600")
        assert {one["family"] for one in report["workloads"] if one["verdict"] != "identical"} == set(FAMILIES)
        alarms += code != 0 or any(one["verdict"] != "within noise" for one in report["workloads"])
        print(f"\nunchanged, run {run + 1}: exit code {code}, {told(report)}", flush=True)
    assert alarms == 0
