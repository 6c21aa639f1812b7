"""Types of options that several elastic spaces have."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt

Number = TypeVar("Number", bound=float)


def increasing(values: tuple[Number, ...]) -> tuple[Number, ...]:
    """Check that values increase.

    Raises:
        ValueError: one is not larger than the one before.
    """
    if any(a >= b for a, b in pairwise(values)):
        raise ValueError(f"must increase, since each is a part of the next: {list(values)}")
    return values


def odd(values: tuple[int, ...]) -> tuple[int, ...]:
    """Check that values are odd.

    Raises:
        ValueError: one is even; a kernel of that size has no centre.
    """
    if any(value % 2 == 0 for value in values):
        raise ValueError(f"must be odd, so that kernels have a centre: {list(values)}")
    return values


Sizes = Annotated[tuple[PositiveInt, ...], Field(min_length=1), AfterValidator(increasing)]
"""Sizes to choose from, the smallest first."""
Factors = Annotated[tuple[PositiveFloat, ...], Field(min_length=1), AfterValidator(increasing)]
"""Factors to choose from, the smallest first."""
Kernels = Annotated[tuple[PositiveInt, ...], Field(min_length=1), AfterValidator(increasing), AfterValidator(odd)]
"""Kernel sizes to choose from, the smallest first."""
