"""One timing at a time on a device: two at once would compete with each other."""

from __future__ import annotations

import errno
import socket
import sys
import time
from contextlib import contextmanager
from typing import Any, Callable, Iterator  # noqa: UP035 - Python 3.8

from espalier.export.devices.agent.errors import Refused

NAME = "\0espalier-timing"
"""In Linux's abstract namespace: it leaves no file, and is released when its process ends."""
POLL_S = 0.1


@contextmanager
def whole_device(wait_s: float, alive: Callable[[], Any]) -> Iterator[None]:
    """Hold the device exclusively, after waiting for other processes. Only on Linux and Android; elsewhere no lock.

    Args:
        wait_s: longest time to wait.
        alive: called while waiting.

    Raises:
        Refused: others have been timing for `wait_s`.
    """
    if sys.platform not in ("linux", "android"):
        yield
        return
    until = time.monotonic() + wait_s
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as holder:
        while not _bind(holder):
            if time.monotonic() > until:
                raise Refused("device", f"another process has been timing on it for {wait_s:g} s", code="busy")
            time.sleep(POLL_S)
            alive()
        yield


def _bind(holder: socket.socket) -> bool:
    try:
        holder.bind(NAME)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise
    return True
