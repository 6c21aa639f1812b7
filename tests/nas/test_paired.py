"""The interval of the difference of paired proportions, against what defines it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from espalier.nas.paired import PairedDrop, Z, score_interval


@pytest.mark.parametrize("n", [1, 44, 100, 10_000])
def test_without_disagreement_it_is_known_in_closed_form(n: int) -> None:
    # With b = c = 0 the statistic is n D / sqrt(n D (1 - D)) for D > 0; its square is z^2 at D = z^2 / (n + z^2).
    bound = Z**2 / (n + Z**2)
    assert score_interval(0, 0, n) == pytest.approx((-bound, bound))


@pytest.mark.parametrize(("b", "c", "n"), [(35, 43, 10_000), (10, 3, 60), (0, 1, 44), (5, 5, 12)])
def test_the_statistic_is_z_at_both_bounds(b: int, c: int, n: int) -> None:
    def likelihood_estimate(difference: float) -> float:
        """p_c that makes b, c, n - b - c most likely when p_b = p_c + D: by search, not by the quadratic equation."""

        def minus_log_likelihood(p: float) -> float:
            cells = ((b, p + difference), (c, p), (n - b - c, 1 - 2 * p - difference))
            return -sum(count * math.log(share) for count, share in cells if count)

        low, high = max(0.0, -difference) + 1e-12, (1 - difference) / 2 - 1e-12
        return float(minimize_scalar(minus_log_likelihood, bounds=(low, high), options={"xatol": 1e-12}).x)

    for bound, sign in zip(score_interval(b, c, n), (1, -1), strict=True):
        q = likelihood_estimate(bound)
        statistic = (b - c - n * bound) / math.sqrt(n * (2 * q + bound * (1 - bound)))
        assert statistic == pytest.approx(sign * Z, rel=1e-4)


def test_the_interval_turns_round_with_the_classifiers() -> None:
    low, high = score_interval(206, 137, 10_000)
    assert score_interval(137, 206, 10_000) == pytest.approx((-high, -low))
    assert 0 < low < (206 - 137) / 10_000 < high


def test_all_pairs_differ_one_way() -> None:
    low, high = score_interval(10, 0, 10)
    assert high == 1
    assert score_interval(0, 10, 10) == pytest.approx((-1, -low))


def test_the_drop_counts_images() -> None:
    first = np.array([True, True, True, False, False])
    second = np.array([True, False, False, True, False])
    drop = PairedDrop.of(first, second)
    assert (drop.lost, drop.gained, drop.count, drop.value) == (2, 1, 5, pytest.approx(0.2))
    assert (drop.low, drop.high) == score_interval(2, 1, 5)


def test_no_images() -> None:
    with pytest.raises(ValueError, match="no images"):
        score_interval(0, 0, 0)
