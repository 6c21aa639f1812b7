"""Android phones and boards, through `adb`.

Tested with a stand-in for `adb` that runs its commands on this machine, not yet with a real phone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from espalier.export.devices.agent_device import AgentDevice
from espalier.export.devices.agent_file import start_command
from espalier.export.devices.connection import Connection, ConnectionLost, Link, exit_reason
from espalier.export.devices.location import parse_options
from espalier.export.devices.perf_test import PerfTestLink
from espalier.export.devices.shell import CALL_S, PUSH_S, Ran, run_command, storage_error
from espalier.nas.errors import UserError

FORM = "adb://SERIAL[?perf_test=PATH]"
OPTIONS = ("perf_test", "python")
_SERIAL = re.compile(r"\w[\w.:-]*", re.ASCII)
_OWN_WORDS = ("error: ", "adb: ", "* ")
"""How adb's own error messages start; its exit code is that of the command, or 1."""


class AdbDevice(AgentDevice):
    """Times ONNX files on a phone with Android 7 or newer, whose serial number `adb devices` lists.

    Uses `onnxruntime_perf_test`: a build for Android that `?perf_test=` names and that is sent to the phone, or one
    that is already there. If `?python=` names a Python on the phone that the shell can start and that has onnxruntime,
    the agent is used. The shell cannot start Termux's Python: start its sshd and use `ssh://`.

    Args:
        rest: the address, without `adb:`.
        where: the key or option that contains it.
        pause_s: see `AgentDevice`.
    """

    def __init__(self, rest: str, *, where: str, pause_s: float = 1.0) -> None:
        authority, _, query = rest.partition("?")
        serial = authority.removeprefix("//")
        if serial == authority or not _SERIAL.fullmatch(serial):
            raise UserError(where, f"{rest!r} is not the address of a device", code="invalid", allowed=[FORM])
        options = parse_options(query, where, OPTIONS)
        shell = AdbShell(serial)
        link = PerfTestLink(shell, options.get("perf_test"))

        def connect() -> Link:
            if "python" in options:
                command = [*shell.command, "shell", "-T", f"TMPDIR={shell.folder} {start_command(options['python'])}"]
                return Connection(command, explain=adb_failure)
            return link

        super().__init__(f"adb:{rest}", connect, pause_s=pause_s)


class AdbShell:
    """A shell through `adb`.

    Args:
        serial: serial number of the phone.
    """

    folder = "/data/local/tmp"

    def __init__(self, serial: str) -> None:
        self.command = ("adb", "-s", serial)

    def run(self, command: str, *, timeout_s: float = CALL_S) -> Ran:
        """See `Shell`."""
        ran = run_command([*self.command, "shell", "-T", command], timeout_s)
        if ran.code != 0 and ran.err and ran.err[0].startswith(_OWN_WORDS):
            raise ConnectionLost(adb_failure(ran.code, ran.err))
        return ran

    def push(self, path: Path, there: str) -> None:
        """See `Shell`."""
        ran = run_command([*self.command, "push", str(path.resolve()), there], PUSH_S)
        if ran.code == 0:
            return
        if ran.err and ran.err[0].startswith("error: "):
            raise ConnectionLost(adb_failure(ran.code, ran.err))
        raise storage_error(there, ran)


def adb_failure(code: int | None, messages: Sequence[str]) -> str:
    """The cause in one clause, with a fix if one is known."""
    said = "\n".join(messages)
    if "unauthorized" in said:
        return "not authorised: unlock the phone, and allow USB debugging from this computer"
    if "not found" in said and "device" in said:
        return "cannot be reached (adb has no such device: see adb devices)"
    if "offline" in said:
        return "cannot be reached (it is offline)"
    return exit_reason(code, messages)


def phones() -> list[str]:
    """The serial numbers that `adb devices` lists as ready; empty if there is no adb."""
    try:
        ran = run_command(["adb", "devices"], CALL_S)
    except ConnectionLost:
        return []
    rows = [line.split() for line in ran.out[1:]]
    return [row[0] for row in rows if row[1:] == ["device"]]
