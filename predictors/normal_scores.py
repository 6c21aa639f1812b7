"""Normal scores of outcomes, so that a few failed architectures do not hide differences between good ones."""

from __future__ import annotations

import numpy as np

from espalier.predictors.arrays import Floats


class NormalScores:
    """z = Φ⁻¹(F(y)), F the share of the outcomes below y, a tie counting half, with itself among them.

    Salinas, Shen & Perrone, "A Quantile-based Approach for Hyperparameter Transfer Learning", ICML 2020, section 4.1.
    Strictly increasing: straight between the outcomes seen, and beyond the lowest and the highest as steep as between
    the outermost tenths, since a search wants to hear of outcomes better than all seen (which rules out
    scikit-learn's QuantileTransformer).

    Args:
        outcomes: `(n,)`, finite, at least one.
    """

    def __init__(self, outcomes: Floats) -> None:
        from scipy.stats import norm, rankdata

        y, first = np.unique(outcomes, return_index=True)
        z = norm.ppf((rankdata(outcomes)[first] - 0.5) / len(outcomes))
        step = len(y) // 10 + 1
        low, high = (_slope(y[ends], z[ends]) for ends in (slice(None, step + 1), slice(-step - 1, None)))
        width = float(z[-1] - z[0]) + FAR
        self._z = np.concatenate([[z[0] - width], z, [z[-1] + width]])
        self._y = np.concatenate([[y[0] - low * width], y, [y[-1] + high * width]])

    def __call__(self, outcomes: Floats) -> Floats:
        """Z of outcomes of any shape."""
        return np.interp(outcomes, self._y, self._z)

    def inverse(self, z: Floats) -> Floats:
        """Outcomes of z of any shape."""
        return np.interp(z, self._z, self._y)


FAR = 100.0
"""Standard deviations up to which the ends are extrapolated."""


def _slope(y: Floats, z: Floats) -> float:
    """Outcome for each unit of z; 1 where all outcomes are equal."""
    return float((y[-1] - y[0]) / (z[-1] - z[0])) if len(y) > 1 else 1.0
