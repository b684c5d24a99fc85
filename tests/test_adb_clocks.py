"""Clocks locked on a rooted phone (a fake one), verified, and put back however the run ends."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from phones import Cable, Phone

from harness.adb.client import Adb
from harness.adb.clocks import NOTE, Clocks, Knob, held, plan
from harness.devices import resolve
from harness.errors import KilnError, UsageError
from harness.fitness import fit
from harness.journal import boot_id, same_device

KGSL = "/sys/class/kgsl/kgsl-3d0"
MALI = "/sys/class/misc/mali0/device"
MTK = "/proc/gpufreqv2"
MEMORY = "/sys/class/devfreq/soc:qcom,gpubw"
ADRENO = {
    f"{KGSL}/min_pwrlevel": "6\n",
    f"{KGSL}/max_pwrlevel": "1\n",
    f"{KGSL}/gpu_available_frequencies": "903000000 834000000 770000000 720000000 680000000 629000000 578000000 \n",
    f"{MEMORY}/min_freq": "762\n",
    f"{MEMORY}/max_freq": "15258\n",
    f"{MEMORY}/available_frequencies": "762 1144 7759 15258\n",
}
ARM = {
    f"{MALI}/power_policy": "[coarse_demand] always_on\n",
    f"{MALI}/devfreq/13000000.mali/min_freq": "150000000\n",
    f"{MALI}/devfreq/13000000.mali/max_freq": "890000000\n",
    f"{MALI}/devfreq/13000000.mali/available_frequencies": "150000000 302000000 471000000 890000000\n",
}
MEDIATEK = {
    f"{MTK}/fix_target_opp_index": "[GPUFREQ-DEBUG] fix target OPP index is disabled\n",
    f"{MTK}/gpu_working_opp_table": "[00] freq: 1300000, volt: 85000, vsram: 85000\n[01] freq: 1150000, volt: 80000\n",
    f"{MALI}/power_policy": "[coarse_demand] always_on\n",
}


@pytest.fixture
def phone(cable: Cable) -> Phone:
    made = cable.phone()
    for path, text in ADRENO.items():
        made.file(path, text)
    (made.home / "rooted").touch()
    return made


@pytest.fixture
def clocks(phone: Phone) -> Clocks:
    return Clocks(Adb("adb", phone.serial))


def now(phone: Phone, files: dict[str, str]) -> dict[str, str]:
    return {path: phone.file(path) for path in files}


def test_where_each_gpu_is_locked() -> None:
    adreno = plan(ADRENO)
    assert adreno.gpu_mhz == 903
    assert adreno.knobs == (
        Knob(f"{KGSL}/max_pwrlevel", "0"),
        Knob(f"{KGSL}/min_pwrlevel", "0"),
        Knob(f"{MEMORY}/max_freq", "15258"),
        Knob(f"{MEMORY}/min_freq", "15258"),
    )
    assert plan(ADRENO, 700).knobs[0] == Knob(f"{KGSL}/max_pwrlevel", "4"), "680 MHz"
    mali = plan(ARM, 500)
    assert mali.gpu_mhz == 471
    assert mali.knobs == (
        Knob(f"{MALI}/power_policy", "always_on"),
        Knob(f"{MALI}/devfreq/13000000.mali/max_freq", "471000000"),
        Knob(f"{MALI}/devfreq/13000000.mali/min_freq", "471000000"),
    )
    mediatek = plan(MEDIATEK, 1150)
    assert (mediatek.gpu_mhz, mediatek.knobs) == (1150, (Knob(f"{MTK}/fix_target_opp_index", "1"),))


def test_what_cannot_be_locked() -> None:
    with pytest.raises(KilnError, match="none of the files that lock a GPU's clock"):
        plan({})
    with pytest.raises(UsageError, match="no clock of at most 100 MHz; there are 903, 834"):
        plan(ADRENO, 100)
    with pytest.raises(KilnError, match="does not list the clocks"):
        plan({f"{KGSL}/min_pwrlevel": "6", f"{KGSL}/max_pwrlevel": "0"})


def test_the_value_in_force_is_read() -> None:
    assert held(f"{MALI}/power_policy", "coarse_demand [always_on]\n") == "always_on"
    assert held(f"{MTK}/fix_target_opp_index", "[GPUFREQ-DEBUG] fix OPP index: 7\n") == "7"
    assert held(f"{MTK}/fix_target_opp_index", MEDIATEK[f"{MTK}/fix_target_opp_index"]) == "-1"
    assert held(f"{KGSL}/min_pwrlevel", "6\n") == "6"


@pytest.mark.parametrize("files", [ADRENO, ARM, MEDIATEK], ids=["adreno", "mali", "mediatek"])
def test_locked_and_put_back(cable: Cable, files: dict[str, str]) -> None:
    made = cable.phone()
    for path, text in files.items():
        made.file(path, text)
    (made.home / "rooted").touch()
    clocks = Clocks(Adb("adb", made.serial))
    with clocks.locked() as lock:
        assert all(held(knob.path, made.file(knob.path)) == knob.value for knob in lock.knobs)
        assert json.loads(made.file(NOTE))["pid"] == os.getpid()
    assert now(made, files) == files
    assert not (made.home / "root" / NOTE.lstrip("/")).exists()


def test_put_back_after_ctrl_c(phone: Phone, clocks: Clocks) -> None:
    with pytest.raises(KeyboardInterrupt), clocks.locked():
        signal.raise_signal(signal.SIGINT)
    assert now(phone, ADRENO) == ADRENO


def test_put_back_after_sigterm(phone: Phone, clocks: Clocks) -> None:
    with pytest.raises(KeyboardInterrupt), clocks.locked():
        signal.raise_signal(signal.SIGTERM)
    assert now(phone, ADRENO) == ADRENO


KILLED = """
import os, signal
from harness.adb.client import Adb
from harness.adb.clocks import Clocks
with Clocks(Adb("adb", "PAPER1")).locked(700):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_later_run_puts_back_what_a_killed_one_left(
    phone: Phone, clocks: Clocks, capsys: pytest.CaptureFixture[str]
) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == -signal.SIGKILL
    assert phone.file(f"{KGSL}/min_pwrlevel") == "4\n"
    clocks.restore_left()
    assert now(phone, ADRENO) == ADRENO
    assert "putting back the clocks of phone PAPER1, which a run left locked that was killed" in capsys.readouterr().err
    clocks.restore_left()
    assert capsys.readouterr().err == ""


def test_a_reboot_has_put_them_back_already(phone: Phone, clocks: Clocks) -> None:
    note = {"boot": "an earlier one", "host_boot": "gone", "pid": 1, "old": [[f"{KGSL}/min_pwrlevel", "3"]]}
    phone.file(NOTE, json.dumps(note))
    clocks.restore_left()
    assert phone.file(f"{KGSL}/min_pwrlevel") == "6\n"
    assert not (phone.home / "root" / NOTE.lstrip("/")).exists()


def test_a_run_that_lives_keeps_its_clocks(phone: Phone, clocks: Clocks) -> None:
    boot = phone.file("/proc/sys/kernel/random/boot_id").strip()
    note = {"boot": boot, "host_boot": boot_id(), "pid": os.getppid(), "old": [[f"{KGSL}/min_pwrlevel", "3"]]}
    phone.file(NOTE, json.dumps(note))
    clocks.restore_left()
    assert phone.file(f"{KGSL}/min_pwrlevel") == "6\n"
    with pytest.raises(KilnError, match=r"another run \(process \d+\) has locked this phone's clocks"), clocks.locked():
        pass


def test_a_phone_that_does_not_keep_them(phone: Phone, clocks: Clocks) -> None:
    (phone.home / "stubborn").write_text(json.dumps({f"{KGSL}/min_pwrlevel": "6\n"}))
    with (
        pytest.raises(
            KilnError, match=r"does not keep its clocks: .*min_pwrlevel is 6 after 0 was written.*fixed-perf"
        ),
        clocks.locked(),
    ):
        pytest.fail("believed")
    assert now(phone, ADRENO) == ADRENO


def test_without_root_there_is_another_way(phone: Phone, clocks: Clocks) -> None:
    (phone.home / "rooted").unlink()
    assert not clocks.rooted
    with pytest.raises(KilnError, match=r"is not rooted.*cmd power set-fixed-performance-mode-enabled true"):
        clocks.locked().__enter__()
    assert now(phone, ADRENO) == ADRENO


def test_locked_times_are_a_device_of_their_own(phone: Phone) -> None:
    choice = resolve("adb")
    with fit(choice, None, 700.0) as locked:
        assert locked.description["hints"] == {"clocks": "locked at 680 MHz"}
        assert not same_device(locked.description, choice.description)
    with fit(choice, 35.0, None) as cooled:
        assert same_device(cooled.description, choice.description)
        assert cooled.command == choice.command


def test_a_boot_undoes_the_lock_and_a_new_runner_renews_it(phone: Phone) -> None:
    (phone.home / "back").write_text("boot")
    with fit(resolve("adb"), None, math.inf) as choice:
        assert choice.link is not None
        choice.link.ready()
        phone.file(f"{KGSL}/min_pwrlevel", "6\n")
        phone.file("/proc/sys/kernel/random/boot_id", "another\n")
        choice.link.ready()
        assert phone.file(f"{KGSL}/min_pwrlevel") == "0\n"
        assert json.loads(phone.file(NOTE))["boot"] == "another", "the note is of this boot"


@pytest.mark.parametrize(
    ("cool", "lock", "sentence"),
    [
        (math.nan, None, "--cool-below must be"),
        (None, 0.0, "--lock-clocks must be"),
        (None, -3.0, "--lock-clocks must"),
    ],
)
def test_options_that_make_no_sense(phone: Phone, cool: float | None, lock: float | None, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence), fit(resolve("adb"), cool, lock):
        pass
