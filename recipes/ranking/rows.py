"""Rank correlations of predictors with what came true, as rows of JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from predictors.ranking import RankCorrelation, partial_spearman, rank_correlation
from recipes.ranking.values import Column

TOP = 0.1
"""The share of the best architectures that is looked at by itself: there most predictors know nothing."""
SIZE = "params"
"""What predictors are compared with given equal ranks of: many of them only count weights."""


def correlation_row(
    name: str, predicted: Sequence[float], actual: Sequence[float], *, higher_is_better: bool, seed: int
) -> dict[str, Any]:
    """One row of a table of predictors; a correlation that is not defined is null."""
    correlation = rank_correlation(predicted, actual, higher_is_better=higher_is_better, seed=seed)
    return {"name": name, "n": correlation.n, **_numbers(correlation), "not_finite": correlation.not_finite}


def ranking_rows(columns: Mapping[str, Column], targets: Sequence[float], *, seed: int) -> list[dict[str, Any]]:
    """A row for each predictor, best Spearman first: over all architectures, and over the best tenth of them.

    `spearman_given_params` is the partial correlation of ranks with those of the parameter count held equal.
    """
    order = np.argsort(targets)[::-1]
    top = order[: max(1, round(TOP * len(targets)))]
    rows = []
    for name, column in columns.items():
        numbers = column.numbers
        row = correlation_row(name, numbers, targets, higher_is_better=column.higher_is_better, seed=seed)
        row["higher_is_better"] = column.higher_is_better
        row["statuses"] = dict(Counter(value.status for value in column.values))
        if SIZE in columns and name != SIZE:
            upwards = [v if column.higher_is_better else -v for v in numbers]
            row["spearman_given_params"] = finite(partial_spearman(upwards, targets, columns[SIZE].numbers))
        if len(top) > 1:
            row["top"] = correlation_row(
                name,
                [numbers[i] for i in top],
                [targets[i] for i in top],
                higher_is_better=column.higher_is_better,
                seed=seed,
            )
        rows.append(row)
    return sorted(rows, key=lambda row: -math.inf if row["spearman"] is None else row["spearman"], reverse=True)


def _numbers(correlation: RankCorrelation) -> dict[str, Any]:
    return {
        "kendall": finite(correlation.kendall),
        "kendall_ci95": [finite(bound) for bound in correlation.kendall_interval],
        "spearman": finite(correlation.spearman),
        "spearman_ci95": [finite(bound) for bound in correlation.spearman_interval],
    }


def finite(value: float) -> float | None:
    """The number for JSON, null where it is not finite."""
    return value if math.isfinite(value) else None
