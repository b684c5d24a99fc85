"""A phone on the cable, as a fake adb client has it: found, given the runner once, lost and found again."""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import native
import pytest
from fake_runner import DEVICE
from phones import HERE, Cable, Phone

from harness import devices
from harness.adb import phone_link
from harness.adb.client import Phone as Listed
from harness.adb.client import listed
from harness.devices import Attached, DeviceChoice, resolve
from harness.errors import DeviceMissing, UsageError
from harness.hinted import hinted
from harness.runner.protocol import launch
from harness.runtimes import Runtimes
from harness.supervisor import RunnerLost, Supervisor
from kernels.spec import Verdict
from tuner.request import add_arguments, from_arguments

FOLDER = "/data/local/tmp/kiln"
UNPLUG = [launch("unplug", [1], None, [])]
USUAL = [launch("k", [1], None, [])]


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phone_link, "WAIT_S", 0.3)


def supervise(choice: DeviceChoice) -> Supervisor:
    return Supervisor(choice.command, link=choice.link)


# ---------------------------------------------------------------- finding it


def test_the_list_of_adb_is_read() -> None:
    text = (
        "* daemon not running; starting now at tcp:5037\n* daemon started successfully\nList of devices attached\n"
        "0A1B2C3D               device usb:1-2 product:lahaina model:SM_G998B device:o1s transport_id:1\n"
        "192.168.1.7:5555       offline transport_id:3\n"
        "????????????           no permissions (user in plugdev group; are your udev rules wrong?); "
        "see [http://developer.android.com/tools/device.html] usb:1-4 transport_id:2\n"
        "R58M                   unauthorized usb:1-5 transport_id:4\n\n"
    )
    assert listed(text) == [
        Listed("0A1B2C3D", "device", "SM G998B"),
        Listed("192.168.1.7:5555", "offline"),
        Listed("????????????", "no permissions"),
        Listed("R58M", "unauthorized"),
    ]
    assert listed("adb: some failure\n") == listed("List of devices attached\n\n") == []


@pytest.mark.parametrize(
    ("state", "remedy"),
    [
        ("unauthorized", 'answer "Allow USB debugging?" with yes'),
        ("offline", "adb reconnect offline"),
        ("no permissions (missing udev rules? user is in the plugdev group)", "android-sdk-platform-tools-common"),
        ("authorizing", "wait a few seconds"),
        ("recovery", "boot it as usual"),
    ],
)
def test_each_state_has_its_sentence(cable: Cable, state: str, remedy: str) -> None:
    (cable.phone().home / "state").write_text(state)
    with pytest.raises(DeviceMissing, match="phone PAPER1 ") as missing:
        resolve("adb")
    assert remedy in str(missing.value)
    assert missing.value.exit_code == 3
    assert "\n" not in str(missing.value)


def test_no_phone_and_no_adb(cable: Cable, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceMissing, match="no phone is attached: connect one"):
        resolve("adb")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DeviceMissing, match="adb is not on the PATH: install it"):
        resolve("adb:PAPER1")


def test_several_phones_are_told_apart_by_serial(cable: Cable, monkeypatch: pytest.MonkeyPatch) -> None:
    cable.phone(), cable.phone("PAPER2")
    with pytest.raises(UsageError, match=r"several phones .*PAPER1 \(Paper Phone\), PAPER2 .*--device adb:PAPER1"):
        resolve("adb")
    with pytest.raises(DeviceMissing, match='no phone "PAPER3" is attached: adb lists PAPER1'):
        resolve("adb:PAPER3")
    assert "PAPER2" in resolve("adb:PAPER2").command
    monkeypatch.setenv("ANDROID_SERIAL", "PAPER1")
    assert "PAPER1" in resolve("adb").command


def test_a_phone_that_cannot_be_used_does_not_hide_the_other(cable: Cable) -> None:
    (cable.phone().home / "state").write_text("unauthorized")
    cable.phone("PAPER2")
    assert "PAPER2" in resolve("adb").command


def test_a_sheet_finds_its_phone(cable: Cable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "list_devices", lambda: Attached((), Runtimes((), ())))
    adreno = {"vendor": "QUALCOMM", "name": "QUALCOMM Adreno(TM)", "version": "OpenCL 3.0 Adreno(TM) 750"}
    (cable.home.parent / "device.json").write_text(json.dumps(DEVICE | adreno))
    cable.runs(f"{HERE / 'phone_runner.py'} --describe={cable.home.parent / 'device.json'}")
    cable.phone()
    choice = resolve("adreno750")
    assert (choice.slug, choice.link is not None) == ("adreno750", True)
    with pytest.raises(DeviceMissing, match=r'no Adreno 740 .*phone PAPER1 \("QUALCOMM Adreno\(TM\)"\); connect'):
        resolve("adreno740")
    (cable.home / "PAPER1" / "state").write_text("unauthorized")
    with pytest.raises(DeviceMissing, match=r"no Adreno 750 is attached: .*phone PAPER1 has not authorised"):
        resolve("adreno750")


def test_without_adb_a_sheet_means_a_device_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "list_devices", lambda: Attached((), Runtimes((), ())))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DeviceMissing, match="no Adreno 750 is attached"):
        resolve("adreno750")


# ---------------------------------------------------------------- the runner


def test_the_runner_is_pushed_once_by_content(cable: Cable) -> None:
    phone = cable.phone()
    name = f"kiln-runner-{hashlib.sha256(cable.runner.read_bytes()).hexdigest()[:16]}"
    phone.file(f"{FOLDER}/kiln-runner-0123456789abcdef", "of another Kiln")
    for _ in range(2):
        assert resolve("adb").description["name"] == "Paper tiger"
    assert sum(call.startswith("push") for call in phone.calls) == 1
    folder = phone.home / "root" / FOLDER.lstrip("/")
    assert [path.name for path in folder.iterdir()] == [name]
    assert (folder / name).stat().st_mode & 0o777 == 0o755
    phone.file(f"{FOLDER}/{name}", "half of it")  # a damaged one is pushed again
    assert resolve("adb").slug == "nobody-paper-tiger"
    assert (folder / name).read_bytes() == cable.runner.read_bytes()


def test_no_serial_number_gets_into_a_request() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert from_arguments(parser.parse_args(["--device", "adb:PAPER1"])).as_json()["device"] == "adb"


def test_a_runner_that_is_not_built(cable: Cable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cable.phone()
    monkeypatch.setenv("KILN_RUNNER", str(tmp_path / "nowhere"))
    with pytest.raises(DeviceMissing, match=r"the runner for phones is not built .*nowhere.*: make runner-android"):
        resolve("adb")


def test_a_phone_without_room(cable: Cable) -> None:
    (cable.phone().home / "full").touch()
    with pytest.raises(DeviceMissing, match=r"PAPER1 has no room for the runner \(\d+ KiB\): free some space"):
        resolve("adb")


def test_an_android_that_is_too_old(cable: Cable) -> None:
    (cable.phone().home / "props/ro.build.version.sdk").write_text("23\n")
    with pytest.raises(DeviceMissing, match="API level 23, and adb passes bytes through unchanged from 24"):
        resolve("adb")


def test_an_opencl_library_without_a_platform(cable: Cable) -> None:
    cable.phone()
    cable.runs(f"{HERE / 'phone_runner.py'} --platformless")
    with pytest.raises(DeviceMissing) as missing:
        resolve("adb")
    assert str(missing.value) == ("phone PAPER1: no OpenCL device: /vendor/lib64/libOpenCL.so returns no platform")


def test_a_runner_of_another_protocol(cable: Cable) -> None:
    cable.phone()
    cable.runs(f"{HERE / 'phone_runner.py'} --protocol=2")
    with pytest.raises(DeviceMissing, match="speaks protocol 2, and this program 1: build the runner anew"):
        resolve("adb")


def test_hints_reach_the_runner(cable: Cable) -> None:
    cable.phone()
    choice = hinted(resolve("adb"), priority="low", performance=None)
    with supervise(choice) as supervisor:
        assert supervisor.hello().hints == {"words": "--priority low"}


def test_bytes_pass_unchanged(cable: Cable) -> None:
    cable.phone()
    data = bytes(range(256)) * 4096
    with supervise(resolve("adb")) as supervisor:
        supervisor.put("b", data)
        assert supervisor.get("b") == data


@pytest.mark.skipif(bool(native.ABSENT), reason=native.ABSENT)
def test_the_native_runner_outlives_its_driver_without_a_new_connection(
    cable: Cable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KILN_RUNNER", str(native.build()))
    phone = cable.phone()
    choice = resolve("adb")
    data = bytes(range(256)) * 4096
    with Supervisor((*choice.command, "--inject"), link=choice.link) as supervisor:
        assert supervisor.hello().runner.startswith("kiln-runner")
        supervisor.put("b", data)
        assert supervisor.get("b") == data
        connections = sum("exec env" in call for call in phone.calls)
        supervisor.inject("segfault", on="get")
        with pytest.raises(RunnerLost, match="SIGSEGV"):
            supervisor.get("b")
        assert not supervisor.have("b", len(data))
        assert sum("exec env" in call for call in phone.calls) == connections


# ---------------------------------------------------------------- bad luck


@pytest.fixture
def phone(cable: Cable) -> Phone:
    return cable.phone()


def test_the_cable_is_pulled_and_put_back(phone: Phone, capsys: pytest.CaptureFixture[str]) -> None:
    (phone.home / "back").write_text("link")
    with supervise(resolve("adb")) as supervisor:
        with pytest.raises(RunnerLost, match="lost its link to the phone") as lost:
            supervisor.run("p", UNPLUG)
        assert lost.value.verdict is Verdict.WORKER_LOST, "nobody's fault: it is measured again"
        assert supervisor.run("p", USUAL).wall_ns == (200,)
        assert supervisor.generation == 2
        assert supervisor.waited_s > 0
    said = capsys.readouterr().err
    assert "kiln: phone PAPER1 is gone (run): waiting up to" in said
    assert "kiln: phone PAPER1 is back" in said


def test_the_phone_reboots_over_a_candidate(phone: Phone) -> None:
    (phone.home / "back").write_text("boot")
    with supervise(resolve("adb")) as supervisor:
        with pytest.raises(RunnerLost, match="went down with the phone, which rebooted during run") as lost:
            supervisor.run("p", UNPLUG)
        assert lost.value.verdict is Verdict.CRASHED, "it is not tried again unless asked"
        assert supervisor.run("p", USUAL).wall_ns == (200,)


def test_a_phone_that_stays_away(phone: Phone) -> None:
    with supervise(resolve("adb")) as supervisor, pytest.raises(DeviceMissing) as gone:
        supervisor.run("p", UNPLUG)
    assert str(gone.value) == (
        "phone PAPER1 is not attached any more; it did not come back within 0 s: everything finished is kept, "
        "run the same command again when it is here"
    )


def test_a_phone_that_has_not_booted_to_its_end_is_waited_for(phone: Phone) -> None:
    (phone.home / "props/sys.boot_completed").write_text("")
    with pytest.raises(DeviceMissing, match="PAPER1 does not answer"):
        resolve("adb")


def test_a_runner_that_dies_on_a_phone_that_is_here_is_the_candidates_fault(phone: Phone) -> None:
    with supervise(resolve("adb")) as supervisor:
        with pytest.raises(RunnerLost, match="ended with exit status 139 during run") as lost:
            supervisor.run("p", [launch("kill SEGV", [1], None, [])])
        assert lost.value.verdict is Verdict.CRASHED
        with pytest.raises(RunnerLost, match="lost its link") as lost:  # `adb kill-server` looks like that
            supervisor.run("p", [launch("exit 0", [1], None, [])])
        assert lost.value.verdict is Verdict.WORKER_LOST


def test_a_hang_on_a_phone_that_is_here_is_a_timeout(phone: Phone) -> None:
    with supervise(resolve("adb")) as supervisor:
        with pytest.raises(RunnerLost) as lost:
            supervisor.run("p", [launch("hang", [1], None, [])], timeout_s=0.3)
        assert lost.value.verdict is Verdict.TIMEOUT


# ---------------------------------------------------------------- the real client


@pytest.mark.slow
def test_debians_client_without_a_phone(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real adb of Debian; its server is started on a port of its own, and stopped."""
    if shutil.which("adb") is None:
        pytest.skip("adb is not installed; make adb installs it")
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "15037")
    try:
        if listed(subprocess.run(["adb", "devices", "-l"], capture_output=True, text=True, check=True).stdout):
            pytest.skip("a phone is attached")
        words = [sys.executable, "-m", "harness", "doctor", "--device"]
        for device, sentence in (("adb", "no phone is attached"), ("adb:X", "no phone is attached")):
            done = subprocess.run([*words, device], capture_output=True, text=True, check=False)
            assert done.returncode == 3
            assert done.stderr.startswith(f"kiln: {sentence}")
            assert done.stderr.count("\n") == 1
    finally:
        subprocess.run(["adb", "kill-server"], check=False, capture_output=True)
