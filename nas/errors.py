"""Errors that users see: one line that starts with the offending key or file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Literal

from espalier.nas.limits import MESSAGE

Code = Literal[
    "invalid",
    "unknown",
    "missing",
    "not_found",
    "unreadable",
    "out_of_range",
    "conflict",
    "mismatch",
    "too_few",
    "unsupported",
    "unavailable",
    "user_code",
    "infeasible",
    "failed",
    "busy",
    "not_writable",
]
"""The kind of an error, for programs; see `UserError` for the meanings."""
MAX_LISTED = 20
"""How many allowed values a message lists."""
LONGEST_NAME = 100
"""Characters of a given value that are compared with the allowed ones."""


def shortened(text: str, most: int) -> str:
    """A text of at most so many characters: a longer one without its middle."""
    half = (most - 5) // 2
    return text if len(text) <= most else f"{text[:half]} ... {text[-half:]}"


def printable(text: str) -> str:
    r"""A text whose control characters, and bytes that are no UTF-8, are written out as `\x1b`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


class UserError(Exception):
    """Invalid input. The command line prints it as one line and exits with code 2.

    Programs tell errors apart by `code` and `where`; the sentence may be reworded at any time.

    | code | meaning |
    |---|---|
    | `invalid` | a value of the wrong form or type |
    | `unknown` | a name, key or option that does not exist |
    | `missing` | something required was not given |
    | `not_found` | no such file, folder or device |
    | `unreadable` | a file that cannot be read, is damaged, or is of another format |
    | `out_of_range` | a number outside what is allowed |
    | `conflict` | two settings that cannot be combined |
    | `mismatch` | two things that do not belong together, such as weights of another network |
    | `too_few` | too few images, classes, samples or measurements |
    | `unsupported` | valid, but nothing here can do it |
    | `unavailable` | a library, provider, device or service that is not there or does not answer |
    | `user_code` | code of the user's raised an error, or is not what its role asks for |
    | `infeasible` | no result meets the limits |
    | `failed` | an operation that went wrong, such as a training that diverged or an export |
    | `busy` | another process is using it |
    | `not_writable` | a file or folder cannot be written |

    Args:
        where: the dotted path of the key (`search.sampler`) or the path of the file that is wrong.
        problem: what is wrong with it, in one clause.
        code: the kind of error; `unknown` where `allowed` values are listed, else `invalid`, unless given.
        allowed: the allowed values; listed, and searched for the spelling nearest to `given`.
        given: what the user wrote, for the nearest spelling.
    """

    def __init__(
        self,
        where: str,
        problem: str,
        *,
        code: Code | None = None,
        allowed: Iterable[object] | None = None,
        given: object = None,
    ) -> None:
        self.where = where
        self.problem = problem
        self.given = given
        self.code: Code = code or ("invalid" if allowed is None else "unknown")
        self.allowed = None if allowed is None else tuple(str(a) for a in allowed)
        near = (
            difflib.get_close_matches(str(given)[:LONGEST_NAME], self.allowed or (), n=1, cutoff=0.5)
            if given is not None
            else []
        )
        self.nearest = near[0] if near else None
        super().__init__(self._line())

    def below(self, section: str) -> UserError:
        """The same error of a key inside `section`."""
        return self.at(f"{section}.{self.where}")

    def at(self, where: str) -> UserError:
        """The same error for another key or file."""
        return UserError(where, self.problem, code=self.code, allowed=self.allowed, given=self.nearest)

    def _line(self) -> str:
        line = f"{shortened(self.where, MESSAGE // 5)}: {shortened(self.problem, MESSAGE // 2)}"
        if self.allowed is not None:
            listed = ", ".join(self.allowed[:MAX_LISTED]) or "(nothing)"
            line += f"; allowed: {shortened(listed, MESSAGE // 2)}"
            line += f" and {more} more" if (more := len(self.allowed) - MAX_LISTED) > 0 else ""
        if self.nearest is not None:
            line += f"; did you mean {shortened(self.nearest, MESSAGE // 10)!r}?"
        return printable(" ".join(line.split()))


class CannotWrite(UserError):
    """A file or folder cannot be written: the disk is full, or permission is denied. The run cannot continue.

    Args:
        path: the file or folder.
        error: what the operating system reported.
    """

    def __init__(self, path: object, error: OSError) -> None:
        super().__init__(str(path), f"cannot be written: {error.strerror or error}", code="not_writable")
