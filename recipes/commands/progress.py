"""What a person sees while work goes on: bars in a terminal or a notebook, log lines elsewhere.

Log lines go to the logger `espalier`, at the level INFO. `logging.getLogger("espalier").setLevel(logging.WARNING)`
turns lines and bars off. Nothing is ever printed to standard output.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TypeVar

T = TypeVar("T")

LOGGER = logging.getLogger("espalier")
LINE_EVERY_S = 5.0
"""Seconds between two log lines of one loop."""


def announce(line: str) -> None:
    """A line of news."""
    if not _is_interactive():
        LOGGER.info(line)
        return
    from rich.console import Console

    Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)


def track(steps: Iterable[T], description: str, total: int, *, done: int = 0) -> Iterator[T]:
    """The steps, with a bar or with a log line every few seconds (see `espalier.nas.progress.Track`)."""
    return (_bar if _is_interactive() else _lines)(steps, description, total, done)


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Shows that one long step is going on."""
    if not _is_interactive():
        LOGGER.info(text)
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


def _is_interactive() -> bool:
    """Whether somebody watches who has not turned progress off."""
    if LOGGER.level > logging.INFO:
        return False
    return (sys.stderr is not None and sys.stderr.isatty()) or _in_notebook()


def _in_notebook() -> bool:
    """Whether this is a notebook that can show a bar that moves, for which rich needs ipywidgets."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return type(shell).__name__ == "ZMQInteractiveShell" and find_spec("ipywidgets") is not None


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
            LOGGER.info("  %s: %d/%d", description, count, total)
