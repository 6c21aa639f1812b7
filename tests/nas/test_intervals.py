"""Bootstrap intervals of medians against what is known of them exactly."""

from __future__ import annotations

import numpy as np
import pytest

from espalier.nas.intervals import median_interval


def test_the_interval_of_many_values_is_that_of_the_order_statistics() -> None:
    # Of n values the median's 95 % interval reaches between the ranks n/2 -+ 1.96 sqrt(n)/2: 86.1 and 113.9 of 200.
    low, high = median_interval(np.arange(1.0, 201.0))
    assert low == pytest.approx(86.6, abs=1.5)
    assert high == pytest.approx(114.4, abs=1.5)


def test_few_values_reach_from_the_lowest_to_the_highest() -> None:
    # A median of five draws of five is the lowest with probability sum over k >= 3 of C(5, k) .2^k .8^(5-k) = 5.8 %.
    assert median_interval([3.0, 1.0, 2.0, 5.0, 4.0]) == (1.0, 5.0)
    # Of nine it is the lowest with .15 % (k >= 5 of draws of 1/9), one of the two lowest with 3.04 % (of 2/9).
    low, high = median_interval([float(value) for value in range(1, 10)])
    assert low == 2.0
    assert high == 8.0


def test_one_value_and_none() -> None:
    assert median_interval([2.5]) == (2.5, 2.5)
    with pytest.raises(ValueError, match="no values"):
        median_interval([])
