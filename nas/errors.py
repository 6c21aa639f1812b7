"""The one kind of error a user is meant to see: its first cause, in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST_LISTED = 20
"""Allowed values that are written out; a longer list helps nobody."""


class UserError(Exception):
    """Something the user gave cannot be used. The command line prints it as one line and exits with code 2.

    Args:
        where: the dotted path of the key (`search.sampler`) or the path of the file that is wrong.
        problem: what is wrong with it, in one clause.
        allowed: the values that would do; listed, and searched for the spelling nearest to `given`.
        given: what the user wrote, for the nearest spelling.
    """

    def __init__(
        self, where: str, problem: str, *, allowed: Iterable[object] | None = None, given: object = None
    ) -> None:
        self.where = where
        self.problem = problem
        self.allowed = None if allowed is None else tuple(str(a) for a in allowed)
        near = difflib.get_close_matches(str(given), self.allowed or (), n=1, cutoff=0.5) if given is not None else []
        self.nearest = near[0] if near else None
        super().__init__(self._line())

    def _line(self) -> str:
        line = f"{self.where}: {self.problem}"
        if self.allowed is not None:
            line += f"; allowed: {', '.join(self.allowed[:MOST_LISTED]) or '(nothing)'}"
            line += f" and {more} more" if (more := len(self.allowed) - MOST_LISTED) > 0 else ""
        if self.nearest is not None:
            line += f"; did you mean {self.nearest!r}?"
        return " ".join(line.split())


class CannotWrite(UserError):
    """A file or folder cannot be written: the disk is full, or it is not ours. Nothing can go on after it."""

    def __init__(self, path: object, error: OSError) -> None:
        super().__init__(str(path), f"cannot be written: {error.strerror or error}")
