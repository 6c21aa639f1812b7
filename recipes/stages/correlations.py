"""Rank correlations as JSON."""

from __future__ import annotations

import math
from typing import Any

from predictors.ranking import RankCorrelation


def correlation_row(name: str, correlation: RankCorrelation) -> dict[str, Any]:
    """One row of a table of predictors; a correlation that is not defined is null."""
    return {
        "name": name,
        "n": correlation.n,
        "kendall": _number(correlation.kendall),
        "kendall_ci95": [_number(bound) for bound in correlation.kendall_interval],
        "spearman": _number(correlation.spearman),
        "spearman_ci95": [_number(bound) for bound in correlation.spearman_interval],
        "not_finite": correlation.not_finite,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
