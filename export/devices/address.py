"""Devices by address: `local`, `ssh://user@host`."""

from __future__ import annotations

import importlib

from espalier.export.devices.base import Device
from espalier.nas.errors import UserError

KINDS = {
    "local": "espalier.export.devices.local:LocalDevice",
    "ssh": "espalier.export.devices.ssh:SshDevice",
    "adb": "espalier.export.devices.adb:AdbDevice",
    "replay": "espalier.export.devices.replay:ReplayDevice",
}
"""The class of each kind of device, by the part of an address before its colon. The class is given the rest."""
FORMS = ("local", "ssh://USER@HOST[:PORT]", "adb://SERIAL", "replay:FILE")


def open_device(address: str, *, where: str) -> Device:
    """The device at an address; it is connected when it is first used.

    Args:
        address: see `FORMS`.
        where: the key or option that contains the address.

    Raises:
        UserError: the address has another form.
    """
    kind, colon, rest = address.partition(":")
    if kind not in KINDS or (kind == "local") == bool(colon):
        raise UserError(where, f"{address!r} is not the address of a device", allowed=FORMS, given=address)
    module, _, name = KINDS[kind].partition(":")
    device_class = getattr(importlib.import_module(module), name)
    device: Device = device_class(rest, where=where) if colon else device_class()
    return device
