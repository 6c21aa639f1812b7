"""The operations that need the device exclusively."""

from __future__ import annotations

from typing import Any, Callable  # noqa: UP035 - Python 3.8

from espalier.export.devices.agent.load import time_load
from espalier.export.devices.agent.operators import time_operators
from espalier.export.devices.agent.requests import time_requests
from espalier.export.devices.agent.rounds import time_round

TIMED: dict[str, Callable[[dict[str, Any], Callable[[], None]], dict[str, Any]]] = {
    "round": time_round,
    "load": time_load,
    "operators": time_operators,
    "requests": time_requests,
}
"""Operations that need the device exclusively, by name."""
