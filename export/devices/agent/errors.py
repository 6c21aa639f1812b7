"""What a device says it cannot do."""

from __future__ import annotations

from typing import Any, Iterable  # noqa: UP035 - Python 3.8


class Refused(Exception):
    """A request that cannot be met; the host raises it as its own error, with the same fields.

    Args:
        where: the file or key that is wrong. problem: what is wrong with it, in one clause.
        allowed: what would do. given: what was asked for, for the nearest spelling.
    """

    def __init__(self, where: str, problem: str, allowed: Iterable[Any] | None = None, given: Any = None) -> None:
        self.fields: dict[str, Any] = {
            "where": where,
            "problem": problem,
            "allowed": None if allowed is None else [str(one) for one in allowed],
            "given": None if given is None else str(given),
        }
        super().__init__(f"{where}: {problem}")


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
