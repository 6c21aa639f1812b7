"""Intervals of statistics of repeated measurements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 1000
SEED = 0


def median_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the median: the middle 95 % of the medians of `RESAMPLES` draws of all
    `values` with replacement. Always the same for the same values.

    Raises:
        ValueError: there are no values.
    """
    measured = np.asarray(values, dtype=np.float64)
    if not measured.size:
        raise ValueError("the median of no values has no interval")
    generator = np.random.default_rng(SEED)
    drawn = measured[generator.integers(0, measured.size, size=(RESAMPLES, measured.size))]
    low, high = np.percentile(np.median(drawn, axis=1), (2.5, 97.5))
    return float(low), float(high)
