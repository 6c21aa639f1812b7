"""Linux boards and servers, through the system's `ssh`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from espalier.export.devices.agent_device import AgentDevice
from espalier.export.devices.agent_file import start_command
from espalier.export.devices.connection import Connection, Link, exit_reason
from espalier.export.devices.location import Location, parse
from espalier.export.devices.perf_test import PerfTestLink
from espalier.export.devices.shell import SshShell
from espalier.nas.errors import UserError

FORM = "ssh://[USER@]HOST[:PORT][?python=PATH][&config=FILE]"
OPTIONS = ("python", "config", "perf_test")

_SSH = {
    "BatchMode": "yes",  # nobody can be asked for a password
    "StrictHostKeyChecking": "yes",  # or to confirm a key
    "ConnectTimeout": "10",
    "ServerAliveInterval": "5",  # with the next: a dead network is noticed after 15 s
    "ServerAliveCountMax": "3",
    "ControlMaster": "no",  # a master would outlive the connection; an existing one is used
    "RequestTTY": "no",
    "RemoteCommand": "none",
    "ClearAllForwardings": "yes",
    "LogLevel": "ERROR",
}
"""Options of the user's configuration that are overridden. All others apply: names, keys, jumps, known hosts."""

_SSH_FAILED = 255
_NO_COMMAND = (126, 127)
_CAUSES = (
    (
        "IDENTIFICATION HAS CHANGED",
        "untrusted host: its key has changed. If the host was reinstalled, remove the old key "
        "(ssh-keygen -R {host}) and connect once by hand (ssh {host})",
    ),
    (
        "Host key verification failed",
        "untrusted host: its key is unknown. Connect once by hand (ssh {host}) and verify the key",
    ),
    ("Permission denied", "permission denied ({said}): none of your keys is accepted, and passwords are not supported"),
    ("ssh: ", "cannot be reached ({said})"),
    ("", "the connection was lost ({said})"),
)
"""Error messages of ssh and their meaning; the first match is used."""


class SshDevice(AgentDevice):
    """Times ONNX files on a host that `ssh HOST` reaches without a password, and that has Python and onnxruntime.

    The host is resolved by `ssh`: from `~/.ssh/config`, or the file that `?config=` names. Its key must be known: a
    host that was never connected to by hand is refused. Python is `python3` on the host, or what `?python=` names.

    A folder `espalier-*` in the host's temporary folder contains the agent and the networks that are being timed. The
    agent removes it when the connection ends, however it ends; if the agent was killed, the next one removes it.
    Nothing else is written there, and no process keeps running.

    Without Python: `?perf_test=PATH` names an `onnxruntime_perf_test`, here or on the host (see `PerfTestLink`).

    Args:
        rest: the address, without `ssh:`.
        where: the key or option that contains it.
        pause_s: see `AgentDevice`.
    """

    def __init__(self, rest: str, *, where: str, pause_s: float = 1.0) -> None:
        location = parse(rest, where=where, form=FORM, options=OPTIONS)
        ssh = ssh_command(location, where)
        command = [*ssh, start_command(location.options.get("python", "python3"))]

        def explain(code: int | None, messages: Sequence[str]) -> str:
            return ssh_failure(location.host, code, messages)

        program = location.options.get("perf_test")
        link = PerfTestLink(SshShell(ssh, explain), program)

        def connect() -> Link:
            return Connection(command, explain=explain) if program is None else link

        super().__init__(f"ssh:{rest}", connect, pause_s=pause_s)


def ssh_command(location: Location, where: str) -> list[str]:
    """The ssh command line up to the host; the command to run there follows.

    Raises:
        UserError: there is no such configuration file.
    """
    command = ["ssh", "-T"]
    config = location.options.get("config")
    if config is not None:
        path = Path(config).expanduser()
        if not path.is_file():
            raise UserError(where, f"there is no ssh configuration {path}", code="not_found")
        command += ["-F", str(path)]
    for name, value in _SSH.items():
        command += ["-o", f"{name}={value}"]
    if location.user is not None:
        command += ["-l", location.user]
    if location.port is not None:
        command += ["-p", str(location.port)]
    return [*command, "--", location.host]


def ssh_failure(host: str, code: int | None, messages: Sequence[str]) -> str:
    """The cause in one clause, with a fix if one is known."""
    if code == _SSH_FAILED:
        last = messages[-1] if messages else "no error message"
        means = next(means for sign, means in _CAUSES if any(sign in line for line in messages) or not sign)
        said = last.removeprefix("ssh: ").partition("Permission denied (")[2].rstrip(").") or last.removeprefix("ssh: ")
        return means.format(host=host, said=said)
    if code in _NO_COMMAND:
        return (
            f"there is no such Python ({' '.join(messages[-1:])}): give the path of one with onnxruntime, ?python=PATH"
        )
    return exit_reason(code, messages)
