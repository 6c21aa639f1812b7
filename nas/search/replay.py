"""Searches over a table of what architectures reach: seconds instead of GPU years."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from espalier.nas.architecture import Architecture
from espalier.nas.measurement import Estimate
from espalier.nas.objective import Evaluator


class VirtualClock:
    """Seconds that pass when something is looked up, and not otherwise. Calling it tells the time."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds


def replay(
    name: str,
    direction: Literal["maximize", "minimize"],
    table: Mapping[Architecture, tuple[float, float]],
    clock: VirtualClock,
) -> Evaluator:
    """An evaluator that looks a value up, and lets the time pass that the evaluation took.

    Args:
        name, direction: of the evaluator.
        table: value and seconds of each architecture.
        clock: the one that the search is given, so that its candidates carry the table's seconds.

    Returns:
        The evaluator; it fails for an architecture that is not in the table.
    """

    def look_up(architecture: Architecture) -> Estimate:
        upwards = direction == "maximize"
        if architecture not in table:
            return Estimate(name, math.nan, "", upwards, status="failed", reason="not in the table")
        value, seconds = table[architecture]
        clock.advance(seconds)
        return Estimate(name, value, "", upwards)

    return Evaluator(name, direction, look_up)
