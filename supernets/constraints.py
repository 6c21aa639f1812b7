"""Spaces with constraints, in which not every combination of options is an architecture."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from espalier.nas.errors import UserError
from espalier.nas.gates import Gates, Mixture
from espalier.nas.space import SearchSpace

MAX_DRAWS = 1_000
"""After so many rejected draws the constraints are taken to be unsatisfiable."""

T = TypeVar("T")


def satisfies_constraints(space: SearchSpace, gates: Gates) -> bool:
    """Whether a path is an architecture of the space. Gates with a mixture always satisfy the constraints."""
    path = {name: gate for name, gate in gates.items() if not isinstance(gate, Mixture)}
    return len(path) < len(gates) or space.contains(space.architecture(path))


def rejection_sample(draw: Callable[[], T], fits: Callable[[T], bool], *, where: str, problem: str) -> T:
    """Draw until `fits` accepts the result: gates, or several of them.

    Args:
        draw: makes a draw.
        fits: whether to accept it.
        where: of the error.
        problem: of the error: what is impossible.

    Raises:
        UserError: none of `MAX_DRAWS` draws is accepted.
    """
    for _ in range(MAX_DRAWS):
        if fits(drawn := draw()):
            return drawn
    problem = f"{problem}: none of {MAX_DRAWS:,} draws satisfies the constraints of the space"
    raise UserError(where, problem, code="infeasible")
