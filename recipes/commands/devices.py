"""`nas devices`: which devices there are, and what a device reports about itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier.export.devices.adb import phones
from espalier.export.devices.agent_device import AgentDevice
from espalier.nas.errors import UserError
from espalier.recipes.config.devices import open_device

SSH_CONFIG = Path("~/.ssh/config")


@dataclass(frozen=True)
class KnownDevice:
    """A device, by its address.

    Attributes:
        address: as `--device` takes it.
        providers: ONNX Runtime's execution providers there; None if it was not asked.
        fingerprint: what it is; None if it was not asked.
    """

    address: str
    providers: Sequence[str] | None = None
    fingerprint: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As `nas devices --json` prints it."""
        return {key: value for key, value in vars(self).items() if value is not None}


def known_devices() -> list[KnownDevice]:
    """This machine, then the addresses of hosts and phones, which are not asked.

    Hosts are those that `SSH_CONFIG` names without a pattern; files that it includes are not read.

    Raises:
        UserError: this machine cannot be asked.
    """
    addresses = [*(f"ssh://{host}" for host in configured_hosts()), *(f"adb://{serial}" for serial in phones())]
    return [ask_device("local"), *map(KnownDevice, addresses)]


def ask_device(address: str) -> KnownDevice:
    """What a device reports about itself.

    Raises:
        UserError: the address has another form, or the device cannot be used.
    """
    device = open_device(address, where="address")
    if not isinstance(device, AgentDevice):
        raise UserError(address, "this kind of device does not report its providers", code="unsupported")
    try:
        return KnownDevice(address, device.providers(), device.fingerprint())
    finally:
        device.close()


def configured_hosts() -> list[str]:
    """The names of hosts in `SSH_CONFIG`, in order; none if it cannot be read."""
    try:
        lines = SSH_CONFIG.expanduser().read_text().splitlines()
    except (OSError, UnicodeDecodeError):  # there need not be one, and it may be another user's
        return []
    hosts = []
    for line in lines:
        key, *names = line.replace("=", " ").split() or [""]
        if key.lower() == "host":
            hosts += [name for name in names if not set(name) & set('*?!"')]
    return list(dict.fromkeys(hosts))


def devices_text(devices: Sequence[KnownDevice]) -> str:
    """The devices, with all that those that were asked report."""
    return "\n".join(line for device in devices for line in _device_lines(device))


def _device_lines(device: KnownDevice) -> list[str]:
    if device.fingerprint is None:
        return [f"{device.address} (not asked)"]
    lines = [device.address, f"  providers: {', '.join(device.providers or ())}"]
    for key, value in device.fingerprint.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        lines.append(f"  {key}: {'unknown' if value is None else shown}")
    return lines
