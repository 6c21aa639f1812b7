"""A connection to an agent: JSON lines through the pipes of a child process such as ssh."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import queue
import subprocess
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import IO, Any, Protocol

from espalier.export.devices.agent.errors import Refused
from espalier.export.devices.agent.operations import TIMED
from espalier.export.devices.agent_file import agent_file
from espalier.export.devices.files import ModelFiles
from espalier.nas.errors import UserError

_log = logging.getLogger(__name__)

WAIT = "ESPALIER_WAIT_S"
"""Variable of the environment: longest time to wait for others that are timing on a device, in seconds [600]."""
MAX_WAIT_S = 86400.0
SILENCE_S = 300.0
"""Longest time without a sign of life; between two signs is at most one run, or the loading of one file."""
START_S = 60.0
"""Longest time until the first sign of life: connecting, and starting Python on a slow board."""
GOODBYE_S = 5.0
PIECE_BYTES = 1 << 20


class ConnectionLost(Exception):
    """The agent has disconnected, died or stopped responding. The text gives the known cause."""


class ConnectionSilent(ConnectionLost):
    """The agent has sent no sign of life for too long: it hangs, and would hang again."""


class Link(Protocol):
    """What a device needs from a connection, whatever is at the other end."""

    def ask(self, op: str, **request: Any) -> dict[str, Any]:
        """The answer to a request (see `espalier.export.devices.agent.serve`).

        Raises:
            Refused: the request cannot be fulfilled.
            ConnectionLost: there is no answer.
        """

    def send(self, files: ModelFiles) -> str:
        """Send a network's files; returns its path on the device.

        Raises:
            Refused: the device cannot store them.
            ConnectionLost: during the transfer.
        """

    def close(self) -> None:
        """Disconnect, and leave nothing on the device."""


def exit_reason(code: int | None, messages: Sequence[str]) -> str:
    """The last error message of a child process (for ssh the actual cause), or how it ended."""
    if messages:
        return messages[-1]
    return f"the agent ended ({f'killed by signal {-code}' if code is not None and code < 0 else f'exit code {code}'})"


def _lock_wait_s() -> float:
    """The value of `ESPALIER_WAIT_S`.

    Raises:
        UserError: it is no number of seconds.
    """
    text = os.environ[WAIT]
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_WAIT_S:
        raise UserError(WAIT, f"must be 0 to {MAX_WAIT_S:.0f} seconds, not {text!r}", code="out_of_range")
    return seconds


class Connection:
    """One agent, started and listening.

    Args:
        command: starts a Python that reads the agent from its standard input (see `agent_file`).
        silence_s: see `SILENCE_S`.
        start_s: see `START_S`.
        explain: gives the reason why the command ended, from its exit code and the lines of its standard error.

    Raises:
        ConnectionLost: the command cannot be started, or does not start an agent.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        silence_s: float = SILENCE_S,
        start_s: float = START_S,
        explain: Callable[[int | None, Sequence[str]], str] = exit_reason,
    ) -> None:
        self._silence_s = silence_s
        self._explain = explain
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
        except OSError as error:
            raise ConnectionLost(f"{command[0]}: {error.strerror}") from error
        self._finalizer = weakref.finalize(self, _end, self._process)
        self._answers: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._messages: deque[str] = deque(maxlen=20)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = [
            _read(self._process.stdout, self._answers.put, self._answers),
            _read(self._process.stderr, lambda line: self._messages.append(line.decode(errors="replace"))),
        ]
        content = agent_file()
        announcement = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        self._write(json.dumps(announcement).encode() + b"\n" + content)
        self._next_message(start_s)

    @property
    def pid(self) -> int:
        """Process id of the child process on this side."""
        return self._process.pid

    def ask(self, op: str, **request: Any) -> dict[str, Any]:
        """See `Link`."""
        waits = {"lock_wait_s": _lock_wait_s()} if op in TIMED and WAIT in os.environ else {}
        self._write(json.dumps({"op": op, **request, **waits}).encode() + b"\n")
        while True:
            message = self._next_message(self._silence_s)
            if "waiting" in message:
                _log.warning(message["waiting"])
            if "refused" in message:
                raise Refused(**message["refused"])
            if "ok" in message:
                answer: dict[str, Any] = message["ok"]
                return answer

    def send(self, files: ModelFiles) -> str:
        """See `Link`; sent in pieces, each of which is acknowledged."""
        for part in files.parts:
            with part.path.open("rb") as file:
                piece = file.read(PIECE_BYTES)
                self.ask("put", key=files.key, name=part.name, data=base64.b64encode(piece).decode(), first=True)
                while piece := file.read(PIECE_BYTES):
                    self.ask("put", key=files.key, name=part.name, data=base64.b64encode(piece).decode(), first=False)
        return str(self.ask("keep", key=files.key, files=[(part.name, part.sha256) for part in files.parts])["path"])

    def close(self) -> None:
        """Disconnect: the agent removes what it has written and ends."""
        self._finalizer()

    def _next_message(self, patience_s: float) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=patience_s)
        except queue.Empty:
            self.close()
            raise ConnectionSilent(f"no sign of life for {patience_s:g} s") from None
        if line is None:
            raise ConnectionLost(self._why())
        message: dict[str, Any] = json.loads(line)
        return message

    def _write(self, content: bytes) -> None:
        assert self._process.stdin is not None
        deadline = threading.Timer(self._silence_s, self._process.kill)  # the other end may not be reading
        deadline.start()
        try:
            self._process.stdin.write(content)
            self._process.stdin.flush()
        except OSError as error:
            raise ConnectionLost(self._why()) from error
        finally:
            deadline.cancel()

    def _why(self) -> str:
        self.close()
        self._readers[1].join(GOODBYE_S)
        return self._explain(self._process.returncode, [line.strip() for line in self._messages if line.strip()])


def _read(stream: IO[bytes], take: Any, end: queue.SimpleQueue[bytes | None] | None = None) -> threading.Thread:
    """Pass on each line from a separate thread, and optionally the end of the stream."""

    def loop() -> None:
        for line in _lines(stream):
            take(line)
        if end is not None:
            end.put(None)

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    return thread


def _lines(stream: IO[bytes]) -> Iterable[bytes]:
    with stream:
        yield from stream


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close its input, and kill it if that does not end it."""
    try:
        if process.stdin is not None:
            process.stdin.close()
    except BrokenPipeError:  # what was still to be sent is not needed
        process.kill()
    try:
        process.wait(GOODBYE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
