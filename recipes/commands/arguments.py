"""Checks of arguments that several commands share."""

from __future__ import annotations

from collections.abc import Mapping

from espalier.nas.errors import UserError


def reject(arguments: Mapping[str, object], problem: str) -> None:
    """Raises UserError for the first of the arguments that is given, that is, not None."""
    for name, value in arguments.items():
        if value is not None:
            raise UserError(name, problem, code="conflict")
