"""Intervals with the promised coverage: normalised conformal prediction with cross-validated residuals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from espalier.predictors.arrays import Floats, Indices

LEVEL = 0.95
FOLDS = 5


@dataclass(frozen=True)
class Calibration:
    """The interval of a prediction ŷ with standard deviation σ is ŷ ± q max(σ, floor).

    Attributes:
        coverage: the share of outcomes that the intervals are made to hold: 0.95, and n / (n + 1) for n < 19 residuals,
            whose largest reaches no further.
    """

    q: float
    floor: float
    coverage: float

    def intervals(self, means: Floats, stds: Floats) -> Floats:
        """`(n, 2)`: low and high ends, for predictions `(n,)` and their standard deviations `(n,)`."""
        reach = self.q * np.maximum(stds, self.floor)
        return np.stack([means - reach, means + reach], axis=1)


def calibrate(
    y: Floats,
    groups: Sequence[object],
    held_out: Callable[[Indices, Indices], tuple[Floats, Floats]],
    *,
    seed: int,
) -> Calibration:
    """Q is the ⌈0.95 (n + 1)⌉-th smallest |y_i - ŷ_i| / max(σ_i, floor), with ŷ_i, σ_i of a model that has not seen i.

    Normalised residuals: Lei et al., "Distribution-Free Predictive Inference for Regression", JASA 2018, section 5.2.
    Cross-validation in place of a calibration set, so that no outcome is lost to it: Vovk, "Cross-conformal
    predictors", Annals of Mathematics and Artificial Intelligence 2015. The floor, a tenth of the mean σ, keeps
    single predictions that are overconfident by chance from determining q.

    Args:
        y: outcomes `(n,)`.
        groups: of each outcome; those of one group are held out together. At least two different ones.
        held_out: `(train, test) -> (means, stds)` of the test rows, by a model fitted to the training rows.
        seed: of the folds.
    """
    from sklearn.model_selection import KFold

    names = list(dict.fromkeys(groups))
    group = np.array([names.index(g) for g in groups])
    means, stds = np.empty_like(y), np.empty_like(y)
    for _, fold in KFold(min(FOLDS, len(names)), shuffle=True, random_state=seed).split(names):
        out = np.isin(group, fold)
        means[out], stds[out] = held_out(np.flatnonzero(~out), np.flatnonzero(out))
    floor = float(stds.mean()) / 10 or 1.0
    residuals = np.sort(np.abs(y - means) / np.maximum(stds, floor))
    rank = min(math.ceil(LEVEL * (len(y) + 1)), len(y))
    return Calibration(float(residuals[rank - 1]), floor, min(LEVEL, len(y) / (len(y) + 1)))
