"""Rank correlations: signs, ties, values that are not finite, intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nas.errors import UserError
from predictors.ranking import RankCorrelation, partial_spearman, rank_correlation


def compare(predicted: list[float], actual: list[float], *, higher_is_better: bool = True) -> RankCorrelation:
    return rank_correlation(predicted, actual, higher_is_better=higher_is_better, resamples=20, seed=0)


def test_one_swap_of_four() -> None:
    result = compare([1, 2, 3, 4], [1, 3, 2, 4])
    assert result.kendall == pytest.approx(2 / 3)  # 5 pairs agree and 1 does not, of 6
    assert result.spearman == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert (result.n, result.not_finite) == (4, 0)


def test_signs_are_kept() -> None:
    assert compare([1, 2, 3], [3, 2, 1]).kendall == pytest.approx(-1)
    assert compare([1, 2, 3], [3, 2, 1]).spearman == pytest.approx(-1)
    assert compare([1, 2, 3], [3, 2, 1], higher_is_better=False).kendall == pytest.approx(1)
    assert compare([1, 2, 3], [3, 2, 1], higher_is_better=False).spearman == pytest.approx(1)


def test_ties_as_in_scipy() -> None:
    from scipy.stats import kendalltau, spearmanr

    generator = np.random.default_rng(0)
    a, b = generator.integers(5, size=40).tolist(), generator.integers(5, size=40).tolist()
    result = compare(a, b)
    assert result.kendall == pytest.approx(kendalltau(a, b).statistic)
    assert result.spearman == pytest.approx(spearmanr(a, b).statistic)
    # two pairs agree, none disagrees, one is tied in the prediction: τ-b = 2 / √(2 * 3)
    assert compare([1, 1, 2], [1, 2, 3]).kendall == pytest.approx(2 / math.sqrt(6))


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_predictions_that_are_not_finite_rank_last_and_stay(higher_is_better: bool) -> None:
    sign = 1.0 if higher_is_better else -1.0
    predicted = [math.nan, sign * 1, math.inf, sign * 2, -math.inf, sign * 3]
    result = compare(predicted, [1, 2, 3, 4, 5, 6], higher_is_better=higher_is_better)
    last_together = compare([0, 1, 0, 2, 0, 3], [1, 2, 3, 4, 5, 6])
    assert (result.n, result.not_finite) == (6, 3)
    assert (result.kendall, result.spearman) == (last_together.kendall, last_together.spearman)


@pytest.mark.parametrize("predicted", [[2.0] * 5, [math.nan] * 5])
def test_a_constant_predictor_has_no_correlation(predicted: list[float]) -> None:
    result = compare(predicted, [1, 2, 3, 4, 5])
    for value in (result.kendall, result.spearman, *result.kendall_interval, *result.spearman_interval):
        assert math.isnan(value)


def test_intervals() -> None:
    generator = np.random.default_rng(1)
    actual = generator.normal(size=200)
    predicted = actual + generator.normal(size=200)  # ρ of the population about .69, its standard error about .04
    wide = rank_correlation(predicted.tolist(), actual.tolist(), seed=0, resamples=300)
    narrow = rank_correlation(predicted.tolist(), actual.tolist(), seed=0, resamples=300, confidence=0.5)
    for interval, inner, value in [
        (wide.kendall_interval, narrow.kendall_interval, wide.kendall),
        (wide.spearman_interval, narrow.spearman_interval, wide.spearman),
    ]:
        assert interval[0] < inner[0] < value < inner[1] < interval[1]
        assert 0.05 < interval[1] - interval[0] < 0.3
    assert (wide.confidence, narrow.confidence) == (0.95, 0.5)
    assert rank_correlation(predicted.tolist(), actual.tolist(), seed=0, resamples=300) == wide
    assert rank_correlation(predicted.tolist(), actual.tolist(), seed=1, resamples=300) != wide


def test_what_cannot_be_ranked_is_refused() -> None:
    for predicted, actual, where in [
        ([1.0, 2.0], [1.0], "predicted"),
        ([1.0], [1.0], "predicted"),
        ([], [], "predicted"),
        ([1.0, 2.0], [1.0, math.nan], "actual"),
    ]:
        with pytest.raises(UserError, match=f"^{where}: "):
            compare(predicted, actual)


def test_too_few_for_a_correlation_or_an_interval() -> None:
    two = rank_correlation([1.0, 2.0], [1.0, 2.0], seed=0)
    assert math.isnan(two.kendall) and math.isnan(two.spearman)
    three = rank_correlation([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], seed=0)
    assert three.kendall == three.spearman == 1.0
    assert math.isnan(three.kendall_interval[0]) and math.isnan(three.spearman_interval[1])


def test_partial_correlation_by_hand() -> None:
    # ρ_ab = .4, ρ_ac = .8, ρ_bc = .4 for these ranks of four: (.4 - .8 * .4) / √((1 - .64)(1 - .16))
    a, b, c = [1.0, 2, 3, 4], [2.0, 1, 4, 3][::-1], [1.0, 2, 4, 3]
    ab, ac, bc = compare(a, b).spearman, compare(a, c).spearman, compare(b, c).spearman
    expected = (ab - ac * bc) / math.sqrt((1 - ac**2) * (1 - bc**2))
    assert partial_spearman(a, b, c) == pytest.approx(expected)


def test_partial_correlation_removes_what_the_third_explains() -> None:
    generator = np.random.default_rng(0)
    size = generator.normal(size=2000)
    a, b = size + 0.3 * generator.normal(size=2000), size + 0.3 * generator.normal(size=2000)
    assert compare(a.tolist(), b.tolist()).spearman > 0.8
    assert abs(partial_spearman(a.tolist(), b.tolist(), size.tolist())) < 0.1
    noise = generator.normal(size=2000)
    assert partial_spearman((size + noise).tolist(), noise.tolist(), size.tolist()) > 0.9


def test_partial_correlation_with_the_third_itself_is_not_defined() -> None:
    assert math.isnan(partial_spearman([1.0, 2, 3], [2.0, 1, 3], [10.0, 20, 30]))
    assert math.isnan(partial_spearman([1.0, 1, 1], [2.0, 1, 3], [10.0, 20, 5]))
