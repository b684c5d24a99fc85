"""Priority and performance hints: tried where a device lists them, told what came of them, kept apart in journals."""

import ast
import subprocess
import sys
from dataclasses import replace

import pytest
from test_doctor import DESCRIPTION

from harness.devices import DeviceChoice, sheet_from
from harness.errors import UsageError
from harness.hinted import LEVELS, hinted
from harness.journal import identity, same_device
from harness.measure import Lane, Meter
from harness.supervisor import Supervisor

RUNNER = (sys.executable, "-P", "-m", "harness.runner")
PHONE = DeviceChoice("adreno750", RUNNER, DESCRIPTION, sheet_from(DESCRIPTION), python_runner=True)
# In a process of its own, since it loads a driver: what comes of hints whose extensions are pretended.
TRY = """
import sys
from harness import runtimes
runtimes.prepare(sys.argv[1])
import pyopencl as cl
from harness.runner import hints
device = cl.get_platforms()[0].get_devices()[0]
assert hints.LEVELS == ("low", "normal", "high")
for listed in ("", "cl_khr_priority_hints", "cl_qcom_priority_hint cl_qcom_perf_hint"):
    found = hints.open_queues(device, "low", "high", listed.split())
    assert found.timed.context == found.plain.context == found.context
    cl.Buffer(found.context, cl.mem_flags.READ_WRITE, 16)
    print(dict(found.told))
# The calls themselves, with properties that every driver takes: CL_CONTEXT_PLATFORM, CL_QUEUE_PROPERTIES.
context = hints.make_context(device, [(0x1084, device.platform.int_ptr)])
queue = hints.make_queue(context, device, [(0x1093, 2)])
assert queue.properties & cl.command_queue_properties.PROFILING_ENABLE
event = cl.enqueue_marker(queue)
event.wait()
# As if the driver took them: the properties arrive, each with the level that was asked for.
seen = []
hints.make_context = lambda device, properties: seen.append(list(properties)) or context
hints.make_queue = lambda context, device, properties: seen.append(list(properties)) or queue
found = hints.open_queues(device, "low", "high", ["cl_khr_priority_hints", "cl_qcom_perf_hint"])
print(dict(found.told), seen)
"""


def test_a_driver_is_asked_and_what_it_refuses_is_left_out(device: DeviceChoice) -> None:
    driver = device.command[device.command.index("--driver") + 1]
    done = subprocess.run([sys.executable, "-c", TRY, driver], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *tried, taken = done.stdout.splitlines()
    none, khr, qcom = map(ast.literal_eval, tried)
    assert none["priority"] == (
        "default: low was asked for, and the device lists neither cl_khr_priority_hints nor cl_qcom_priority_hint"
    )
    assert none["performance"] == "default: high was asked for, and the device does not list cl_qcom_perf_hint"
    assert khr["priority"].startswith("default: low was asked for, and the driver refused cl_khr_priority_hints with")
    assert qcom["priority"].startswith("default: low was asked for, and the driver refused cl_qcom_priority_hint with")
    assert qcom["performance"].startswith("default: high was asked for, and the driver refused cl_qcom_perf_hint with")
    perf, queue = [(0x40C2, 0x40C3)], (0x1096, 4)
    told = {"performance": "high by cl_qcom_perf_hint", "priority": "low by cl_khr_priority_hints"}
    assert taken == f"{told} {[perf, [queue], perf, [(0x1093, 2), queue], [queue]]}"


def test_a_runner_with_hints_tells_what_came_of_them(device: DeviceChoice) -> None:
    ours = replace(device, python_runner=True)
    with Supervisor(hinted(ours, priority="low", performance=None).command) as supervisor:
        told = supervisor.hello().hints
        assert set(told) == {"priority"}
        listed = {"cl_khr_priority_hints", "cl_qcom_priority_hint"} & set(device.description["extensions"])
        assert told["priority"].startswith("default" if not listed else ("low", "default"))
        lane = Lane(None, copies=1, cold_bytes=0)  # type: ignore[arg-type]  # nothing is bound: only conditions are asked
        assert Meter(supervisor, device.sheet).conditions(lane)["priority"] == told["priority"]
        supervisor.fill("a", 64)
        assert supervisor.get("a") == bytes(64)
    with Supervisor(device.command) as supervisor:
        assert supervisor.hello().hints == {}
        assert "priority" not in Meter(supervisor, device.sheet).conditions(lane)


def test_a_run_with_hints_is_another_device_to_the_journal() -> None:
    low = hinted(PHONE, priority="low", performance=None)
    assert low.command == (*PHONE.command, "--priority", "low")
    assert not same_device(low.description, PHONE.description)
    assert not same_device(low.description, hinted(PHONE, priority="high", performance=None).description)
    assert same_device(low.description, hinted(PHONE, priority="low", performance=None).description)
    assert identity(low.description) == [*identity(PHONE.description), "priority=low"]
    assert hinted(PHONE, priority=None, performance=None) is PHONE
    both = hinted(PHONE, priority="low", performance="high")
    assert both.command[4:] == ("--priority", "low", "--performance", "high")


def test_a_native_runner_takes_its_own_hints() -> None:
    native = DeviceChoice("adreno750", ("./runner",), DESCRIPTION, sheet_from(DESCRIPTION))
    with pytest.raises(UsageError, match="--priority and --performance: a native runner takes its hints on its own"):
        hinted(native, priority="low", performance="high")
    assert hinted(native, priority=None, performance=None) is native


def test_levels_are_those_of_the_runner() -> None:
    assert LEVELS == ("low", "normal", "high")
