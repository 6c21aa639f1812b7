"""Rank correlations of predictors with accuracies, as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from predictors.ranking import rank_correlation
from recipes.context import Context


def correlation_row(
    context: Context, name: str, predicted: Sequence[float], actual: Sequence[float], *, higher_is_better: bool
) -> dict[str, Any]:
    """One row of a table of predictors; a correlation that is not defined is null."""
    seed = context.seed("bootstrap")
    correlation = rank_correlation(predicted, actual, higher_is_better=higher_is_better, seed=seed)
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
