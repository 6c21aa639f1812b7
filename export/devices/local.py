"""This machine, through ONNX Runtime."""

from __future__ import annotations

import sys

from espalier.export.devices.agent_device import AgentDevice
from espalier.export.devices.agent_file import START
from espalier.export.devices.connection import Connection


class LocalDevice(AgentDevice):
    """Times ONNX files in a separate process on this machine, which is restarted if a file crashes it."""

    def __init__(self) -> None:
        super().__init__("local", lambda: Connection([sys.executable, "-u", "-c", START]), reads_here=True, pause_s=0.0)
