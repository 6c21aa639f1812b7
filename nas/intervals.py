"""Confidence intervals of repeated measurements and of proportions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
SEED = 0


def median_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """`bootstrap_interval` of the median."""
    return bootstrap_interval(values, np.median)


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, statistic: Callable[..., np.ndarray], *, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of a statistic. Equal values give equal intervals.

    The interval holds the middle 95 % of the statistic over `resamples` samples, each of as many values as there are,
    drawn with replacement.

    Args:
        values: the measurements.
        statistic: a function of numbers along an `axis`, such as `numpy.mean`.
        resamples: number of samples.

    Raises:
        ValueError: there are no values.
    """
    from scipy.stats import bootstrap

    if not len(values):
        raise ValueError("there are no values")
    if len(values) == 1:
        return float(values[0]), float(values[0])
    found = bootstrap((values,), statistic, n_resamples=resamples, method="percentile", random_state=SEED)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


@dataclass(frozen=True)
class Proportion:
    """A proportion of images, with its 95 % Wilson interval.

    Attributes:
        value: the proportion, in [0, 1].
        count: the number of images.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    value: float
    count: int
    low: float
    high: float

    @classmethod
    def of(cls, value: float, count: int) -> Proportion:
        """The proportion `value` of `count` images. Wilson, JASA 22 (1927) 209."""
        from scipy.stats import binomtest

        interval = binomtest(round(value * count), count).proportion_ci(method="wilson")
        return cls(value, count, float(interval.low), float(interval.high))
