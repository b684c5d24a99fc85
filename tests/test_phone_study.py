"""A study on a fake phone from the command line: the cable pulled, a reboot, a resume; and what doctor says of it."""

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from phones import HERE, Cable, Phone, script

import harness.cli
import tuner.study
from harness.adb import phone_link
from harness.records import read
from kernels import tuned
from tuner.cli import main
from tuner.run import journal_path
from tuner.search import Stop

PAPER = f"{sys.executable} {HERE / 'paper_gpu.py'} 'Paper tiger'"
# The runner of a study, not the one before it that is only asked for its name, takes its phone away at the 3rd build.
ONCE = f"""if [ -e "$PHONE/asked" ]; then rm "$PHONE/asked"; exec {PAPER} --stall 3 "$PHONE/gone"; fi
if [ -e "$PHONE/unlucky" ]; then mv "$PHONE/unlucky" "$PHONE/asked"; fi
exec {PAPER}"""


@pytest.fixture
def phone(cable: Cable, monkeypatch: pytest.MonkeyPatch) -> Phone:
    monkeypatch.setattr(phone_link, "WAIT_S", 0.3)
    monkeypatch.setattr(tuner.study, "Stop", lambda seconds: Stop(seconds, trials=4))
    script(cable.runner, ONCE)
    return cable.phone()


def tune(out: Path, *more: str) -> int:
    words = ["--model", "clip-vit-b-32", "--kernels", "rmsnorm", "--seconds", "60", "--out", str(out)]
    return main(["--device", "adb:PAPER1", *words, *more])


def kinds(out: Path, kind: str) -> list[Any]:
    return [record for record in read(journal_path(out)).records if record["kind"] == kind]


def test_a_study_survives_the_cable_and_a_reboot(
    phone: Phone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p.json"
    (phone.home / "unlucky").touch()
    assert tune(out) == 3
    err = capsys.readouterr().err
    assert "kiln: phone PAPER1 is not attached any more; it did not come back" in err
    assert "Traceback" not in err
    finished = [trial["key"] for trial in kinds(out, "trial")]
    assert len(finished) == 2
    *_, begun = kinds(out, "begin")
    assert kinds(out, "interrupted") == []

    (phone.home / "gone").unlink()
    phone.file("/proc/sys/kernel/random/boot_id", "another")
    (phone.home / "unlucky").touch()
    (phone.home / "back").write_text("link")
    assert tune(out) == 0
    said = capsys.readouterr().out
    assert "1 candidate(s) were running when the machine went down" in said, "so that it does not take it down twice"
    assert "3 finished trials there are not repeated" in said, "that one too"
    trials = kinds(out, "trial")
    assert [trial["key"] for trial in trials[:2]] == finished
    keys = [trial["key"] for trial in trials]
    assert len(set(keys)) == len(keys)
    assert begun["key"] not in keys
    (lost,) = (t["measurement"] for t in trials if t["measurement"]["verdict"] == "worker_lost")
    assert "lost its link to the phone" in lost["log"]
    assert tuned.load(out).provenance["request"]["device"] == "adb"
    assert "PAPER1" not in out.read_text() + journal_path(out).read_text()


def test_a_low_battery_stops_a_study_with_a_sentence(
    phone: Phone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    phone.is_(percent=9, powered="false")
    assert tune(tmp_path / "p.json") == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said == (
        "kiln: phone PAPER1 is not fit to measure: its battery is at 9 %, and phones save power below 15 %: charge it; "
        "everything finished is kept, then run the same command again"
    )


def test_clocks_that_cannot_be_locked_stop_it_before_it_begins(
    phone: Phone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(tmp_path / "p.json", "--lock-clocks") == 1
    assert "is not rooted" in capsys.readouterr().err
    assert not (tmp_path / "p.json").exists()


# ---------------------------------------------------------------- doctor


def test_doctor_looks_at_a_phone(cable: Cable, capsys: pytest.CaptureFixture[str]) -> None:
    cable.phone().is_(battery_c=39.5, status=1, percent=12)
    assert harness.cli.main(["doctor", "--device", "adb", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (found,) = report["devices"]
    assert found["driver"] == "/vendor/lib64/libOpenCL.so"
    assert found["wrong"] is None
    assert found["phone"]["condition"]["battery_c"] == 39.5
    whats = [item["what"] for item in report["missing"]]
    assert whats[0].startswith("no trial would start: its battery is at 12 %")
    assert whats[1].startswith("a trial would wait: its battery has 39.5 °C")
    assert "PAPER1" not in json.dumps(report)
    assert harness.cli.main(["doctor", "--device", "adb:PAPER1"]) == 0
    text = capsys.readouterr().out
    for part in ("Paper Phone SM8650", "14 (API level 34)", "root for adb", "can be switched on", "12 %, 39.5 °C"):
        assert part in text
    assert "set-fixed-performance-mode-enabled true" in text
    assert "mend it: let it charge" in text


def test_the_bundle_tells_all_but_who(
    cable: Cable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "mybox")
    cable.phone()
    (cable.phone("PAPER2").home / "state").write_text("unauthorized")
    bundle = tmp_path / "b.zip"
    assert harness.cli.main(["doctor", "--device", "adb:PAPER1", "--bundle", str(bundle)]) == 0
    assert capsys.readouterr().out == f"wrote {bundle}: read it, then attach it to your report\n"
    with zipfile.ZipFile(bundle) as opened:
        files = {name: opened.read(name).decode() for name in opened.namelist()}
    assert {"README.txt", "versions.json", "doctor.json", "adb.txt", "SERIAL-1/getprop.txt"} < files.keys()
    assert "[ro.soc.model]: [SM8650]" in files["SERIAL-1/getprop.txt"]
    assert "serialno" not in files["SERIAL-1/getprop.txt"]
    assert "level: 80" in files["SERIAL-1/condition.txt"]
    assert "error: device unauthorized" in files["SERIAL-2/condition.txt"]
    for secret in ("PAPER1", "PAPER2", "mybox"):
        assert not any(secret in text for text in files.values()), secret


def test_a_bundle_of_what_fails(cable: Cable, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cable.phone().home / "state").write_text("offline")
    bundle = tmp_path / "b.zip"
    assert harness.cli.main(["doctor", "--device", "adb", "--bundle", str(bundle)]) == 3
    out, err = capsys.readouterr()
    assert out.startswith("wrote ")
    assert err.startswith("kiln: phone PAPER1 is offline")
    with zipfile.ZipFile(bundle) as opened:
        assert opened.read("doctor-failed.txt").decode().startswith("exit code 3: phone SERIAL-1 is offline")
    assert harness.cli.main(["doctor", "--bundle", str(tmp_path / "b.txt")]) == 2
    assert harness.cli.main(["doctor", "--device", "adb", "--bundle", str(tmp_path / "no" / "b.zip")]) == 1
