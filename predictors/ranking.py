"""How well a predictor ranks: correlations of ranks, with intervals, and nothing dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.errors import UserError

Floats = NDArray[np.float64]


LEAST_FOR_INTERVAL = 8
"""Pairs below which a bootstrap interval would look certain and is not given: three in perfect order have [1, 1]."""


@dataclass(frozen=True)
class RankCorrelation:
    """Signed: positive where the predictor ranks as its direction promises. nan where it is not defined.

    Attributes:
        n: architectures compared, those with a prediction that is not finite included.
        kendall: Kendall's τ-b. spearman: Spearman's ρ, with mean ranks for ties.
        kendall_interval, spearman_interval: percentile bootstrap over the architectures; nan below
            `LEAST_FOR_INTERVAL` of them.
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


def rank_correlation(
    predicted: Sequence[float],
    actual: Sequence[float],
    *,
    higher_is_better: bool = True,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int,
) -> RankCorrelation:
    """Kendall's τ-b and Spearman's ρ between predictions and what came true.

    A prediction that is not finite (nan or either infinity) ranks worst, tied with the others of its kind. Constant
    predictions have no ranks: nan, not 0; nor have two architectures a correlation. Bootstrap resamples that happen to
    be constant are left out of the interval.

    Args:
        predicted: the predictor's values. actual: the outcomes, higher is better (accuracy).
        higher_is_better: the direction of `predicted`; where False, it is turned around, so that a good predictor is
            always positive.
        confidence: of the intervals. resamples: of the bootstrap. seed: of the bootstrap.

    Raises:
        UserError: the lengths differ, fewer than two pairs, or an outcome that is not finite.
    """
    a, b = np.asarray(predicted, dtype=np.float64), np.asarray(actual, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise UserError("predicted", f"{a.size} predictions for {b.size} outcomes")
    if len(a) < 2:
        raise UserError("predicted", f"a ranking needs at least two architectures, not {len(a)}")
    if not np.isfinite(b).all():
        raise UserError("actual", "an outcome is not finite")
    finite = np.isfinite(a)
    a = np.where(finite, a if higher_is_better else -a, -np.inf)
    generator = np.random.default_rng(seed)
    resamples = resamples if len(a) >= LEAST_FOR_INTERVAL else 0
    draws = [generator.integers(len(a), size=len(a)) for _ in range(resamples)]
    return RankCorrelation(
        n=len(a),
        kendall=_kendall(a, b),
        spearman=_spearman(a, b),
        kendall_interval=_interval([_kendall(a[i], b[i]) for i in draws], confidence),
        spearman_interval=_interval([_spearman(a[i], b[i]) for i in draws], confidence),
        confidence=confidence,
        not_finite=int((~finite).sum()),
    )


def partial_spearman(predicted: Sequence[float], actual: Sequence[float], given: Sequence[float]) -> float:
    """Spearman's ρ of two quantities a, b with a third c held fixed: (ρ_ab - ρ_ac ρ_bc) / √((1 - ρ_ac²)(1 - ρ_bc²)).

    What a predictor knows beyond the third quantity, such as the number of parameters. nan where it is not defined:
    a constant, or one quantity that ranks exactly as the third. Values that are not finite rank worst.
    """
    a, b, c = (np.where(np.isfinite(v), v, -np.inf) for v in (np.asarray(x, float) for x in (predicted, actual, given)))
    ab, ac, bc = _spearman(a, b), _spearman(a, c), _spearman(b, c)
    rest = (1 - ac**2) * (1 - bc**2)
    return (ab - ac * bc) / rest**0.5 if rest > 1e-12 else float("nan")


def _kendall(a: Floats, b: Floats) -> float:
    from scipy.stats import kendalltau

    if len(a) < 3:
        return float("nan")
    return float(kendalltau(a, b, method="asymptotic").statistic)


def _spearman(a: Floats, b: Floats) -> float:
    from scipy.stats import rankdata

    a, b = rankdata(a), rankdata(b)
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def _interval(values: Sequence[float], confidence: float) -> tuple[float, float]:
    defined = np.array([value for value in values if not np.isnan(value)])
    if len(defined) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
