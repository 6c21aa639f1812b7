"""Devices by what a recipe or a command calls them: the address of one of the platform's, or an own class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from espalier.export.devices import address
from espalier.export.devices.base import Device
from espalier.nas.errors import UserError
from espalier.recipes.config.options import options_from_text
from espalier.recipes.config.registry import DEVICES
from espalier.recipes.config.roles import OWN_FORMS, make
from espalier.recipes.config.validation_errors import as_complaint


def open_device(text: str, *, where: str) -> Device:
    """The device that a text names; nothing is connected before it is asked.

    Args:
        text: an address, or `FILE.py:NAME`, `package.module:NAME` or the name of an entry point, each with its options
            after a colon, as in `board.py:Board:slot=2`.
        where: the key or option that holds it.

    Raises:
        UserError: no such device, or an own one cannot be made.
    """
    name, _ = DEVICES.split(text)
    if DEVICES.own(name) is None:
        try:
            return address.open_device(text, where=where)
        except UserError as error:
            allowed = None if error.allowed is None else (*error.allowed, *DEVICES.registered, *OWN_FORMS)
            raise UserError(where, error.problem, code=error.code, allowed=allowed, given=error.given) from error
    name, options = options_from_text(DEVICES, text, where=where)
    device: Device = make(DEVICES, name, where=where, **options)
    return device


def device_files(text: str) -> list[Path]:
    """The files that decide what a device answers: the recording of a replayed one.

    Args:
        text: see `open_device`.
    """
    kind, _, rest = text.partition(":")
    return [Path(rest.partition("?")[0]).expanduser()] if kind == "replay" else []


def _address(text: str) -> str:
    try:
        open_device(text, where="")
    except UserError as error:
        if error.where and not error.where.startswith("."):  # a file, not a key
            raise
        raise as_complaint(error) from error
    return text


DeviceAddress = Annotated[str, AfterValidator(_address)]
"""The address of a device, or an own device with its options."""
