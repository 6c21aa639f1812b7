"""The agent's loop: a JSON object a line in, `{"op": ..., ...}`; one out, `{"ok": ...}` or `{"refused": ...}`.

It begins by saying `{"alive": true}`, and says so again now and then while a request is worked on.
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
from espalier.export.devices.agent.protocol import Speaker
from espalier.export.devices.agent.session import provider_name, runtime
from espalier.export.devices.agent.store import Store
from espalier.export.devices.agent.system import fingerprint

LOCK_WAIT_S = 600.0
GONE_S = 3.0
"""How long a run may go on when the host has hung up."""


class Agent:
    """One connection.

    Args:
        folder: of this connection, removed at its end.
        out: where answers go.
    """

    def __init__(self, folder: Path, out: Any) -> None:
        self._folder = folder
        self._store = Store(folder)
        self._speaker = Speaker(out)

    def serve(self, lines: Any) -> None:
        """Answer until the host hangs up. A run that hangs, and would never notice, is then ended with the process."""
        try:
            self._speaker.say({"alive": True})
            for line in self._until_hung_up(lines):
                self._speaker.say(self._answer(json.loads(line)))
        except (BrokenPipeError, KeyboardInterrupt):
            return  # the host is gone, or wants us gone
        finally:
            self._store.clear()

    def _until_hung_up(self, lines: Any) -> Iterator[str]:
        """The lines, read by a thread of its own, so that their end is seen while a request is worked on."""
        read: queue.SimpleQueue[str | None] = queue.SimpleQueue()

        def loop() -> None:
            for line in lines:
                read.put(line)
            read.put(None)
            time.sleep(GONE_S)
            self._store.clear()
            if hasattr(os, "getpgid") and os.getpgid(0) == os.getpid():
                os.killpg(0, signal.SIGKILL)  # with the processes that it has started
            os._exit(1)

        threading.Thread(target=loop, daemon=True).start()
        return iter(read.get, None)

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"ok": self.do(request.pop("op"), request)}
        except Refused as refused:
            return {"refused": refused.fields}

    def do(self, op: str, request: dict[str, Any]) -> dict[str, Any]:
        """What one request asks for.

        Raises:
            Refused: it cannot be met.
        """
        if op in TIMED:
            request["folder"] = str(self._folder)
            with whole_device(LOCK_WAIT_S, self._speaker.alive):
                if request.pop("fresh", False):
                    return in_fresh_process(op, request, self._speaker.alive)
                return TIMED[op](request, self._speaker.alive)
        if op == "fingerprint":
            return fingerprint(provider_name(request["provider"]), runtime().__version__)
        if op == "providers":
            return {"providers": runtime().get_available_providers()}
        if op in ("put", "keep", "drop"):
            stored: dict[str, Any] = getattr(self._store, op)(**request)
            return stored
        raise Refused("device", f"its agent knows no {op!r}")


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
            traceback.print_exc()  # the host tells its last line
        sys.stderr.flush()
        os._exit(0)  # the reading thread may still hold standard input, for which Python's own end would wait
