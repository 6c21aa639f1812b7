"""Simulated searches on a benchmark table, which take seconds instead of GPU years."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from espalier.nas.architecture import Architecture
from espalier.nas.measurement import Estimate
from espalier.nas.objective import Evaluator


class VirtualClock:
    """A clock that advances only when a value is looked up. Calling it returns the time in seconds."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Advance the clock."""
        self._now += seconds


def replay(
    name: str,
    direction: Literal["maximize", "minimize"],
    table: Mapping[Architecture, tuple[float, float]],
    clock: VirtualClock,
) -> Evaluator:
    """An evaluator that looks values up, and advances a clock by the time that the evaluation took.

    Args:
        name: of the evaluator.
        direction: of the evaluator.
        table: value and seconds of each architecture.
        clock: must also be the clock of the search, so that candidates have the table's seconds.

    Returns:
        The evaluator; it fails for architectures that are not in the table.
    """

    def look_up(architecture: Architecture) -> Estimate:
        upwards = direction == "maximize"
        if architecture not in table:
            return Estimate(name, math.nan, "", upwards, status="failed", reason="not in the table")
        value, seconds = table[architecture]
        clock.advance(seconds)
        return Estimate(name, value, "", upwards)

    return Evaluator(name, direction, look_up)
