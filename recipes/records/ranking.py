"""Result of the stage `rank`, and correlations of predictors with true accuracies anywhere."""

from __future__ import annotations

from pydantic import Field

from espalier.recipes.records.base import Interval, Record


class RankCorrelation(Record):
    """Rank correlations of a predictor with an accuracy. None is what is not defined; intervals cover 95 %."""

    n: int
    """Architectures compared."""
    kendall: float | None
    """Kendall's tau-b."""
    kendall_ci95: Interval = None
    spearman: float | None
    """Spearman's rho."""
    spearman_ci95: Interval = None
    not_finite: int = 0
    """Architectures without a finite value, which are left out."""


class Precision(Record):
    """The share of the predicted best `k` that are among the true best k."""

    k: int
    value: float | None
    value_ci95: Interval = None


class Correlation(RankCorrelation):
    """How well one predictor ranks."""

    name: str
    higher_is_better: bool
    among_best: dict[str, RankCorrelation] = Field(default_factory=dict)
    """Correlations among the best share of the architectures alone, by share (`10%`)."""
    precision: dict[str, Precision] = Field(default_factory=dict)
    """By the share that is chosen."""
    regret: float | None = None
    """How far the predicted best is behind the best."""
    regret_ci95: Interval = None
    best_of_random: float | None = None
    """The number of random architectures whose best is expected to be as good as the predicted best."""
    best_of_random_ci95: Interval = None
    statuses: dict[str, int] = Field(default_factory=dict)
    """Number of values by status (`ok`, `nan`, `failed`, ...)."""
    spearman_given_params: float | None = None
    """Partial correlation of ranks, those of the parameter count held equal."""


class RankPoint(Record):
    """One architecture of a benchmark table."""

    id: str
    target: float
    values: dict[str, float | None]
    """What each predictor gave; values that are not finite are left out."""


class RankResult(Record):
    """How well predictors rank the architectures of a benchmark table."""

    table: str
    target: str
    """The table's column with the true accuracy."""
    samples: int
    sampling: str = ""
    """How the architectures were drawn, in words."""
    correlations: tuple[Correlation, ...]
    """Best Spearman first."""
    points: tuple[RankPoint, ...]
