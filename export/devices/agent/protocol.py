"""The messages of an agent: answers and signs of life."""

from __future__ import annotations

import json
import time
from typing import Any

SIGN_OF_LIFE_S = 2.0


class MessageWriter:
    """Writes messages as JSON lines, and signs of life if there has been no message for a while.

    Args:
        out: the stream to write to.
    """

    def __init__(self, out: Any) -> None:
        self._out = out
        self._last = time.monotonic()

    def alive(self) -> None:
        """To be called regularly: sends a sign of life if one is due."""
        if time.monotonic() - self._last > SIGN_OF_LIFE_S:
            self.send({"alive": True})

    def send(self, message: dict[str, Any]) -> None:
        """Send one message."""
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()
        self._last = time.monotonic()
