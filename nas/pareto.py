"""Pareto dominance: at least as good in every objective, and better in one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def non_dominated(values: Sequence[Sequence[float]], directions: Sequence[str]) -> NDArray[np.bool_]:
    """Which points no other point dominates; equal points do not dominate each other.

    Args:
        values: finite, `(points, objectives)`.
        directions: `maximize` or `minimize` for each objective.

    Returns:
        A mask `(points,)`.
    """
    signs = np.array([1.0 if direction == "maximize" else -1.0 for direction in directions])
    points = np.asarray(values, dtype=np.float64).reshape(-1, len(signs)) * signs
    return np.array([not ((points >= p).all(axis=1) & (points > p).any(axis=1)).any() for p in points], dtype=bool)
