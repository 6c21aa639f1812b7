"""How well predictors rank architectures by their true accuracy, as records."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from espalier.predictors import ranking
from espalier.predictors.ranking import Statistic, partial_spearman, ranking_quality
from espalier.recipes.engine.ranking.prediction_cache import Column
from espalier.recipes.records.base import Interval
from espalier.recipes.records.ranking import Correlation, Precision, RankCorrelation

BASELINES = ("params", "macs")
"""Always among the rows: a predictor that does not beat them only measures size."""
SIZE = "params"
"""Held equal in partial correlations: many predictors only measure the parameter count."""


def correlation_row(
    name: str, predicted: Sequence[float], actual: Sequence[float], *, higher_is_better: bool, seed: int
) -> Correlation:
    """One row of a table of predictors. Intervals cover 95 %, by bootstrap.

    Args:
        name: of the predictor.
        predicted: its values.
        actual: the true accuracies, in the same order.
        higher_is_better: the predictor's direction.
        seed: of the bootstrap.
    """
    quality = ranking_quality(predicted, actual, higher_is_better=higher_is_better, seed=seed)
    overall = _correlation(quality.all)
    return Correlation(
        **overall.model_dump(),
        name=name,
        higher_is_better=higher_is_better,
        among_best={f"{share:.0%}": _correlation(one) for share, one in quality.top.items()},
        precision={
            f"{share:.0%}": Precision(k=one.k, value=finite(one.value), value_ci95=_interval(one))
            for share, one in quality.precision.items()
        },
        regret=finite(quality.regret.value),
        regret_ci95=_interval(quality.regret),
        best_of_random=finite(quality.best_of_random.value),
        best_of_random_ci95=_interval(quality.best_of_random),
    )


def ranking_rows(columns: Mapping[str, Column], targets: Sequence[float], *, seed: int) -> list[Correlation]:
    """A row for each predictor, best Spearman first.

    Args:
        columns: the values of each predictor.
        targets: the true accuracies, in the same order.
        seed: of the bootstrap.
    """
    rows = []
    for name, column in columns.items():
        numbers = column.numbers
        row = correlation_row(name, numbers, targets, higher_is_better=column.higher_is_better, seed=seed)
        more: dict[str, object] = {"statuses": dict(Counter(value.status for value in column.values))}
        if SIZE in columns and name != SIZE:
            upwards = [v if column.higher_is_better else -v for v in numbers]
            more["spearman_given_params"] = finite(partial_spearman(upwards, targets, columns[SIZE].numbers))
        rows.append(row.model_copy(update=more))
    return sorted(rows, key=lambda row: -math.inf if row.spearman is None else row.spearman, reverse=True)


def _correlation(correlation: ranking.RankCorrelation) -> RankCorrelation:
    return RankCorrelation(
        n=correlation.n,
        kendall=finite(correlation.kendall),
        kendall_ci95=_bounds(correlation.kendall_interval),
        spearman=finite(correlation.spearman),
        spearman_ci95=_bounds(correlation.spearman_interval),
        not_finite=correlation.not_finite,
    )


def _interval(statistic: Statistic) -> Interval:
    return _bounds(statistic.interval)


def _bounds(interval: tuple[float, float]) -> Interval:
    low, high = interval
    return finite(low), finite(high)


def finite(value: float) -> float | None:
    """The number for JSON, None where it is not finite."""
    return value if math.isfinite(value) else None
