"""Candidates read back from a study: a database may have been edited, and what is impossible is not believed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from espalier.nas.errors import UserError
from espalier.nas.search.candidate import Candidate

STATUSES = ("complete", "infeasible", "failed")


def stored_candidate(trial: int, record: Mapping[str, Any], values: Sequence[float] | None, where: str) -> Candidate:
    """The candidate of a stored trial.

    Args:
        trial: the number of the trial.
        record: what `Candidate.to_record` returned.
        values: of the trial's objectives; None for a trial without any.
        where: the file or the database, for the error.

    Raises:
        UserError: it is not the record of a candidate, or a value is impossible.
    """
    try:
        found = Candidate.from_record(trial, record)
        problem = _problem(found, values)
    except (UserError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            where, f"trial {trial} is not the record of a candidate ({error})", code="unreadable"
        ) from error
    if problem:
        raise UserError(where, f"trial {trial}: {problem}", code="unreadable")
    return found


def _problem(candidate: Candidate, values: Sequence[float] | None) -> str:
    """What cannot be in a candidate; empty if it can."""
    if candidate.status not in STATUSES:
        return f"unknown status {candidate.status!r}"
    for name, value in candidate.values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return f"{name} is {value!r}, must be a finite number"
    if values is not None and not set(values) <= set(candidate.values.values()):
        return "its record and its values differ"
    return ""
