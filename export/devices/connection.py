"""A connection to an agent: JSON lines through the pipes of a child process, such as ssh."""

from __future__ import annotations

import base64
import hashlib
import json
import queue
import subprocess
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import IO, Any, Protocol

from espalier.export.devices.agent.errors import Refused
from espalier.export.devices.agent_file import agent_file
from espalier.export.devices.files import ModelFiles

SILENCE_S = 300.0
"""Without a sign of life an agent is given up; between signs lies at most one run, or the loading of one file."""
START_S = 60.0
"""Until its first sign of life: connecting, and the start of Python on a slow board."""
GOODBYE_S = 5.0
PIECE_BYTES = 1 << 20


class ConnectionLost(Exception):
    """The agent has hung up, died or fallen silent. The text says what is known of why."""


class ConnectionSilent(ConnectionLost):
    """The agent has given no sign of life for too long: it hangs, and would hang again."""


class Link(Protocol):
    """What a device needs of a connection, whatever is at its other end."""

    def ask(self, op: str, **request: Any) -> dict[str, Any]:
        """The answer to a request (see `espalier.export.devices.agent.serve`).

        Raises:
            Refused: it cannot be met.
            ConnectionLost: there is no answer.
        """

    def send(self, files: ModelFiles) -> str:
        """The path of a network there, once all of its files have arrived.

        Raises:
            Refused: the device cannot keep them.
            ConnectionLost: in between.
        """

    def close(self) -> None:
        """Hang up, and leave nothing there."""


def why_it_ended(code: int | None, complaints: Sequence[str]) -> str:
    """The last complaint of a child process, which is the first cause where it is ssh's, else how it ended."""
    if complaints:
        return complaints[-1]
    return f"the agent ended ({f'killed by signal {-code}' if code is not None and code < 0 else f'exit code {code}'})"


class Connection:
    """One agent, started and listening.

    Args:
        command: starts a Python that reads the agent from its standard input (see `agent_file`).
        silence_s: see `SILENCE_S`.
        start_s: see `START_S`.
        explain: says why the command ended, of its exit code and the lines of its standard error.

    Raises:
        ConnectionLost: the command cannot be started, or starts no agent.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        silence_s: float = SILENCE_S,
        start_s: float = START_S,
        explain: Callable[[int | None, Sequence[str]], str] = why_it_ended,
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
        self._complaints: deque[str] = deque(maxlen=20)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = [
            _read(self._process.stdout, self._answers.put, self._answers),
            _read(self._process.stderr, lambda line: self._complaints.append(line.decode(errors="replace"))),
        ]
        content = agent_file()
        announcement = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        self._write(json.dumps(announcement).encode() + b"\n" + content)
        self._next_message(start_s)

    @property
    def pid(self) -> int:
        """Of the child process at this end."""
        return self._process.pid

    def ask(self, op: str, **request: Any) -> dict[str, Any]:
        """See `Link`."""
        self._write(json.dumps({"op": op, **request}).encode() + b"\n")
        while True:
            message = self._next_message(self._silence_s)
            if "refused" in message:
                raise Refused(**message["refused"])
            if "ok" in message:
                answer: dict[str, Any] = message["ok"]
                return answer

    def send(self, files: ModelFiles) -> str:
        """See `Link`; in pieces, each of them acknowledged."""
        for part in files.parts:
            with part.path.open("rb") as file:
                piece = file.read(PIECE_BYTES)
                self.ask("put", key=files.key, name=part.name, data=base64.b64encode(piece).decode(), first=True)
                while piece := file.read(PIECE_BYTES):
                    self.ask("put", key=files.key, name=part.name, data=base64.b64encode(piece).decode(), first=False)
        return str(self.ask("keep", key=files.key, files=[(part.name, part.sha256) for part in files.parts])["path"])

    def close(self) -> None:
        """Hang up: the agent removes what it has written and ends."""
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
        deadline = threading.Timer(self._silence_s, self._process.kill)  # nobody may be reading at the other end
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
        return self._explain(self._process.returncode, [line.strip() for line in self._complaints if line.strip()])


def _read(stream: IO[bytes], take: Any, end: queue.SimpleQueue[bytes | None] | None = None) -> threading.Thread:
    """Hands each line on, from a thread of its own; the end of the stream too, where it is asked for."""

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
    """Close its input, and end it if that does not."""
    try:
        if process.stdin is not None:
            process.stdin.close()
    except BrokenPipeError:  # what was still to be sent is of no use to anybody
        process.kill()
    try:
        process.wait(GOODBYE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
