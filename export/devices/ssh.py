"""Linux boards and servers, through the system's `ssh`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from espalier.export.devices.agent_device import AgentDevice
from espalier.export.devices.agent_file import start_command
from espalier.export.devices.connection import Connection, Link, why_it_ended
from espalier.export.devices.location import Location, parse
from espalier.export.devices.perf_test import PerfTestLink
from espalier.export.devices.shell import SshShell
from espalier.nas.errors import UserError

FORM = "ssh://[USER@]HOST[:PORT][?python=PATH][&config=FILE]"
OPTIONS = ("python", "config", "perf_test")

_SSH = {
    "BatchMode": "yes",  # nobody is there to be asked for a password
    "StrictHostKeyChecking": "yes",  # nor whether a key is the right one
    "ConnectTimeout": "10",
    "ServerAliveInterval": "5",  # with the next: a dead network is noticed after 15 s
    "ServerAliveCountMax": "3",
    "ControlMaster": "no",  # a master would stay when the connection goes; one that is there already is used
    "RequestTTY": "no",
    "RemoteCommand": "none",
    "ClearAllForwardings": "yes",
    "LogLevel": "ERROR",
}
"""What of a user's configuration would not work here. All else in it holds: names, keys, jumps, known hosts."""

_SSH_FAILED = 255
_NO_COMMAND = (126, 127)
_CAUSES = (
    (
        "IDENTIFICATION HAS CHANGED",
        "untrusted host: its key is not the one that is known. If the host was set up anew, remove the old key "
        "(ssh-keygen -R {host}) and connect once by hand (ssh {host})",
    ),
    (
        "Host key verification failed",
        "untrusted host: its key is not known. Connect once by hand (ssh {host}), and compare the key",
    ),
    ("Permission denied", "permission denied ({said}): no key of yours opens it, and passwords are not asked for"),
    ("ssh: ", "cannot be reached ({said})"),
    ("", "the connection was lost ({said})"),
)
"""What ssh says when it fails, and what that means; the first that is found holds."""


class SshDevice(AgentDevice):
    """Times ONNX files on a host that `ssh HOST` reaches without a password, and that has Python and onnxruntime.

    The host is found as `ssh` finds it: in `~/.ssh/config`, or the file that `?config=` names. Its key must be known:
    a host that was never connected to by hand is refused. Python is `python3` there, or what `?python=` names.

    On the host, a folder `espalier-*` in its temporary folder holds the agent and the networks that are being timed.
    The agent removes it when the connection ends, however it ends; one that was killed leaves it to the next agent.
    Nothing else is written there, and no process stays.

    Without Python: `?perf_test=PATH` names an `onnxruntime_perf_test`, here or there (see `PerfTestLink`).

    Args:
        rest: the address, without `ssh:`.
        where: the key or option that holds it.
        pause_s: see `AgentDevice`.
    """

    def __init__(self, rest: str, *, where: str, pause_s: float = 1.0) -> None:
        location = parse(rest, where=where, form=FORM, options=OPTIONS)
        ssh = ssh_command(location, where)
        command = [*ssh, start_command(location.options.get("python", "python3"))]

        def explain(code: int | None, complaints: Sequence[str]) -> str:
            return why_ssh_ended(location.host, code, complaints)

        program = location.options.get("perf_test")
        link = PerfTestLink(SshShell(ssh, explain), program)

        def connect() -> Link:
            return Connection(command, explain=explain) if program is None else link

        super().__init__(f"ssh:{rest}", connect, pause_s=pause_s)


def ssh_command(location: Location, where: str) -> list[str]:
    """The command line up to the host; what is to be run there follows.

    Raises:
        UserError: there is no such configuration.
    """
    command = ["ssh", "-T"]
    config = location.options.get("config")
    if config is not None:
        path = Path(config).expanduser()
        if not path.is_file():
            raise UserError(where, f"there is no ssh configuration {path}")
        command += ["-F", str(path)]
    for name, value in _SSH.items():
        command += ["-o", f"{name}={value}"]
    if location.user is not None:
        command += ["-l", location.user]
    if location.port is not None:
        command += ["-p", str(location.port)]
    return [*command, "--", location.host]


def why_ssh_ended(host: str, code: int | None, complaints: Sequence[str]) -> str:
    """The cause in one clause, with what to do about it where that is known."""
    if code == _SSH_FAILED:
        last = complaints[-1] if complaints else "it says nothing"
        means = next(means for sign, means in _CAUSES if any(sign in line for line in complaints) or not sign)
        said = last.removeprefix("ssh: ").partition("Permission denied (")[2].rstrip(").") or last.removeprefix("ssh: ")
        return means.format(host=host, said=said)
    if code in _NO_COMMAND:
        return f"there is no such Python ({' '.join(complaints[-1:])}): name one that has onnxruntime, ?python=PATH"
    return why_it_ended(code, complaints)
