"""The error of a network that cannot be handed over."""

from __future__ import annotations

import re

from espalier.nas.errors import UserError


class ExportError(UserError):
    """A network could not be written in another form, or what was written does not compute the same numbers."""


def reason(error: BaseException) -> str:
    """One line of `error`: its type and first line, and those of the error that started it, where one did."""
    text = _first_line(error)
    cause = error.__cause__
    while cause is not None and cause.__cause__ is not None:
        cause = cause.__cause__
    return text if cause is None else f"{text} (from {_first_line(cause)})"


def _first_line(error: BaseException) -> str:
    # The place in a UserError may be a temporary file that is gone when the line is read.
    text = error.problem if isinstance(error, UserError) else str(error)
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)  # torch colours some messages for a terminal
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
