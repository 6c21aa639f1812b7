"""How well predictors rank what came true, as rows of JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from espalier.predictors.ranking import RankCorrelation, Statistic, partial_spearman, ranking_quality
from espalier.recipes.engine.ranking.prediction_cache import Column

BASELINES = ("params", "macs")
"""Always among the rows: a predictor that does not beat them knows nothing but the size."""
SIZE = "params"
"""What predictors are compared with given equal ranks of: many of them only count weights."""


def correlation_row(
    name: str, predicted: Sequence[float], actual: Sequence[float], *, higher_is_better: bool, seed: int
) -> dict[str, Any]:
    """One row of a table of predictors; what is not defined is null. Intervals cover 95 %, by bootstrap.

    `among_best` has the correlations among the best share of the architectures alone, `precision` the share of the
    predicted best k that are among the true best k, `regret` how far the predicted best is behind the best, and
    `best_of_random` the number of random architectures whose best is expected to be as good as the predicted best.
    """
    quality = ranking_quality(predicted, actual, higher_is_better=higher_is_better, seed=seed)
    return {
        "name": name,
        **_correlation(quality.all),
        "among_best": {f"{share:.0%}": _correlation(one) for share, one in quality.top.items()},
        "precision": {
            f"{share:.0%}": {"k": one.k, **_statistic("value", one)} for share, one in quality.precision.items()
        },
        **_statistic("regret", quality.regret),
        **_statistic("best_of_random", quality.best_of_random),
    }


def ranking_rows(columns: Mapping[str, Column], targets: Sequence[float], *, seed: int) -> list[dict[str, Any]]:
    """A row for each predictor, best Spearman first.

    `spearman_given_params` is the partial correlation of ranks with those of the parameter count held equal.
    """
    rows = []
    for name, column in columns.items():
        numbers = column.numbers
        row = correlation_row(name, numbers, targets, higher_is_better=column.higher_is_better, seed=seed)
        row["higher_is_better"] = column.higher_is_better
        row["statuses"] = dict(Counter(value.status for value in column.values))
        if SIZE in columns and name != SIZE:
            upwards = [v if column.higher_is_better else -v for v in numbers]
            row["spearman_given_params"] = finite(partial_spearman(upwards, targets, columns[SIZE].numbers))
        rows.append(row)
    return sorted(rows, key=lambda row: -math.inf if row["spearman"] is None else row["spearman"], reverse=True)


def _correlation(correlation: RankCorrelation) -> dict[str, Any]:
    return {
        "n": correlation.n,
        "kendall": finite(correlation.kendall),
        "kendall_ci95": [finite(bound) for bound in correlation.kendall_interval],
        "spearman": finite(correlation.spearman),
        "spearman_ci95": [finite(bound) for bound in correlation.spearman_interval],
        "not_finite": correlation.not_finite,
    }


def _statistic(name: str, statistic: Statistic) -> dict[str, Any]:
    return {name: finite(statistic.value), f"{name}_ci95": [finite(bound) for bound in statistic.interval]}


def finite(value: float) -> float | None:
    """The number for JSON, null where it is not finite."""
    return value if math.isfinite(value) else None
