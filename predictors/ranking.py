"""How well a predictor ranks: rank correlations and the value of its choices, with intervals; nothing is dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from espalier.nas.errors import UserError
from espalier.predictors import ranking_samples as samples
from espalier.predictors.arrays import Floats
from espalier.predictors.ranking_samples import Levels

MIN_FOR_INTERVAL = 8
"""The fewest pairs for a bootstrap interval; three in perfect order would seem certain, with [1, 1]."""
TOP = (0.1, 0.2)
"""Shares of the best architectures to correlate within, where most predictors fail."""
CHOSEN = (0.05, 0.1)
"""Shares of the architectures that a predictor chooses, for its precision."""
AT_ONCE = 4_000_000
"""Elements of a matrix of resamples that are held in memory at a time."""


@dataclass(frozen=True)
class RankCorrelation:
    """Signed: positive where the predictor ranks as its direction promises. nan where it is not defined.

    Attributes:
        n: architectures compared, those with a prediction that is not finite included.
        kendall: Kendall's τ-b.
        spearman: Spearman's ρ, with mean ranks for ties.
        kendall_interval: percentile bootstrap over the architectures; nan below `MIN_FOR_INTERVAL` of them.
        spearman_interval: the same of Spearman's ρ.
        confidence: of the intervals.
        not_finite: predictions that were not finite, and so rank last together.
    """

    n: int
    kendall: float
    spearman: float
    kendall_interval: tuple[float, float]
    spearman_interval: tuple[float, float]
    confidence: float
    not_finite: int


@dataclass(frozen=True)
class Statistic:
    """A number with its percentile bootstrap interval, nan where they are not defined."""

    value: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Precision(Statistic):
    """How many of the chosen architectures are among the best.

    Attributes:
        k: architectures chosen.
        value: the share of them that are among the k best.
    """

    k: int


@dataclass(frozen=True)
class RankingQuality:
    """How well a predictor ranks; see `ranking_quality`.

    Attributes:
        all: the correlations over all architectures.
        top: the same among the best share of them, those tied with the last of these included.
        precision: by the share of architectures chosen.
        regret: the best outcome minus that of the predicted best (of tied ones the mean), in the outcome's unit.
        best_of_random: how many random architectures would have to be trained for the best of them to be expected as
            good as the predicted best; 1 where it is no better than a random one.
    """

    all: RankCorrelation
    top: Mapping[float, RankCorrelation]
    precision: Mapping[float, Precision]
    regret: Statistic
    best_of_random: Statistic


def rank_correlation(
    predicted: Sequence[float],
    actual: Sequence[float],
    *,
    higher_is_better: bool = True,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int,
) -> RankCorrelation:
    """Kendall's τ-b and Spearman's ρ between predictions and outcomes.

    A prediction that is not finite (nan or either infinity) ranks worst, tied with the others of its kind. Constant
    predictions have no ranks: nan, not 0; nor have two architectures a correlation. Bootstrap resamples that happen to
    be constant are left out of the interval.

    Args:
        predicted: the predictor's values.
        actual: the outcomes, higher is better (accuracy).
        higher_is_better: the direction of `predicted`; where False, it is turned around, so that a good predictor is
            always positive.
        confidence: of the intervals.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        UserError: the lengths differ, fewer than two pairs, or an outcome that is not finite.
    """
    comparison = _Comparison.of(predicted, actual, higher_is_better=higher_is_better, confidence=confidence)
    return comparison.correlation(lambda w: w, comparison.resampled(resamples, seed))


def ranking_quality(
    predicted: Sequence[float],
    actual: Sequence[float],
    *,
    higher_is_better: bool = True,
    top: Sequence[float] = TOP,
    chosen: Sequence[float] = CHOSEN,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int,
) -> RankingQuality:
    """`rank_correlation` over all architectures and among the best, and what choosing by the predictions is worth.

    Every number of a bootstrap resample is that of the resample itself: its own best tenth, its own best outcome. The
    intervals of `regret` and `best_of_random` hang on few architectures, and so are coarse.

    Args:
        predicted: the predictor's values.
        actual: the outcomes, higher is better (accuracy).
        higher_is_better: the direction of `predicted`.
        top: shares of the architectures, best by outcome, within which to correlate. A share s of n architectures is
            round(s n), at least one.
        chosen: shares of the architectures, best by prediction, whose precision to compute.
        confidence: of the intervals.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        UserError: as `rank_correlation`.
    """
    it = _Comparison.of(predicted, actual, higher_is_better=higher_is_better, confidence=confidence)
    w = it.resampled(resamples, seed)
    sizes = {share: max(1, round(share * it.n)) for share in (*top, *chosen)}
    return RankingQuality(
        all=it.correlation(lambda w: w, w),
        top={share: it.correlation(it.best(sizes[share]), w) for share in top},
        precision={share: it.precision(sizes[share], w) for share in chosen},
        regret=it.statistic(lambda w: samples.regret(it.a, it.b, w), w),
        best_of_random=it.statistic(it.best_of_random, w),
    )


def partial_spearman(predicted: Sequence[float], actual: Sequence[float], given: Sequence[float]) -> float:
    """Spearman's ρ of two quantities a, b with a third c held fixed: (ρ_ab - ρ_ac ρ_bc) / √((1 - ρ_ac²)(1 - ρ_bc²)).

    What a predictor knows beyond the third quantity, such as the number of parameters. nan where it is not defined:
    a constant, or one quantity that ranks exactly as the third. Values that are not finite rank worst.
    """
    values = (np.asarray(x, dtype=np.float64) for x in (predicted, actual, given))
    a, b, c = (Levels.of(np.where(np.isfinite(v), v, -np.inf)) for v in values)
    sample = np.ones((1, len(predicted)))
    ab, ac, bc = (float(samples.spearman(x, y, sample)[0]) for x, y in ((a, b), (a, c), (b, c)))
    rest = (1 - ac**2) * (1 - bc**2)
    return (ab - ac * bc) / rest**0.5 if rest > 1e-12 else float("nan")


Part = Callable[[Floats], Floats]
"""What is left of samples."""


@dataclass(frozen=True, eq=False)
class _Comparison:
    """Predictions `a`, turned so that higher is better, and outcomes `b` of the same architectures."""

    a: Levels
    b: Levels
    finite: np.ndarray
    confidence: float

    @classmethod
    def of(
        cls, predicted: Sequence[float], actual: Sequence[float], *, higher_is_better: bool, confidence: float
    ) -> _Comparison:
        a, b = np.asarray(predicted, dtype=np.float64), np.asarray(actual, dtype=np.float64)
        if a.shape != b.shape or a.ndim != 1:
            raise UserError("predicted", f"{a.size} predictions for {b.size} outcomes", code="mismatch")
        if len(a) < 2:
            raise UserError("predicted", f"a ranking needs at least 2 architectures, not {len(a)}", code="too_few")
        if not np.isfinite(b).all():
            raise UserError("actual", "an outcome is not finite")
        finite = np.isfinite(a)
        upwards = np.where(finite, a if higher_is_better else -a, -np.inf)
        return cls(Levels.of(upwards), Levels.of(b), finite, confidence)

    @property
    def n(self) -> int:
        return len(self.finite)

    def resampled(self, resamples: int, seed: int) -> Floats:
        return samples.bootstrap_counts(self.n, resamples if self.n >= MIN_FOR_INTERVAL else 0, seed=seed)

    def best(self, k: int) -> Part:
        return lambda w: samples.best(self.b, w, k)

    def best_of_random(self, w: Floats) -> Floats:
        predicted_best = samples.true_best(self.b, w) - samples.regret(self.a, self.b, w)
        return samples.best_of_random(self.b, w, predicted_best)

    def correlation(self, part: Part, w: Floats) -> RankCorrelation:
        inside = part(w[:1])[0] > 0
        kendall = self._values(lambda w: samples.kendall(self.a, self.b, part(w)), w)
        spearman = self._values(lambda w: samples.spearman(self.a, self.b, part(w)), w)
        n = int(inside.sum())
        return RankCorrelation(
            n=n,
            kendall=float(kendall[0]),
            spearman=float(spearman[0]),
            kendall_interval=self._interval(kendall[1:], n),
            spearman_interval=self._interval(spearman[1:], n),
            confidence=self.confidence,
            not_finite=int((~self.finite & inside).sum()),
        )

    def statistic(self, formula: Part, w: Floats) -> Statistic:
        """A statistic of the choice: not defined where all predictions of a sample are equal."""
        values = np.where(self.a.is_constant(w), np.nan, self._values(formula, w))
        return Statistic(float(values[0]), self._interval(values[1:], self.n))

    def precision(self, k: int, w: Floats) -> Precision:
        found = self.statistic(lambda w: samples.precision(self.a, self.b, w, k), w)
        return Precision(found.value, found.interval, k)

    def _values(self, formula: Part, w: Floats) -> Floats:
        return np.concatenate([formula(part) for part in _in_parts(w)])

    def _interval(self, values: Floats, n: int) -> tuple[float, float]:
        defined = values[~np.isnan(values)]
        if n < MIN_FOR_INTERVAL or len(defined) == 0:
            return float("nan"), float("nan")
        low, high = np.quantile(defined, [(1 - self.confidence) / 2, (1 + self.confidence) / 2])
        return float(low), float(high)


def _in_parts(w: Floats) -> Iterator[Floats]:
    rows = max(1, AT_ONCE // w.shape[1])
    return (w[start : start + rows] for start in range(0, len(w), rows))
