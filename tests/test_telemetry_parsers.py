"""Parsers on text in the real formats. Each text was written after the source that is named above it."""

import pytest

from harness.telemetry.parsers import GAUGES, METERS
from harness.telemetry.sources import load_platform, platform_names

# proc(5), "/proc/stat": user nice system idle iowait irq softirq steal guest guest_nice; then a line for each core.
STAT = """cpu  {user} 0 2000 {idle} 100 10 20 {steal} 50 0
cpu0 5000 0 1000 30000 50 5 10 0 50 0
cpu1 5000 0 1000 30000 50 5 10 0 0 0
intr 189298 0 0 9
ctxt 1
"""
# proc(5), "/proc/meminfo".
MEMINFO = """MemTotal:       11534336 kB
MemFree:          512000 kB
MemAvailable:    5767168 kB
Buffers:           17968 kB
HugePages_Total:       0
"""
# gpufreq_debug.c of MediaTek's kernels for MT6893 to MT6985, "%-15s Index: %d, Freq: %d, …": one rail.
GPUFREQV2 = """[GPUFREQ-DEBUG] Current Status of GPUFREQ
[GPU-OPP]       Index: 3, Freq: 836000, Volt: 68750, Vsram: 75000
[GPU-REALOPP]   FmeterFreq: 835992, Con1Freq: 836000, ReguVolt: 68750, ReguVsram: 75000
[GPU-Segment]   SegmentID: 0, WorkingOPPNum: 41, SignedOPPNum: 41
"""
# The same file of later kernels, "%-16s Index: %2d, Freq: %7d, …": the shader cores have a rail of their own.
GPUFREQV2_DUAL = """[GPUFREQ-DEBUG] Current Status of GPUFREQ
[GPU   OPP]      Index: 10, Freq:  949000, Volt:  70000, Vsram:  75000
[STACK OPP]      Index:  2, Freq: 1300000, Volt:  80000, Vsram:  80000
[GPU   REALOPP]  FmeterFreq:  948991, Con1Freq:  949000, ReguVolt:  70000, ReguVsram:  75000
"""
# AOSP's BatteryService.dumpInternal; "current now" is not AOSP's own, some makers add it.
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: {usb}
  Wireless powered: false
  Dock powered: false
  Max charging current: 0
  Max charging voltage: 0
  Charge counter: 3123000
  status: {status}
  health: 2
  present: true
  level: 78
  scale: 100
  voltage: 4123
  temperature: 312
  technology: Li-ion
"""
# AOSP's ThermalManagerService (dump), with the types of the thermal HAL 2.0: 0 CPU, 1 GPU, 2 battery, 3 skin.
THERMAL = """IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 1
\tkilled: false
\tbroadcasts count: -1
Thermal Status: 0
Cached temperatures:
\tTemperature{mValue=88.8, mType=0, mName=CPU0, mStatus=0}
HAL Ready: true
HAL connection:
\tThermalHAL 2.0 connected: yes
Current temperatures from HAL:
\tTemperature{mValue=41.2, mType=0, mName=CPU0, mStatus=0}
\tTemperature{mValue=43.7, mType=0, mName=CPU7, mStatus=0}
\tTemperature{mValue=39.0, mType=1, mName=GPU0, mStatus=0}
\tTemperature{mValue=-99.9, mType=1, mName=GPU1, mStatus=0}
\tTemperature{mValue=31.1, mType=2, mName=battery, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-0}
"""


@pytest.mark.parametrize(
    ("parser", "text", "value"),
    [
        # kgsl_pwrctrl.c, gpubusy_show: "%7d %7d\n"; "0 0" after it was read with the GPU off.
        ("busy_total", " 512345 1024690\n", 50.0),
        ("busy_total", "      0       0\n", None),
        ("busy_total", "      0 1000213\n", 0.0),
        # kgsl_pwrctrl.c, gpu_busy_percentage_show: "%d %%\n"; Samsung's gpu_busy lacks the space.
        ("percent", "37 %\n", 37.0),
        ("percent", "37%\n", 37.0),
        ("percent", "37\n", 37.0),
        # ged_hal.c, gpu_utilization: busy, blocked, idle.
        ("percent", "45 2 53\n", 45.0),
        # Rockchip's devfreq, load_show.
        ("percent", "37@300000000Hz\n", 37.0),
        # gpuclk and devfreq's cur_freq in Hz, cpufreq in kHz, /sys/kernel/gpu/gpu_clock in MHz, GED's "index kHz".
        ("clock", "585000000\n", 585.0),
        ("clock", "3302400\n", 3302.4),
        ("clock", "848000\n", 848.0),
        ("clock", "680\n", 680.0),
        ("clock", "12 741000\n", 741.0),
        ("clock", "0\n", 0.0),
        # Documentation/ABI/testing/sysfs-class-thermal: m°C; some drivers tell °C.
        ("temperature", "45300\n", 45.3),
        ("temperature", "45\n", 45.0),
        ("temperature", "-5000\n", -5.0),
        ("meminfo", MEMINFO, (11534336 - 5767168) * 1024 / 1e6),
        ("cpuinfo", "processor\t: 0\ncpu MHz\t\t: 2400.5\ncpu MHz\t\t: 2600.5\n", 2500.5),
        ("gpufreqv2", GPUFREQV2, 836.0),
        ("gpufreqv2", GPUFREQV2_DUAL, 1300.0),
        # Documentation/ABI/testing/sysfs-class-power: µV; some tell mV. status' words are the kernel's.
        ("voltage", "4123000\n", 4.123),
        ("voltage", "4123\n", 4.123),
        ("discharging", "Discharging\n", 1.0),
        ("discharging", "Not charging\n", 0.0),
        ("discharging", "Full\n", 0.0),
        ("number", "-512000\n", -512000.0),
        ("dumpsys_voltage", BATTERY, 4.123),
        ("dumpsys_current", BATTERY + "  current now: -511\n", -511.0),
        ("dumpsys_discharging", BATTERY.format(usb="false", status=3), 1.0),
        ("dumpsys_discharging", BATTERY.format(usb="true", status=3), 0.0),  # a cable that does not suffice
        ("dumpsys_discharging", BATTERY.format(usb="false", status=2), 0.0),
        ("dumpsys_cpu_temperature", THERMAL, 43.7),
        ("dumpsys_gpu_temperature", THERMAL, 39.0),
    ],
)
def test_gauges_read_the_real_formats(parser: str, text: str, value: float | None) -> None:
    assert GAUGES[parser](text) == pytest.approx(value)


@pytest.mark.parametrize("parser", sorted(GAUGES.keys() | METERS.keys()))
@pytest.mark.parametrize("text", ["", "\n", "N/A\n", "Permission denied", "\x00\ufffd", "nan", "-inf 1e999", "{}"])
def test_no_parser_makes_a_number_of_garbage(parser: str, text: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        (GAUGES[parser] if parser in GAUGES else METERS[parser].read)(text)


@pytest.mark.parametrize(
    ("parser", "text"),
    [
        ("busy_total", "5 3"),
        ("busy_total", "1 2 3"),
        ("percent", "137"),
        ("percent", "-3"),
        ("clock", "5"),
        ("clock", "-585000000"),
        ("temperature", "-273000"),  # a sensor that is not there
        ("temperature", "999"),
        ("voltage", "0"),
        ("voltage", "52"),
        ("discharging", "Unknown"),
        ("dumpsys_current", BATTERY),
        (
            "dumpsys_discharging",
            "Current Battery Service state:\n  (UPDATES STOPPED -- use 'reset' to restart)\n" + BATTERY,
        ),
        ("dumpsys_gpu_temperature", THERMAL.replace("39.0", "-99.9")),
        ("gpufreqv2", "[GPU-REALOPP]   FmeterFreq: 835992"),
    ],
)
def test_what_cannot_be_is_refused(parser: str, text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (each says it in its own words)
        GAUGES[parser](text)


def between(parser: str, old: str, new: str, seconds: float = 1.0, constant: tuple[float, ...] = ()) -> float | None:
    meter = METERS[parser]
    return meter.between(meter.read(old), meter.read(new), seconds, constant)


def test_cpu_time_is_differenced_and_100_percent_is_one_core() -> None:
    old = STAT.format(user=10000, idle=60000, steal=0)
    assert between("stat", old, STAT.format(user=10150, idle=60050, steal=0)) == pytest.approx(150.0)
    assert between("stat", old, STAT.format(user=10100, idle=60050, steal=50)) == pytest.approx(100.0)  # stolen: idle
    assert between("stat", old, old) is None


def test_kgsl_clock_stats_give_busy_time_and_its_mean_clock() -> None:
    """kgsl_pwrctrl.c, gpu_clock_stats_show: µs *busy* at each level ("%llu "), in the order of the frequencies."""
    clocks = (903e6, 680e6, 231e6)
    old, new = "1000 2000 3000 \n", "101000 302000 3000 \n"
    assert between("clock_stats_mhz", old, new, 1.0, clocks) == pytest.approx((0.1 * 903 + 0.3 * 680) / 0.4)
    assert between("clock_stats_busy", old, new, 1.0) == pytest.approx(40.0)
    assert between("clock_stats_mhz", old, old, 1.0, clocks) is None  # it slept: there is no such clock,
    assert between("clock_stats_busy", old, old, 1.0) == 0.0  # and that it was busy for no time is known
    assert between("clock_stats_busy", new, old, 1.0) is None  # the driver was loaded anew


def test_an_energy_counter_becomes_power_and_may_wrap() -> None:
    """Documentation/ABI/testing/sysfs-class-powercap: energy_uj, which starts again at max_energy_range_uj."""
    assert between("energy_uj", "1000000\n", "4000000\n", 0.5) == pytest.approx(6.0)
    assert between("energy_uj", "262143000000\n", "857850\n", 1.0, (262143328850,)) == pytest.approx(1.1867)
    assert between("energy_uj", "1", "2", 0.0) is None


def test_every_platform_loads_and_its_signals_are_named_by_their_units() -> None:
    names = {"%": "percent", "MHz": "mhz", "°C": "c", "MB": "mb", "mA": "ma", "V": "v", "W": "w", "mAh": "mah"}
    names |= {"count": "resets"}
    assert platform_names()[-1] == "linux"
    assert {"android-adreno", "android-mali", "mediatek", "pixel"} < set(platform_names())
    for name in platform_names():
        sources = load_platform(name).sources
        assert {"cpu_percent", "memory_used_mb", "battery_current_ma"} <= {source.signal for source in sources}
        units: dict[str, str] = {}
        for source in sources:
            if source.unit != "1 or 0":
                assert source.signal.rpartition("_")[2] == names[source.unit], source
            assert units.setdefault(source.signal, source.unit) == source.unit
            assert source.period_ms >= 100
            if source.path.endswith(("gpubusy", "gpu_busy_percentage")):
                assert source.period_ms >= 1000, "KGSL has nothing new before"
            if source.command:
                assert source.period_ms >= 5000, "it costs the phone a tenth of a second"
