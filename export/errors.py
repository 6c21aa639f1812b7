"""The error of a network that cannot be exported."""

from __future__ import annotations

import re
from collections.abc import Iterable

from espalier.nas.errors import Code, UserError

LONGEST = 300
"""Characters of another program's message that are quoted."""


class ExportError(UserError):
    """A network could not be written in another form, or the written file does not compute the same numbers.

    Args:
        where: see `UserError`.
        problem: see `UserError`.
        code: see `UserError`.
        allowed: see `UserError`.
        given: see `UserError`.
    """

    def __init__(
        self,
        where: str,
        problem: str,
        *,
        code: Code = "failed",
        allowed: Iterable[object] | None = None,
        given: object = None,
    ) -> None:
        super().__init__(where, problem, code=code, allowed=allowed, given=given)


def reason(error: BaseException) -> str:
    """One line about `error`: its type and first line, and those of its root cause, if there is one."""
    text = _first_line(error)
    cause = error.__cause__
    while cause is not None and cause.__cause__ is not None:
        cause = cause.__cause__
    if cause is None:
        return text
    # torch's exporter wraps every cause in the same sentence about its steps.
    return _first_line(cause) if type(error).__name__ == "TorchExportError" else f"{text} (from {_first_line(cause)})"


def _first_line(error: BaseException) -> str:
    # The `where` of a UserError may be a temporary file that no longer exists when the line is read.
    text = error.problem if isinstance(error, UserError) else str(error)
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)  # torch colours some messages for a terminal
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:LONGEST]}" if lines else type(error).__name__
