"""The agent's loop: reads requests `{"op": ..., ...}` as JSON lines, answers `{"ok": ...}` or `{"refused": ...}`.

It starts by sending `{"alive": true}`, and repeats it regularly while it works on a request.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, Iterator  # noqa: UP035 - Python 3.8

from espalier.export.devices.agent.errors import Refused
from espalier.export.devices.agent.fresh import in_fresh_process
from espalier.export.devices.agent.lock import whole_device
from espalier.export.devices.agent.operations import TIMED
from espalier.export.devices.agent.protocol import MessageWriter
from espalier.export.devices.agent.session import provider_name, runtime
from espalier.export.devices.agent.store import Store
from espalier.export.devices.agent.system import fingerprint

LOCK_WAIT_S = 600.0
GONE_S = 3.0
"""How long a run may continue after the host has disconnected."""


class Agent:
    """One connection.

    Args:
        folder: folder of this connection, removed when it ends.
        out: stream for the answers.
    """

    def __init__(self, folder: Path, out: Any) -> None:
        self._folder = folder
        self._store = Store(folder)
        self._writer = MessageWriter(out)

    def serve(self, lines: Any) -> None:
        """Answer until the host disconnects. A run that hangs is then ended together with the process."""
        try:
            self._writer.send({"alive": True})
            for line in self._until_hung_up(lines):
                self._writer.send(self._answer(json.loads(line)))
        except (BrokenPipeError, KeyboardInterrupt):
            return  # the host has disconnected, or asked the agent to stop
        finally:
            self._store.clear()

    def _until_hung_up(self, lines: Any) -> Iterator[str]:
        """The lines, read in a separate thread, so that their end is noticed while a request is being processed."""
        read: queue.SimpleQueue[str | None] = queue.SimpleQueue()

        def loop() -> None:
            for line in lines:
                read.put(line)
            read.put(None)
            time.sleep(GONE_S)
            self._store.clear()
            if hasattr(os, "getpgid") and os.getpgid(0) == os.getpid():
                os.killpg(0, signal.SIGKILL)  # together with the processes it has started
            os._exit(1)

        threading.Thread(target=loop, daemon=True).start()
        return iter(read.get, None)

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"ok": self.do(request.pop("op"), request)}
        except Refused as refused:
            return {"refused": refused.fields}

    def do(self, op: str, request: dict[str, Any]) -> dict[str, Any]:
        """Perform one request.

        Args:
            op: name of the operation.
            request: its arguments.

        Raises:
            Refused: it cannot be fulfilled.
        """
        if op in TIMED:
            request["folder"] = str(self._folder)
            wait_s = request.pop("lock_wait_s", LOCK_WAIT_S)
            with whole_device(wait_s, self._writer.alive, lambda text: self._writer.send({"waiting": text})):
                if request.pop("fresh", False):
                    return in_fresh_process(op, request, self._writer.alive)
                return TIMED[op](request, self._writer.alive)
        if op == "fingerprint":
            return fingerprint(provider_name(request["provider"]), runtime().__version__)
        if op == "providers":
            return {"providers": runtime().get_available_providers()}
        if op in ("put", "keep", "drop"):
            stored: dict[str, Any] = getattr(self._store, op)(**request)
            return stored
        raise Refused("device", f"its agent has no operation {op!r}", code="unknown")


def main(folder: str) -> None:
    """Serve the host at the other end of the standard streams; whatever libraries print goes to standard error."""
    if hasattr(os, "setpgid") and os.getpgid(0) != os.getpid():
        os.setpgid(0, 0)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: sys.exit(0))
    try:
        Agent(Path(folder), out).serve(sys.stdin)
    finally:
        if sys.exc_info()[0] not in (None, SystemExit):
            traceback.print_exc()  # the host reports its last line
        sys.stderr.flush()
        os._exit(0)  # the reading thread may still block on standard input, which a normal exit would wait for
