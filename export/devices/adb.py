"""Android phones and boards, through `adb`.

Tested against a stand-in for `adb` that runs its commands on this machine; no phone has been asked so far.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from espalier.export.devices.agent_device import AgentDevice
from espalier.export.devices.agent_file import start_command
from espalier.export.devices.connection import Connection, ConnectionLost, Link, why_it_ended
from espalier.export.devices.location import parse_options
from espalier.export.devices.perf_test import PerfTestLink
from espalier.export.devices.shell import CALL_S, PUSH_S, Ran, called, cannot_keep
from espalier.nas.errors import UserError

FORM = "adb://SERIAL[?perf_test=PATH]"
OPTIONS = ("perf_test", "python")
_SERIAL = re.compile(r"\w[\w.:-]*", re.ASCII)
_OWN_WORDS = ("error: ", "adb: ", "* ")
"""What adb itself begins its complaints with; its exit code is that of the command, or 1."""


class AdbDevice(AgentDevice):
    """Times ONNX files on a phone with Android 7 or newer, whose serial number `adb devices` lists.

    By `onnxruntime_perf_test`: one built for Android, which `?perf_test=` names and which is sent, or one that is on
    the phone. Where `?python=` names a Python there that the shell may start and that has onnxruntime, by the agent.
    Termux keeps its Python to itself: start its sshd, and take `ssh://`.

    Args:
        rest: the address, without `adb:`.
        where: the key or option that holds it.
        pause_s: see `AgentDevice`.
    """

    def __init__(self, rest: str, *, where: str, pause_s: float = 1.0) -> None:
        authority, _, query = rest.partition("?")
        serial = authority.removeprefix("//")
        if serial == authority or not _SERIAL.fullmatch(serial):
            raise UserError(where, f"{rest!r} is not the address of a device", allowed=[FORM], given=rest)
        options = parse_options(query, where, OPTIONS)
        shell = AdbShell(serial)
        link = PerfTestLink(shell, options.get("perf_test"))

        def connect() -> Link:
            if "python" in options:
                command = [*shell.command, "shell", "-T", f"TMPDIR={shell.folder} {start_command(options['python'])}"]
                return Connection(command, explain=why_adb_ended)
            return link

        super().__init__(f"adb:{rest}", connect, pause_s=pause_s)


class AdbShell:
    """Through `adb`. Args: serial: of the phone."""

    folder = "/data/local/tmp"

    def __init__(self, serial: str) -> None:
        self.command = ("adb", "-s", serial)

    def run(self, command: str, *, timeout_s: float = CALL_S) -> Ran:
        """See `Shell`."""
        ran = called([*self.command, "shell", "-T", command], timeout_s)
        if ran.code != 0 and ran.err and ran.err[0].startswith(_OWN_WORDS):
            raise ConnectionLost(why_adb_ended(ran.code, ran.err))
        return ran

    def push(self, path: Path, there: str) -> None:
        """See `Shell`."""
        ran = called([*self.command, "push", str(path.resolve()), there], PUSH_S)
        if ran.code == 0:
            return
        if ran.err and ran.err[0].startswith("error: "):
            raise ConnectionLost(why_adb_ended(ran.code, ran.err))
        raise cannot_keep(there, ran)


def why_adb_ended(code: int | None, complaints: Sequence[str]) -> str:
    """The cause in one clause, with what to do about it where that is known."""
    said = "\n".join(complaints)
    if "unauthorized" in said:
        return "untrusted: unlock the phone, and allow this computer to debug it"
    if "not found" in said and "device" in said:
        return "cannot be reached (adb knows no such device: see adb devices)"
    if "offline" in said:
        return "cannot be reached (it is offline)"
    return why_it_ended(code, complaints)


def phones() -> list[str]:
    """The serial numbers that `adb devices` lists as ready; none where there is no adb."""
    try:
        ran = called(["adb", "devices"], CALL_S)
    except ConnectionLost:
        return []
    rows = [line.split() for line in ran.out[1:]]
    return [row[0] for row in rows if row[1:] == ["device"]]
