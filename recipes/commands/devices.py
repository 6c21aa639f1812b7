"""`nas devices`: which addresses there are, and what answers at one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from espalier.export.devices.adb import phones
from espalier.export.devices.address import open_device
from espalier.export.devices.agent_device import AgentDevice
from espalier.nas.errors import UserError

SSH_CONFIG = Path("~/.ssh/config")


def known_devices() -> list[dict[str, Any]]:
    """This machine as `ask_device` tells it, then the addresses of hosts and phones, which are not asked.

    Hosts are those that `SSH_CONFIG` names without a pattern; files that it includes are not looked at.

    Raises:
        UserError: this machine cannot be asked.
    """
    addresses = [*(f"ssh://{host}" for host in configured_hosts()), *(f"adb://{serial}" for serial in phones())]
    return [ask_device("local"), *({"address": address} for address in addresses)]


def ask_device(address: str) -> dict[str, Any]:
    """`{address, providers, fingerprint}` of a device.

    Raises:
        UserError: of another form, or why it cannot be used.
    """
    device = open_device(address, where="address")
    if not isinstance(device, AgentDevice):
        raise UserError(address, "is a device that does not tell its providers")
    try:
        return {"address": address, "providers": device.providers(), "fingerprint": device.fingerprint()}
    finally:
        device.close()


def configured_hosts() -> list[str]:
    """The names of hosts in `SSH_CONFIG`, in order; none where it cannot be read."""
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


def devices_text(devices: list[dict[str, Any]]) -> str:
    """The devices, those that were asked with all they say."""
    blocks = []
    for device in devices:
        lines = [device["address"] if "fingerprint" in device else f"{device['address']} (not asked)"]
        if "fingerprint" in device:
            lines.append(f"  providers: {', '.join(device['providers'])}")
            for key, value in device["fingerprint"].items():
                shown = ", ".join(map(str, value)) if isinstance(value, list) else value
                lines.append(f"  {key}: {'unknown' if value is None else shown}")
        blocks.append("\n".join(lines))
    return "\n".join(blocks)
