"""The agent's loop: a JSON object a line in, `{"op": ..., ...}`; one out, `{"ok": ...}` or `{"refused": ...}`.

While a request is worked on, `{"alive": true}` says now and then that it still is.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Callable  # noqa: UP035 - Python 3.8

from export.devices.agent.errors import Refused
from export.devices.agent.lock import whole_device
from export.devices.agent.rounds import time_round
from export.devices.agent.session import provider_name, runtime
from export.devices.agent.store import Store
from export.devices.agent.system import fingerprint

SIGN_OF_LIFE_S = 2.0
LOCK_WAIT_S = 600.0

TIMED: dict[str, Callable[[dict[str, Any], Callable[[], None]], dict[str, Any]]] = {"round": time_round}
"""Requests that need the device for themselves."""


class Agent:
    """One connection.

    Args:
        folder: of this connection, removed at its end. out: where answers go.
    """

    def __init__(self, folder: Path, out: Any) -> None:
        self._store = Store(folder)
        self._out = out
        self._last_sign = time.monotonic()

    def serve(self, lines: Any) -> None:
        """Answer until the host hangs up."""
        try:
            for line in lines:
                self._say(self._answer(json.loads(line)))
        except (BrokenPipeError, KeyboardInterrupt):
            return  # the host is gone, or wants us gone
        finally:
            self._store.clear()

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
            with whole_device(LOCK_WAIT_S, self._alive):
                return TIMED[op](request, self._alive)
        if op == "fingerprint":
            return fingerprint(provider_name(request["provider"]), runtime().__version__)
        if op == "providers":
            return {"providers": runtime().get_available_providers()}
        if op == "has":
            return self._store.has(**request)
        if op == "put":
            return self._store.put(**request)
        raise Refused("device", f"its agent knows no {op!r}")

    def _alive(self) -> None:
        if time.monotonic() - self._last_sign > SIGN_OF_LIFE_S:
            self._say({"alive": True})

    def _say(self, message: dict[str, Any]) -> None:
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()
        self._last_sign = time.monotonic()


def main(folder: str) -> None:
    """Serve the host at the other end of the standard streams; whatever libraries print goes to standard error."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: sys.exit(0))
    Agent(Path(folder), out).serve(sys.stdin)
