"""Run single commands on a host or phone and send files there, where no agent can run."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Protocol

from espalier.export.devices.agent.errors import Refused
from espalier.export.devices.connection import ConnectionLost, ConnectionSilent

CALL_S = 60.0
PUSH_S = 600.0


@dataclass(frozen=True)
class Ran:
    """How a command ended.

    Attributes:
        code: its exit code.
        out: lines of its standard output.
        err: lines of its standard error.
    """

    code: int
    out: list[str]
    err: list[str]


class Shell(Protocol):
    """A POSIX shell on a device.

    Attributes:
        folder: folder for temporary files.
    """

    folder: str

    def run(self, command: str, *, timeout_s: float = CALL_S) -> Ran:
        """Run a shell command; everything in it is already quoted.

        Raises:
            ConnectionLost: it is not known how it ended.
            ConnectionSilent: it did not end within this time.
        """

    def push(self, path: Path, there: str) -> None:
        """Copy a file into an existing folder.

        Raises:
            Refused: it cannot be stored.
            ConnectionLost: during the transfer.
        """


class SshShell:
    """A shell through `ssh`.

    Args:
        command: the ssh command line up to the host.
        explain: gives the reason why ssh failed.
    """

    folder = "/tmp"

    def __init__(self, command: Sequence[str], explain: Callable[[int | None, Sequence[str]], str]) -> None:
        self._command = command
        self._explain = explain

    def run(self, command: str, *, timeout_s: float = CALL_S) -> Ran:
        """See `Shell`."""
        return self._checked(run_command([*self._command, command], timeout_s))

    def push(self, path: Path, there: str) -> None:
        """See `Shell`."""
        ran = self._checked(run_command([*self._command, f"cat > {quote(there)}"], PUSH_S, path))
        if ran.code != 0:
            raise storage_error(there, ran)

    def _checked(self, ran: Ran) -> Ran:
        if ran.code == 255:  # an error of ssh itself
            raise ConnectionLost(self._explain(ran.code, ran.err))
        return ran


def run_command(command: Sequence[str], timeout_s: float, send: Path | None = None) -> Ran:
    """Run a command on this machine, optionally with a file as its input.

    Raises:
        ConnectionLost: it cannot be started.
        ConnectionSilent: it takes too long.
    """
    with (send or Path("/dev/null")).open("rb") as source:
        try:
            done = subprocess.run(command, stdin=source, capture_output=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired:
            raise ConnectionSilent(f"no answer for {timeout_s:g} s") from None
        except OSError as error:
            raise ConnectionLost(f"{command[0]}: {error.strerror}") from error
    out, err = (text.decode(errors="replace").splitlines() for text in (done.stdout, done.stderr))
    return Ran(done.returncode, out, [line.strip() for line in err if line.strip()])


def storage_error(there: str, ran: Ran) -> Refused:
    """The error for a file that could not be stored."""
    said = (ran.err or ran.out or [f"exit code {ran.code}"])[-1]
    reason = "No space left on device" if "No space left" in said else said
    return Refused("device", f"cannot store the file in {there.rpartition('/')[0]} ({reason})", code="not_writable")
