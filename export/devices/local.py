"""This machine, through ONNX Runtime."""

from __future__ import annotations

import sys

from espalier.export.devices.agent_device import AgentDevice
from espalier.export.devices.agent_file import START
from espalier.export.devices.connection import Connection


class LocalDevice(AgentDevice):
    """Times ONNX files here, in a process of its own: one that a file takes down with it is only started again."""

    def __init__(self) -> None:
        super().__init__("local", lambda: Connection([sys.executable, "-u", "-c", START]), reads_here=True, pause_s=0.0)
