"""How long work shows that it goes on, without knowing who watches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Track(Protocol):
    """Wraps the steps of a long loop; the roof draws a bar or prints plain lines."""

    def __call__(self, steps: Iterable[T], description: str, total: int, *, done: int = 0) -> Iterator[T]:
        """The same steps, in order. `total` counts all of the work, `done` what an earlier process finished."""
        ...


def silent(steps: Iterable[T], description: str, total: int, *, done: int = 0) -> Iterator[T]:
    """Shows nothing."""
    yield from steps
