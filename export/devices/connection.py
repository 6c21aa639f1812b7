"""A connection to an agent: JSON lines through the pipes of a child process, such as ssh."""

from __future__ import annotations

import hashlib
import json
import queue
import subprocess
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from typing import IO, Any

from export.devices.agent.errors import Refused
from export.devices.agent_file import agent_file

SILENCE_S = 300.0
"""Without a sign of life an agent is given up; between signs lies at most one run, or the loading of one file."""
GOODBYE_S = 5.0


class ConnectionLost(Exception):
    """The agent has hung up, died or fallen silent. The text says what is known of why."""


class Connection:
    """One agent, started and listening.

    Args:
        command: starts a Python that reads the agent from its standard input (see `agent_file`).
        silence_s: see `SILENCE_S`.

    Raises:
        ConnectionLost: the command cannot be started.
    """

    def __init__(self, command: Sequence[str], *, silence_s: float = SILENCE_S) -> None:
        self._silence_s = silence_s
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

    @property
    def pid(self) -> int:
        """Of the child process at this end."""
        return self._process.pid

    def ask(self, op: str, **request: Any) -> dict[str, Any]:
        """The agent's answer.

        Raises:
            Refused: by the agent. ConnectionLost: there is no answer.
        """
        self._write(json.dumps({"op": op, **request}).encode() + b"\n")
        while True:
            try:
                line = self._answers.get(timeout=self._silence_s)
            except queue.Empty:
                self.close()
                raise ConnectionLost(f"no sign of life for {self._silence_s:g} s") from None
            if line is None:
                raise ConnectionLost(self._why())
            message = json.loads(line)
            if "refused" in message:
                raise Refused(**message["refused"])
            if "ok" in message:
                answer: dict[str, Any] = message["ok"]
                return answer

    def close(self) -> None:
        """Hang up: the agent removes what it has written and ends."""
        self._finalizer()

    def _write(self, content: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(content)
            self._process.stdin.flush()
        except OSError as error:
            raise ConnectionLost(self._why()) from error

    def _why(self) -> str:
        """The last complaint of the child, which is the first cause where it is ssh's, else how it ended."""
        self.close()
        self._readers[1].join(GOODBYE_S)
        said = [line.strip() for line in self._complaints if line.strip()]
        return said[-1] if said else f"the agent ended ({_exit(self._process.returncode)})"


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


def _exit(code: int | None) -> str:
    return f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
