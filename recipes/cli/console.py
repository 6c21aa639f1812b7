"""What a person sees while work goes on: bars on a terminal, plain lines elsewhere. All on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

LINE_EVERY_S = 5.0
"""Seconds between two plain lines of one loop."""


def announce(line: str) -> None:
    """A line of news."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - this is the place that prints


def track(steps: Iterable[T], description: str, total: int, *, done: int = 0) -> Iterator[T]:
    """The steps, with a bar on a terminal or a line every few seconds elsewhere (see `espalier.nas.progress.Track`)."""
    return (_bar if sys.stderr.isatty() else _lines)(steps, description, total, done)


def _bar(steps: Iterable[T], description: str, total: int, done: int) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(description, total=total, completed=done)
        for step in steps:
            yield step
            progress.advance(task)


def _lines(steps: Iterable[T], description: str, total: int, done: int) -> Iterator[T]:
    last = time.monotonic()
    for count, step in enumerate(steps, start=done + 1):
        yield step
        if time.monotonic() - last >= LINE_EVERY_S:
            last = time.monotonic()
            announce(f"  {description}: {count}/{total}")


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Shows that one long step goes on: a spinner on a terminal, a line elsewhere."""
    if not sys.stderr.isatty():
        announce(text)
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield
