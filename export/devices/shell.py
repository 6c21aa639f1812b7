"""Single commands on a host or phone, and files sent there: where no agent can run."""

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
    """How a command ended. Attributes: code: its exit code. out, err: what it said, as lines."""

    code: int
    out: list[str]
    err: list[str]


class Shell(Protocol):
    """A POSIX shell somewhere. Attributes: folder: where temporary files may be put."""

    folder: str

    def run(self, command: str, *, timeout_s: float = CALL_S) -> Ran:
        """Run a line of shell; everything in it is quoted already.

        Raises:
            ConnectionLost: it is not known how it ended.
            ConnectionSilent: it did not, in this time.
        """

    def push(self, path: Path, there: str) -> None:
        """Copy a file into a folder that is there.

        Raises:
            Refused: it cannot be kept.
            ConnectionLost: in between.
        """


class SshShell:
    """Through `ssh`. Args: command: up to the host. explain: says why ssh failed."""

    folder = "/tmp"

    def __init__(self, command: Sequence[str], explain: Callable[[int | None, Sequence[str]], str]) -> None:
        self._command = command
        self._explain = explain

    def run(self, command: str, *, timeout_s: float = CALL_S) -> Ran:
        """See `Shell`."""
        return self._checked(called([*self._command, command], timeout_s))

    def push(self, path: Path, there: str) -> None:
        """See `Shell`."""
        ran = self._checked(called([*self._command, f"cat > {quote(there)}"], PUSH_S, path))
        if ran.code != 0:
            raise cannot_keep(there, ran)

    def _checked(self, ran: Ran) -> Ran:
        if ran.code == 255:  # ssh's own
            raise ConnectionLost(self._explain(ran.code, ran.err))
        return ran


def called(command: Sequence[str], timeout_s: float, send: Path | None = None) -> Ran:
    """Run a command here, with a file as its input.

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


def cannot_keep(there: str, ran: Ran) -> Refused:
    """The error of a file that did not arrive."""
    said = (ran.err or ran.out or [f"exit code {ran.code}"])[-1]
    reason = "No space left on device" if "No space left" in said else said
    return Refused("device", f"cannot keep the file in {there.rpartition('/')[0]} ({reason})")
