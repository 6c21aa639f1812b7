"""The error of a request that the device cannot fulfil."""

from __future__ import annotations

import re
from typing import Any, Iterable  # noqa: UP035 - Python 3.8


class Refused(Exception):
    """A request that cannot be fulfilled; the host raises it as its own error, with the same fields.

    Args:
        where: the file or key that is wrong.
        problem: what is wrong with it, in one clause.
        allowed: the allowed values.
        given: the requested value, for the nearest spelling.
        code: the kind of error, one of those of the host's `UserError`.
    """

    def __init__(
        self,
        where: str,
        problem: str,
        allowed: Iterable[Any] | None = None,
        given: Any = None,
        code: str | None = None,
    ) -> None:
        self.fields: dict[str, Any] = {
            "where": where,
            "problem": problem,
            "allowed": None if allowed is None else [str(one) for one in allowed],
            "given": None if given is None else str(given),
            "code": code,
        }
        super().__init__(f"{where}: {problem}")


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


_CUSTOM = re.compile(r"([\w.\-]+):(\w+)\(-?\d+\) is not a registered function/op")
_NEWER = re.compile(r"No Op registered for (\w+) with domain_version of (\d+)")


def not_loaded(onnx_file: str, said: str) -> Refused:
    """The error of a file that ONNX Runtime does not load, from its message."""
    custom, newer = _CUSTOM.search(said), _NEWER.search(said)
    if custom:
        unknown = f"{custom[2]} of the domain {custom[1]}"
    elif newer:
        unknown = f"{newer[1]} (ONNX opset {newer[2]})"
    else:
        return Refused(onnx_file, f"not an ONNX file that can be run ({said})", code="unreadable")
    problem = f"ONNX Runtime on this device does not support its operator {unknown}"
    return Refused(onnx_file, problem, code="unsupported")
