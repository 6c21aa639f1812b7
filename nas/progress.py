"""Showing the progress of long loops, whatever displays it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Track(Protocol):
    """Wraps the steps of a long loop, for instance to draw a progress bar."""

    def __call__(self, steps: Iterable[T], description: str, total: int, *, done: int = 0) -> Iterator[T]:
        """The same steps, in order.

        Args:
            steps: the steps that are left.
            description: what is being done.
            total: the number of all steps, those of earlier processes included.
            done: how many of them an earlier process finished.
        """
        ...


def silent(steps: Iterable[T], description: str, total: int, *, done: int = 0) -> Iterator[T]:
    """Shows nothing."""
    yield from steps
