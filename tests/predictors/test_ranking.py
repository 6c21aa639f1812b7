"""Ranking quality: signs, ties, values that are not finite, intervals, the worth of a choice."""

from __future__ import annotations

import csv
import gzip
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import espalier.predictors.ranking
from espalier.nas.errors import UserError
from espalier.predictors import ranking_samples as samples
from espalier.predictors.ranking import (
    RankCorrelation,
    RankingQuality,
    partial_spearman,
    rank_correlation,
    ranking_quality,
)


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


def quality(predicted: list[float], actual: list[float], *, higher_is_better: bool = True) -> RankingQuality:
    return ranking_quality(predicted, actual, higher_is_better=higher_is_better, resamples=50, seed=0)


def repeated(values: list[float], counts: np.ndarray) -> np.ndarray:
    return np.repeat(values, counts.astype(int))


def test_samples_by_their_counts_are_the_samples_themselves() -> None:
    from scipy.stats import kendalltau, spearmanr

    generator = np.random.default_rng(3)
    a, b = generator.integers(6, size=30).tolist(), generator.normal(size=30).round(1).tolist()
    counts = samples.bootstrap_counts(30, 10, seed=1)
    assert np.array_equal(counts[0], np.ones(30))
    assert np.array_equal(counts.sum(axis=1), np.full(11, 30))
    levels = samples.Levels.of(a), samples.Levels.of(b)
    for w, tau, rho in zip(counts, samples.kendall(*levels, counts), samples.spearman(*levels, counts), strict=True):
        x, y = repeated(a, w), repeated(b, w)
        assert tau == pytest.approx(kendalltau(x, y).statistic)
        assert rho == pytest.approx(spearmanr(x, y).statistic)


def test_pairs_are_counted_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.stats import kendalltau

    monkeypatch.setattr(samples, "BLOCK", 7)
    generator = np.random.default_rng(4)
    a, b = generator.integers(9, size=50), generator.normal(size=50)
    result = samples.kendall(samples.Levels.of(a), samples.Levels.of(b), np.ones((1, 50)))
    assert result[0] == pytest.approx(kendalltau(a, b).statistic)


def test_the_top_is_the_best_by_outcome_with_all_that_are_tied_with_its_last() -> None:
    actual = [float(i) for i in range(30)]
    predicted = [*actual[:24], 29.0, 28, 27, 26, 25, 24]  # right but for the best fifth, which is turned around
    result = quality(predicted, actual)
    assert (result.top[0.2].n, result.top[0.2].kendall, result.top[0.2].spearman) == (6, -1.0, pytest.approx(-1))
    assert (result.top[0.1].n, result.top[0.1].kendall) == (3, -1.0)
    assert result.all == compare_fifty(predicted, actual)
    actual[23] = 24.0
    assert quality(predicted, actual).top[0.2].n == 7
    assert math.isnan(result.top[0.2].kendall_interval[0])  # of six
    assert not math.isnan(result.all.kendall_interval[0])


def compare_fifty(predicted: list[float], actual: list[float]) -> RankCorrelation:
    return rank_correlation(predicted, actual, resamples=50, seed=0)


def test_what_is_not_finite_is_counted_where_it_is() -> None:
    actual = [float(i) for i in range(20)]
    predicted = [math.nan, *actual[1:19], math.inf]
    result = quality(predicted, actual)
    assert (result.all.not_finite, result.top[0.1].not_finite, result.top[0.2].not_finite) == (2, 1, 1)


def test_precision_by_hand() -> None:
    actual = [float(i) for i in range(20)]
    predicted = list(actual)
    predicted[18], predicted[5] = 5.0, 18.0
    result = quality(predicted, actual)
    assert (result.precision[0.05].k, result.precision[0.05].value) == (1, 1.0)
    assert (result.precision[0.1].k, result.precision[0.1].value) == (2, 0.5)
    assert quality([-v for v in predicted], actual).precision[0.1].value == 0
    assert quality([-v for v in predicted], actual, higher_is_better=False).precision[0.1].value == 0.5


def test_precision_of_tied_predictions_is_the_mean_over_their_orders() -> None:
    actual = [float(i) for i in range(20)]
    predicted = [0.0] * 20
    predicted[19] = predicted[3] = predicted[4] = 1.0  # two of the three are chosen, with 19 in 2 orders of 3
    assert quality(predicted, actual).precision[0.1].value == pytest.approx(2 / 3 / 2)
    predicted[19] = 2.0  # chosen for sure, and one of 3 and 4
    assert quality(predicted, actual).precision[0.1].value == 0.5


def test_outcomes_tied_with_the_last_of_the_best_are_among_them() -> None:
    actual = [0.0] * 18 + [1.0, 1.0, 1.0]
    for best in ([18, 19], [18, 20], [19, 20]):
        predicted = [float(i in best) for i in range(21)]
        assert quality(predicted, actual).precision[0.1].value == 1


def test_regret_by_hand() -> None:
    actual = [90.0, 91.5, 93.0, 94.0, *[80.0] * 6]
    assert quality([1, 2, 4, 3, *[0] * 6], actual).regret.value == 1.0
    assert quality([1, 2, 3, 4, *[0] * 6], actual).regret.value == 0.0
    assert quality([9, 9, 9, 3, *[0] * 6], actual).regret.value == pytest.approx(94 - 91.5)  # the mean of the tied
    assert quality([1, 2, math.inf, math.nan, *[0] * 6], actual).regret.value == pytest.approx(2.5)


@pytest.mark.parametrize("outcomes", [[1.0, 2, 3, 5, 8, 13, 21], [4.0, 4, 4, 7, 7, 9, 9]])
def test_best_of_random_is_that_of_all_subsets(outcomes: list[float]) -> None:
    """By counting: the least m for which the mean of the maximum over all subsets of m reaches each outcome."""
    means = [float(np.mean([max(s) for s in combinations(outcomes, m)])) for m in range(1, len(outcomes) + 1)]
    levels, sample = samples.Levels.of(outcomes), np.ones((1, len(outcomes)))
    around = [mean + step for mean in means for step in (-1e-6, 1e-6) if mean + step <= max(outcomes)]
    for value in [*outcomes, *around]:
        expected = next(m for m, mean in enumerate(means, start=1) if mean >= value - 1e-9)
        assert samples.best_of_random(levels, sample, np.array([value]))[0] == expected


def test_best_of_random_of_a_resample_counts_its_copies() -> None:
    outcomes, counts = [1.0, 2.0, 3.0, 4.0], np.array([[1.0, 0, 3, 0], [0, 2, 1, 1], [2, 2, 0, 0]])
    levels = samples.Levels.of(outcomes)
    assert samples.true_best(levels, counts).tolist() == [3, 4, 2]
    for value in (1.0, 1.6, 2.0, 2.9):
        together = samples.best_of_random(levels, counts, np.minimum([value] * 3, [3, 4, 2]))
        for w, result in zip(counts, together, strict=True):
            drawn = repeated(outcomes, w)
            means = [np.mean([max(s) for s in combinations(drawn, m)]) for m in range(1, 5)]
            reached = min(value, float(drawn.max()))
            assert result == next(m for m, mean in enumerate(means, start=1) if mean >= reached - 1e-9)


def test_best_of_random_of_equally_spaced_outcomes() -> None:
    """Of 0, ..., N - 1 the largest of m without replacement is expected at m (N + 1) / (m + 1) - 1."""
    n = 10_000
    outcomes = np.arange(n, dtype=float)
    levels, sample = samples.Levels.of(outcomes), np.ones((1, n))
    for m in (1, 2, 10, 100, 1000, n):
        value = np.array([m * (n + 1) / (m + 1) - 1])
        assert samples.best_of_random(levels, sample, value)[0] == m
    assert samples.best_of_random(levels, sample, np.array([n - 1.0]))[0] == n
    assert samples.best_of_random(levels, sample, np.array([-5.0]))[0] == 1


@pytest.mark.parametrize("predicted", [[2.0] * 20, [math.nan] * 20])
def test_a_constant_predictor_chooses_nothing(predicted: list[float]) -> None:
    result = quality(predicted, [float(i) for i in range(20)])
    for statistic in (*result.precision.values(), result.regret, result.best_of_random):
        assert math.isnan(statistic.value) and math.isnan(statistic.interval[0])
    assert all(math.isnan(one.kendall) for one in (result.all, *result.top.values()))


def test_intervals_of_what_is_chosen() -> None:
    generator = np.random.default_rng(1)
    actual = generator.normal(size=200)
    result = ranking_quality((actual + generator.normal(size=200)).tolist(), actual.tolist(), seed=0, resamples=300)
    for statistic in (*result.precision.values(), result.regret, result.best_of_random):
        low, high = statistic.interval
        assert low <= statistic.value <= high and low < high
    assert result.regret.interval[0] >= 0 and result.best_of_random.interval[0] >= 1
    few = ranking_quality([1.0, 2, 3, 4, 5, 6, 7], [1.0, 2, 3, 4, 5, 7, 6], seed=0)
    assert (few.regret.value, few.best_of_random.value, few.precision[0.1].value) == (
        1.0,
        3,
        0.0,
    )  # of 1 to 7 the best of 3 is expected at 6
    assert math.isnan(few.regret.interval[0]) and math.isnan(few.precision[0.1].interval[0])


def test_resamples_that_do_not_fit_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(2)
    a, b = generator.normal(size=25).tolist(), generator.normal(size=25).tolist()
    whole = quality(a, b)
    monkeypatch.setattr(espalier.predictors.ranking, "AT_ONCE", 60)
    assert repr(quality(a, b)) == repr(whole)  # nan equals nan


def test_params_on_nas_bench_macro(shared_data: Path) -> None:
    """By scipy: Kendall's τ-b of params with the mean accuracy over all 6,561 networks."""
    from scipy.stats import kendalltau

    with gzip.open(shared_data / "nasbench_macro_cifar10.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    params, accuracy = ([float(row[column]) for row in rows] for column in ("params", "mean_acc"))
    result = rank_correlation(params, accuracy, resamples=1, seed=0)
    assert result.kendall == pytest.approx(kendalltau(params, accuracy).statistic)
