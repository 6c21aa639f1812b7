"""An agent without a process: what a device does, done here."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, cast

from espalier.export.devices.agent.serve import Agent
from espalier.export.devices.agent_device import AgentDevice
from espalier.export.devices.connection import Link


class InProcess:
    """Stands in for a connection; its agent keeps nothing in a folder."""

    def __init__(self, folder: Path) -> None:
        self._agent = Agent(folder, out=io.StringIO())

    def ask(self, op: str, **request: Any) -> dict[str, Any]:
        return self._agent.do(op, request)

    def close(self) -> None:
        """Nothing to hang up."""


def in_process_device(folder: Path) -> AgentDevice:
    """A device that works in this process, where its modules can be scripted."""
    return AgentDevice("here", lambda: cast(Link, InProcess(folder)), reads_here=True)
