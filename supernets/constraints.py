"""Spaces with constraints: not every combination of options is one of their architectures."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from espalier.nas.errors import UserError
from espalier.nas.gates import Gates, Mixture
from espalier.nas.space import SearchSpace

MOST_DRAWS = 1_000
"""After so many in vain, what is drawn for is taken to be impossible."""

T = TypeVar("T")


def keeps_constraints(space: SearchSpace, gates: Gates) -> bool:
    """Whether a path is an architecture of the space. A mixture is no single one, and nothing constrains it."""
    path = {name: gate for name, gate in gates.items() if not isinstance(gate, Mixture)}
    return len(path) < len(gates) or space.contains(space.architecture(path))


def first_fit(draw: Callable[[], T], fits: Callable[[T], bool], *, where: str, problem: str) -> T:
    """The first draw that fits: gates, or several of them.

    Raises:
        UserError: of `MOST_DRAWS` none does: `where` and `problem` say what follows from it.
    """
    for _ in range(MOST_DRAWS):
        if fits(drawn := draw()):
            return drawn
    problem = f"{problem}: none of {MOST_DRAWS:,} draws satisfies the constraints of the space"
    raise UserError(where, problem, code="infeasible")
