"""Devices for tests: one that asks for `device` runs on every OpenCL device here; what is missing is a visible skip.

A module with NATIVE runs on each device through the native runner as well, which is built for it (`native.py`): "slow"
where that is only for `make ci`.
"""

import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import native
import pytest
from phones import Cable

from harness.adb import attach
from harness.devices import Attached, DeviceChoice, list_devices, runner_command, sheet_from, slug
from harness.supervisor import Supervisor, Timeouts


def pytest_configure() -> None:
    """Let Ctrl-C be Ctrl-C: what a shell runs in the background begins with SIGINT ignored, and so do its tests."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@cache
def attached() -> Attached:
    return list_devices()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Repeat a test that asks for `device` on every device."""
    if "device" not in metafunc.fixturenames:
        return
    params = []
    twice = getattr(metafunc.module, "NATIVE", None)
    for live in attached().devices:
        command = runner_command(live.driver, live.selector, "--inject")
        choice = DeviceChoice(slug(live.description), command, live.description, sheet_from(live.description))
        params.append(pytest.param(choice, id=choice.slug, marks=pytest.mark.device))
        if twice:
            marks = [pytest.mark.device, pytest.mark.skipif(bool(native.ABSENT), reason=native.ABSENT)]
            marks += [pytest.mark.slow] if twice == "slow" else []
            params.append(pytest.param(native.choice(live), id=f"{choice.slug}-native", marks=marks))
    for missing in attached().runtimes.missing:
        skip = pytest.mark.skip(reason=f"{missing.what}: {missing.remedy}")
        params.append(pytest.param(None, id="missing", marks=[pytest.mark.device, skip]))
    metafunc.parametrize("device", params, scope="module")


@pytest.fixture(scope="module", autouse=True)
def built(request: pytest.FixtureRequest) -> None:
    """The native runner, for the modules that use it."""
    if getattr(request.module, "NATIVE", None) and not native.ABSENT:
        native.build()


@pytest.fixture(scope="module")
def supervisor(device: DeviceChoice) -> Iterator[Supervisor]:
    """A supervised runner of `device` that takes faults; whoever breaks it leaves the next test a fresh one."""
    with Supervisor(device.command, timeouts=Timeouts(build_s=60, run_s=20), recycle_after=None) as made:
        yield made


@pytest.fixture(autouse=True)
def _no_phones(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real adb client would start its server, and might find a phone: only a test with a cable has one."""
    if "cable" not in request.fixturenames:
        monkeypatch.setattr(attach, "find", lambda: None)


@pytest.fixture
def cable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cable:
    """A fake adb on the PATH, without a phone yet."""
    return Cable(tmp_path, monkeypatch)
