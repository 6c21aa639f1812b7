"""The name of a predictor in a recipe."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from espalier.nas.errors import UserError
from espalier.recipes.config.options import OWN_PATTERN, options_from_text
from espalier.recipes.config.registry import PREDICTORS, SCORES, members, own_score
from espalier.recipes.config.validation_errors import as_complaint


def check_predictor(name: str, *, where: str) -> None:
    """Checks that a predictor, or all that are joined by `+`, can be made: own ones are imported.

    Raises:
        UserError: there is no such predictor, or an own one has no such option or is not a predictor.
    """
    for part in members(name, where=where):
        if own_score(part) is not None:
            options_from_text(SCORES, part, where=where)


def _known(name: str) -> str:
    try:
        check_predictor(name, where="")
    except UserError as error:
        if error.where and not error.where.startswith("."):  # a file, not a key
            raise
        raise as_complaint(error) from error
    return name


PredictorName = Annotated[
    str,
    AfterValidator(_known),
    Field(
        json_schema_extra={
            "anyOf": [{"enum": list(PREDICTORS)}, {"pattern": r"^\w+(\+\w+)+$"}, {"pattern": OWN_PATTERN}]
        }
    ),
]
"""A predictor, or several joined by `+`, which are their rank ensemble; an own one may have options after a colon."""
