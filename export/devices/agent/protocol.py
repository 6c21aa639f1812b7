"""What an agent says: its answers, and that it is alive."""

from __future__ import annotations

import json
import time
from typing import Any

SIGN_OF_LIFE_S = 2.0


class Speaker:
    """Says JSON lines, and signs of life between them where there is nothing else to say for a while.

    Args:
        out: where to.
    """

    def __init__(self, out: Any) -> None:
        self._out = out
        self._last = time.monotonic()

    def alive(self) -> None:
        """To be called now and then."""
        if time.monotonic() - self._last > SIGN_OF_LIFE_S:
            self.say({"alive": True})

    def say(self, message: dict[str, Any]) -> None:
        """One line."""
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()
        self._last = time.monotonic()
