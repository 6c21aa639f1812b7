"""Types of the options that elastic spaces have in common."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt

Number = TypeVar("Number", bound=float)


def increasing(values: tuple[Number, ...]) -> tuple[Number, ...]:
    """The values themselves.

    Raises:
        ValueError: one is not larger than the one before.
    """
    if any(a >= b for a, b in pairwise(values)):
        raise ValueError(f"must increase, each smaller one being a part of the next: {list(values)}")
    return values


Sizes = Annotated[tuple[PositiveInt, ...], Field(min_length=1), AfterValidator(increasing)]
"""Sizes to choose from, the smallest first."""
Factors = Annotated[tuple[PositiveFloat, ...], Field(min_length=1), AfterValidator(increasing)]
"""Factors to choose from, the smallest first."""
