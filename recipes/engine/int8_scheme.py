"""The int8 scheme for a device whose files also run on this machine, where accuracies are computed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

from espalier.export.devices.address import open_device
from espalier.export.devices.base import Device
from espalier.export.quantize.instructions import Int8Scheme, int8_scheme

LOCAL = "local"
"""The address of this machine."""


def scheme_on(device: Device, provider: str | None) -> Int8Scheme:
    """The scheme for a device with a provider, by its fingerprint and, if it is another machine, by this one's."""
    fingerprint = device.fingerprint(provider)
    if device.name == LOCAL:
        return int8_scheme(fingerprint)
    with closing(open_device(LOCAL, where=LOCAL)) as here:
        return scheme_for(fingerprint, here.fingerprint())


def scheme_for(device: Mapping[str, Any], here: Mapping[str, Any]) -> Int8Scheme:
    """The scheme for both fingerprints: 7 bits where 8 would saturate on either."""
    scheme, own = int8_scheme(device), int8_scheme(here)
    if own.reduce_range and not scheme.reduce_range and not scheme.signed:
        reason = f"{scheme.reason}, but this machine, where accuracy is computed, has none"
        return replace(scheme, reduce_range=True, reason=reason)
    return scheme
