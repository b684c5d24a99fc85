"""Recordings: probing a tree, sampling it, phases, power and energy, the file and the verb."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sensor_tree import BATTERY, COMMON, EACCES, KGSL, PHONE, Tree

from harness import telemetry
from harness.cli import main
from harness.runner.watching import Sampler, read_text, reason
from harness.telemetry import Phase, Recording, Series, Signal, Spread
from harness.telemetry.command import record, text
from harness.telemetry.decoding import Decoder
from harness.telemetry.energy import battery_hours, energy, with_power
from harness.telemetry.probing import Probed, detect, local_read, probe
from harness.telemetry.summary import mean_in, summarise


def probed(tree: Tree, platform: str | None = None) -> dict[str, Probed]:
    return {one.source.signal: one for one in probe(local_read(tree.read), platform=platform)[1]}


def fed(tree: Tree, rounds: int, between: Callable[[int], None] = lambda i: None) -> Decoder:
    """A decoder that was fed the tree `rounds` times, a second apart."""
    decoder = Decoder(probe(local_read(tree.read))[1], 100)
    for i in range(rounds):
        between(i)
        for index, (path, _) in enumerate(decoder.files):
            try:
                decoder.feed(i * 10**9, index, tree.read(path), None)
            except OSError as error:
                decoder.feed(i * 10**9, index, None, reason(error))
    return decoder


def signals_of(decoder: Decoder) -> tuple[dict[str, Signal], dict[str, Series]]:
    signals, series = decoder.signals()
    return {signal.name: signal for signal in signals}, series


# ---------------------------------------------------------------- probing


def test_a_phone_is_probed_once_and_each_signal_gets_its_first_readable_source(tmp_path: Path) -> None:
    tree = Tree(tmp_path, PHONE)
    assert detect(local_read(tree.read)) == "android-adreno"
    found = probed(tree)
    assert found["gpu_busy_percent"].path == f"{KGSL}/gpubusy"
    assert found["gpu_clock_mhz"].path == f"{KGSL}/gpuclk"
    zones = ["/sys/class/thermal/thermal_zone1/temp", "/sys/class/thermal/thermal_zone7/temp"]
    assert [member.path for member in found["cpu_temperature_c"].members] == zones
    assert found["gpu_busy_clock_mhz"].members[0].constant == (903e6, 680e6, 231e6)
    assert [name for name, one in found.items() if one.why is not None] == ["cable_online"]


def test_the_next_source_serves_where_one_is_refused(tmp_path: Path) -> None:
    tree = Tree(tmp_path, PHONE | {"/sys/kernel/gpu/gpu_clock": "680\n"})
    tree.refused = {f"{KGSL}/gpuclk": EACCES, f"{KGSL}/gpubusy": EACCES}
    found = probed(tree)
    assert found["gpu_clock_mhz"].path == "/sys/kernel/gpu/gpu_clock"
    assert found["gpu_busy_percent"].path == f"{KGSL}/gpu_clock_stats"


def test_what_cannot_be_read_says_why_for_each_of_its_sources(tmp_path: Path) -> None:
    tree = Tree(tmp_path, PHONE)
    tree.refused = {"/sys/class/kgsl/kgsl-3d0/": EACCES}  # as SELinux refuses an app's whole domain
    assert detect(local_read(tree.read)) == "android-adreno"  # refused is not missing
    why = probed(tree)["gpu_clock_mhz"].why or ""
    assert why.startswith("EACCES: Permission denied; /sys/class/kgsl/kgsl-3d0/devfreq/cur_freq: EACCES")
    assert "/sys/kernel/gpu/gpu_clock: ENOENT" in why
    assert "dumpsys thermalservice: needs a shell on the device (adb)" in (probed(tree)["gpu_temperature_c"].why or "")


def test_garbage_at_the_start_is_unavailable_and_says_what_it_was(tmp_path: Path) -> None:
    tree = Tree(tmp_path, PHONE | {f"{BATTERY}/voltage_now": "N/A\n", f"{KGSL}/temp": "-273000\n"})
    found = probed(tree)
    assert "not understood: could not convert string to float" in (found["battery_voltage_v"].why or "")
    assert "'-273000' is no temperature" in (found["gpu_temperature_c"].why or "")


def test_dumpsys_is_asked_once_for_all_that_it_tells(tmp_path: Path) -> None:
    asked = []

    def shell(command: str) -> str:
        asked.append(command)
        if command == "dumpsys thermalservice":
            raise OSError(5, "no answer")
        return "USB powered: false\nstatus: 3\nvoltage: 3900\n"

    tree = Tree(tmp_path, {k: v for k, v in PHONE.items() if not k.startswith((BATTERY, "/sys/class/thermal"))})
    found = {one.source.signal: one for one in probe(local_read(tree.read), shell)[1]}
    assert sorted(asked) == ["dumpsys battery", "dumpsys thermalservice"]
    assert found["battery_voltage_v"].path == "dumpsys battery"
    assert "EIO: no answer" in (found["cpu_temperature_c"].why or "")
    decoder = Decoder(list(found.values()), 100)
    assert decoder.commands == [("dumpsys battery", 5000)]


@pytest.mark.parametrize(
    ("files", "platform"),
    [
        (COMMON, "linux"),
        ({"/proc/gpufreqv2/gpufreq_status": "", "/sys/class/misc/mali0/device/gpuinfo": ""}, "mediatek"),
        ({"/sys/devices/platform/1f000000.mali/cur_freq": "", "/sys/class/misc/mali0/device/gpuinfo": ""}, "pixel"),
        ({"/sys/class/misc/mali0/device/gpuinfo": ""}, "android-mali"),
    ],
)
def test_platforms_are_told_apart_by_what_only_they_have(tmp_path: Path, files: dict[str, str], platform: str) -> None:
    assert detect(local_read(Tree(tmp_path, files).read)) == platform


def test_a_star_stands_for_the_names_in_a_folder(tmp_path: Path) -> None:
    devfreq = "/sys/class/misc/mali0/device/devfreq"
    files = {"/sys/class/misc/mali0/device/gpuinfo": "Mali-G720\n", f"{devfreq}/13000000.mali/cur_freq": "1300000000\n"}
    tree = Tree(tmp_path, COMMON | files)
    assert probed(tree)["gpu_clock_mhz"].path == f"{devfreq}/13000000.mali/cur_freq"
    tree.refused = {f"{devfreq}/": EACCES}
    assert "EACCES" in (probed(tree)["gpu_clock_mhz"].why or "")


# ---------------------------------------------------------------- sampling and decoding


def test_values_are_scaled_combined_and_differenced(tmp_path: Path) -> None:
    tree = Tree(tmp_path, PHONE)

    def between(i: int) -> None:
        busy, clock = 100 + 50 * i, 500_000 * i
        tree.write("/proc/stat", f"cpu  {busy} 0 100 {800 + 50 * i} 0 0 0 0 0 0\ncpu0 1 0 0 0\ncpu1 1 0 0 0\n")
        tree.write(f"{KGSL}/gpu_clock_stats", f"{clock} 0 {clock} \n")

    signals, series = signals_of(fed(tree, 3, between))
    assert series["cpu_clock_mhz"].values == (2500.0,) * 3
    assert series["cpu_temperature_c"].values == (52.0,) * 3
    assert series["cpu_percent"] == Series((10**9, 2 * 10**9), (100.0, 100.0))  # half the time of two cores
    assert series["gpu_busy_clock_mhz"].values == pytest.approx((567.0, 567.0))
    assert series["battery_capacity_mah"].values == (5000.0,) * 3
    assert (signals["cpu_percent"].over, signals["gpu_clock_mhz"].over) == ("interval", "instant")
    assert signals["gpu_busy_percent"].period_ms == 1000
    assert [name for name, signal in signals.items() if not signal.available] == ["cable_online"]


def test_a_file_that_vanishes_ends_its_signal_and_keeps_what_was_read(tmp_path: Path) -> None:
    tree = Tree(tmp_path, PHONE)
    signals, series = signals_of(fed(tree, 5, lambda i: tree.remove(f"{KGSL}/temp") if i == 2 else None))
    assert series["gpu_temperature_c"].values == (47.1, 47.1)
    assert not signals["gpu_temperature_c"].available
    why = "ENOENT: No such file or directory, from 2.0 s on; what was read before is kept"
    assert signals["gpu_temperature_c"].why == why


def test_one_of_several_files_that_vanishes_is_noted(tmp_path: Path) -> None:
    tree = Tree(tmp_path, PHONE)
    core = "/sys/devices/system/cpu/cpu4/cpufreq/scaling_cur_freq"
    signals, series = signals_of(fed(tree, 3, lambda i: tree.remove(core) if i == 1 else None))
    assert series["cpu_clock_mhz"].values == (2500.0, 2000.0, 2000.0)
    assert signals["cpu_clock_mhz"].available
    assert "1 of its 2 files cannot be read any more: ENOENT" in (signals["cpu_clock_mhz"].note or "")


def test_a_reading_that_fails_in_between_leaves_a_gap(tmp_path: Path) -> None:
    tree = Tree(tmp_path, PHONE)

    def between(i: int) -> None:
        tree.refused = {f"{KGSL}/temp": 11} if i == 1 else {}  # EAGAIN: the sensor sleeps
        tree.write(f"{KGSL}/gpuclk", "busy!\n" if i == 2 else "680000000\n")

    signals, series = signals_of(fed(tree, 4, between))
    assert series["gpu_temperature_c"].t_ns == (0, 2 * 10**9, 3 * 10**9)
    assert series["gpu_clock_mhz"].t_ns == (0, 10**9, 3 * 10**9)
    assert signals["gpu_temperature_c"].note == "1 readings failed in between"
    assert signals["gpu_clock_mhz"].available


def test_a_source_that_tells_nothing_is_not_available_and_not_zero(tmp_path: Path) -> None:
    tree = Tree(tmp_path, PHONE | {f"{KGSL}/gpubusy": "      0       0\n"})
    signals, series = signals_of(fed(tree, 3))
    assert "gpu_busy_percent" not in series
    assert (signals["gpu_busy_percent"].available, signals["gpu_busy_percent"].why) == (
        False,
        "read, but it told nothing in this time",
    )


def test_the_sampler_reads_each_file_at_its_turns_and_tells_its_own_cost() -> None:
    seen: list[tuple[int, str | None, str | None]] = []
    enough = threading.Event()

    def read(path: str) -> str:
        if path == "refused":
            raise PermissionError(EACCES, "Permission denied")
        return "x"

    def sink(t_ns: int, index: int, text: str | None, why: str | None) -> None:
        seen.append((index, text, why))
        if len(seen) >= 12:
            enough.set()

    sampler = Sampler([("a", 1), ("refused", 2), ("slow", 10**6)], sink, read)
    assert enough.wait(60)
    sampler.stop()
    count = len(seen)
    assert seen[:3] == [(0, "x", None), (1, None, "EACCES: Permission denied"), (2, "x", None)]
    assert sum(index == 2 for index, _, _ in seen) == 1
    assert min(sum(index == i for index, _, _ in seen) for i in (0, 1)) > 1
    assert sampler.cpu_ns > 0
    assert sampler.cpu_percent is not None
    assert sampler.cpu_percent > 0
    assert len(seen) == count


def test_small_files_are_read_up_to_a_limit_and_folders_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"\xff" + b"x" * 100_000)
    assert read_text(str(tmp_path / "long")) == "\ufffd" + "x" * 65535
    (tmp_path / "a").write_text("")
    assert (read_text(str(tmp_path / "a")), read_text(f"{tmp_path}/")) == ("", "a\nlong\n")
    with pytest.raises(OSError, match="directory"):
        read_text(str(tmp_path))


# ---------------------------------------------------------------- phases and their summary


def test_a_phase_has_the_mean_of_each_repeat_and_the_spread_over_them() -> None:
    signal = Signal("gpu_clock_mhz", "MHz", "x", 100, True)
    series = {"gpu_clock_mhz": Series((5, 15, 25, 35), (100.0, 200.0, 300.0, 500.0))}
    phases = [Phase("token-eval", 0, 0, 20), Phase("token-eval", 1, 20, 40), Phase("load", 0, 50, 60)]
    summary = summarise([signal], series, phases)
    assert summary == {"token-eval": {"gpu_clock_mhz": Spread(275.0, pytest.approx(176.7767), 2)}, "load": {}}


def test_an_interval_counts_by_the_part_of_it_that_is_in_the_phase() -> None:
    signal = Signal("cpu_percent", "%", "x", 1e-4, True, over="interval")  # a period of 100 ns
    series = Series((100, 200, 300), (10.0, 50.0, 90.0))
    assert mean_in(signal, series, Phase("load", 0, 175, 225)) == pytest.approx((25 * 50 + 25 * 90) / 50)
    assert mean_in(signal, series, Phase("load", 0, 310, 400)) is None
    gap = Series((100, 1000), (10.0, 50.0))  # what was not told before 800 stays untold
    assert mean_in(signal, gap, Phase("load", 0, 200, 700)) is None


def test_a_recorder_marks_phases_and_its_file_says_the_same(tmp_path: Path) -> None:
    tree = Tree(tmp_path, PHONE)
    with telemetry.start(read=tree.read) as recorder:
        with recorder.phase("load"):
            pass
        with pytest.raises(ZeroDivisionError), recorder.phase("token-eval", 3):
            raise ZeroDivisionError
        with pytest.raises(ValueError, match="ends before"):
            recorder.mark("load", 0, 2, 1)
    recording = recorder.stop()
    assert recording is recorder.stop()
    assert [(p.name, p.repeat) for p in recording.phases] == [("load", 0), ("token-eval", 3)]
    assert recording.start_ns <= recording.phases[0].start_ns <= recording.phases[0].end_ns <= recording.end_ns
    assert recording.platform == "android-adreno"
    assert recording.sampler_percent is not None
    file = tmp_path / "r.json"
    file.write_text(json.dumps(recording.to_json()))
    assert telemetry.load(file) == recording


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.pop("signals"), "no 'signals'"),
        (lambda d: d.update(version=2), "version 2; this program reads version 1"),
        (lambda d: d.update(format="x"), '"format" is not "kiln-telemetry"'),
        (lambda d: d.update(phases=[{"name": "load"}]), "of the wrong kind"),
        (lambda d: d.update(series={"a": {"t_ns": [1], "values": []}}), "1 times and 0 values"),
        (lambda d: d.update(series=7), "of the wrong kind"),
    ],
)
def test_a_file_that_is_no_recording_is_one_sentence(tmp_path: Path, change: Callable[..., object], said: str) -> None:
    data = telemetry.start(read=Tree(tmp_path, COMMON).read).stop().to_json()
    change(data)
    (tmp_path / "r.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=said) as refused:
        telemetry.load(tmp_path / "r.json")
    assert str(tmp_path / "r.json") in str(refused.value)


# ---------------------------------------------------------------- power and energy


def battery_readings(current: float, status: str = "Discharging", voltage: str = "3850000") -> dict[str, str]:
    own = {f"{BATTERY}/current_now": f"{current:.0f}\n", f"{BATTERY}/status": f"{status}\n"}
    return PHONE | own | {f"{BATTERY}/voltage_now": f"{voltage}\n"}


@pytest.mark.parametrize(("raw", "unit"), [(-2_900_000, "µA"), (2_900_000, "µA"), (-2900, "mA"), (2900, "mA")])
def test_the_battery_s_power_whatever_unit_and_sign_its_driver_uses(tmp_path: Path, raw: float, unit: str) -> None:
    """2.9 A at 3.85 V: the study's 11 W."""
    signals, series = with_power(*fed(Tree(tmp_path, battery_readings(raw)), 3).signals())
    assert series["battery_power_w"].values == pytest.approx((11.165,) * 3)
    assert series["battery_current_ma"].values == pytest.approx((2900.0 if raw > 0 else -2900.0,) * 3)
    note = next(s.note for s in signals if s.name == "battery_current_ma")
    assert f"read as {unit}" in (note or "")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (battery_readings(1_500_000, "Charging"), "on a cable"),
        (battery_readings(-2900) | {"/sys/class/power_supply/usb/online": "1\n"}, "on a cable"),
        (battery_readings(0), "0 all the time"),
        (battery_readings(-2900, "Unknown"), "the status is 'Unknown'"),
        (battery_readings(-2900, voltage="0"), "no voltage of a battery"),
    ],
)
def test_no_power_is_made_up(tmp_path: Path, files: dict[str, str], said: str) -> None:
    signals, series = with_power(*fed(Tree(tmp_path, files), 3).signals())
    power = next(signal for signal in signals if signal.name == "battery_power_w")
    assert (power.available, "battery_power_w" in series) == (False, False)
    assert said in (power.why or "")
    used, why = energy(signals, series, [Phase("token-eval", 0, 0, 10**9)])
    assert used is None
    assert said in (why or "")


def test_a_current_that_changes_its_sign_is_not_believed(tmp_path: Path) -> None:
    tree = Tree(tmp_path, PHONE)
    decoder = fed(tree, 2, lambda i: tree.write(f"{BATTERY}/current_now", f"{(-1) ** i * 500_000}\n"))
    signals, _ = with_power(*decoder.signals())
    assert "changes its sign" in (next(s.why for s in signals if s.name == "battery_power_w") or "")


def test_energy_of_a_query_and_battery_life_as_the_study_computes_them(tmp_path: Path) -> None:
    signals, series = with_power(*fed(Tree(tmp_path, PHONE), 11).signals())
    second = 10**9
    phases = [Phase("load", 0, 0, second)]
    phases += [Phase("prompt-eval", i, (2 + 4 * i) * second, (4 + 4 * i) * second) for i in range(2)]
    phases += [Phase("token-eval", i, (4 + 4 * i) * second, (5 + 4 * i) * second) for i in range(2)]
    used, why = energy(signals, series, phases)
    assert why is None
    assert used is not None
    assert used["per_query_j"] == {"mean": pytest.approx(3 * 11.165), "sd": pytest.approx(0.0), "repeats": 2}
    assert used["per_phase_j"]["load"]["mean"] == pytest.approx(11.165)
    battery = used["battery"]
    assert battery["queries_a_charge"] == pytest.approx(5 * 3.85 * 3600 / (3 * 11.165))
    assert battery["hours_at_one_query_a_minute"] == pytest.approx(5 * 3.85 / (3 * 11.165 / 60))
    assert "from its battery" in used["of"]
    milli = {**series, "battery_capacity_mah": Series((0,), (5.0,))}  # a driver that tells mAh where µAh are meant
    used, _ = energy(signals, milli, phases)
    assert used is not None
    assert used["battery"] is None
    assert "a battery of 5 mAh is none" in used["battery_why"]


def test_battery_life_of_the_study_s_figures() -> None:
    """5,000 mAh at 3.85 V. The study says almost two days for Imp, and roughly eight hours for LLaVA, which at 11 W and
    82 s a query cannot be."""
    assert battery_hours(5000, 3.85, 1.3 * 25, 25) == pytest.approx(35.5, abs=0.1)
    assert battery_hours(5000, 3.85, 11 * 82.2, 82.2) == pytest.approx(1.75, abs=0.01)


def test_a_query_too_short_to_be_read_has_no_energy(tmp_path: Path) -> None:
    signals, series = with_power(*fed(Tree(tmp_path, PHONE), 3).signals())
    assert energy(signals, series, [Phase("token-eval", 0, 1, 2)])[1] == (
        "no query is long enough: battery_power_w is read every 100 ms"
    )
    assert energy(signals, series, [Phase("load", 0, 0, 10**9)])[1] == (
        "no phase of a query was marked, so that no query has an energy"
    )


def test_where_there_is_no_battery_the_processor_s_counter_is_power_too(tmp_path: Path) -> None:
    zone = "/sys/class/powercap/intel-rapl:0"
    tree = Tree(tmp_path, COMMON | {f"{zone}/energy_uj": "0\n", f"{zone}/max_energy_range_uj": "262143328850\n"})
    decoder = fed(tree, 5, lambda i: tree.write(f"{zone}/energy_uj", f"{i * 20_000_000}\n"))
    signals, series = with_power(*decoder.signals())
    second = 10**9
    used, _ = energy(signals, series, [Phase("token-eval", 0, second, 3 * second)])
    assert used is not None
    assert used["per_query_j"]["mean"] == pytest.approx(40.0)
    assert used["per_query_j"]["sd"] is None
    assert (used["battery"], used["battery_why"]) == (None, "the power is the processor's alone")


# ---------------------------------------------------------------- the verb


def test_phases_are_taken_from_the_lines_of_another_program(tmp_path: Path) -> None:
    recording, interrupted = record(None, 60, 100, iter(["load\n", "token-eval\n", "\n", "token-eval\n"]))
    assert not interrupted
    assert [(p.name, p.repeat) for p in recording.phases] == [("load", 0), ("token-eval", 0), ("token-eval", 1)]
    ends = [p.end_ns for p in recording.phases]
    assert recording.phases[1].start_ns == ends[0]
    assert ends == sorted(ends)


def test_ctrl_c_ends_a_recording_and_keeps_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(recorder: telemetry.Recorder) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(telemetry.Recorder, "poll", interrupted)
    assert main(["telemetry", "--seconds", "60", "--out", str(tmp_path / "r.json")]) == 130
    said = capsys.readouterr()
    assert "cpu_percent" in said.out
    assert said.err == "kiln: interrupted\n"
    assert telemetry.load(tmp_path / "r.json").signals


def test_the_table_names_what_was_read_and_why_the_rest_was_not(tmp_path: Path) -> None:
    tree = Tree(tmp_path, PHONE)
    tree.refused = {f"{KGSL}/temp": EACCES}
    recorder = telemetry.start(read=tree.read)
    recorder.mark("token-eval", 0, 0, time.monotonic_ns())
    told = text(recorder.stop())
    assert "gpu_temperature_c (/sys/class/kgsl/kgsl-3d0/temp): EACCES: Permission denied; " in told
    assert f"{KGSL}/gpubusy" in told
    assert "of one core" in told


def test_the_verb_prints_a_recording_here_and_keeps_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "r.json"
    assert main(["telemetry", "--seconds", "0.3", "--json", "--out", str(out)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["format"], printed["version"]) == ("kiln-telemetry", 1)
    assert telemetry.load(out).to_json() == printed
    for signal in printed["signals"]:
        assert (signal["why"] is None) == signal["available"]
        assert not signal["available"] or printed["series"][signal["name"]]["values"]
    assert (printed["energy"] is None) != (printed["energy_why"] is None)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--seconds", "0"], 2, "--seconds is a time above 0"),
        (["--seconds", "nan"], 2, "--seconds is a time above 0"),
        (["--period-ms", "10"], 2, "--period-ms is 100 at least"),
        (["--device", "nonsense"], 2, 'unknown device "nonsense"'),
        (["--device", "exec:/nowhere/runner"], 3, "does not answer as a runner"),
        (["--seconds", "0.1", "--out", "/proc/nowhere/r.json"], 1, "/proc/nowhere/r.json cannot be written"),
    ],
)
def test_mistakes_are_one_sentence(words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["telemetry", *words]) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_recording_s_parts_are_found_by_name(tmp_path: Path) -> None:
    recording: Recording = telemetry.start(read=Tree(tmp_path, PHONE).read).stop()
    assert recording.signal("gpu_resets") is not None
    assert recording.signal("nonsense") is None
    assert replace(recording, notes=("x",)).to_json()["notes"] == ["x"]
