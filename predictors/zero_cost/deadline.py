"""A limit on the time that a computation in torch may take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class TimedOut(Exception):
    """A computation took longer than its limit."""


class Deadline(TorchDispatchMode):
    """Stops the block at the first operation of torch after `limit_s` seconds.

    Raises:
        TimedOut: the limit has passed.
    """

    def __init__(self, limit_s: float) -> None:
        super().__init__()
        self._limit_s = limit_s
        self._end = time.perf_counter() + limit_s

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if time.perf_counter() > self._end:
            raise TimedOut(f"longer than {self._limit_s:g} s")
        return func(*args, **(kwargs or {}))
