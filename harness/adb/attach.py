"""Which attached phone is meant: the only one, one by serial, or, for a GPU model, each in turn."""

from __future__ import annotations

import os

from harness.adb.client import NO_ADB, NO_PHONE, Adb, Phone, find, phones
from harness.adb.phone_link import PhoneLink
from harness.adb.runner_file import RunnerFile
from harness.errors import DeviceMissing, UsageError


def named(serial: str) -> PhoneLink:
    """The phone that `adb:SERIAL` means; "" is the only one, or the one that adb's own ANDROID_SERIAL names.

    Raises DeviceMissing with what stands in the way and its remedy, UsageError where several could be meant.
    """
    adb = find()
    if adb is None:
        raise DeviceMissing(NO_ADB)
    phone = _chosen(phones(adb), serial or os.environ.get("ANDROID_SERIAL", ""))
    if phone.wrong:
        raise DeviceMissing(phone.wrong)
    return PhoneLink(Adb(adb, phone.serial), RunnerFile.find())


def every() -> tuple[list[PhoneLink], list[str]]:
    """Every phone that can be asked, and for the others what stands in the way. Without adb there are none."""
    adb = find()
    if adb is None:
        return [], []
    try:
        found = phones(adb)
        wrong = [phone.wrong for phone in found if phone.wrong]
        able = [phone for phone in found if not phone.wrong]
        runner = RunnerFile.find() if able else None
    except DeviceMissing as error:
        return [], [str(error)]
    return [PhoneLink(Adb(adb, phone.serial), runner) for phone in able if runner], wrong


def _chosen(found: list[Phone], serial: str) -> Phone:
    if not found:
        raise DeviceMissing(NO_PHONE)
    listed = ", ".join(map(str, found))
    if serial:
        for phone in found:
            if phone.serial == serial:
                return phone
        raise DeviceMissing(f'no phone "{serial}" is attached: adb lists {listed}')
    if len(found) > 1:
        # One that cannot be used does not make the other ambiguous.
        able = [phone for phone in found if not phone.wrong]
        if len(able) != 1:
            raise UsageError(f"several phones are attached: {listed}; name one, as in --device adb:{found[0].serial}")
        return able[0]
    return found[0]
