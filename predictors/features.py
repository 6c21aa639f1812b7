"""The features of a surrogate: encodings and scores of architectures, standardised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from espalier.nas.architecture import Architecture
from espalier.nas.errors import UserError
from espalier.nas.predictor import Predictor
from espalier.nas.space import SearchSpace
from espalier.predictors.arrays import Floats
from espalier.predictors.encoding import encoding


class ScoreTable:
    """The values `(n, scores)` of predictors, cached by architecture; nan where not finite."""

    def __init__(self, scores: Sequence[Predictor]) -> None:
        self._scores = tuple(scores)
        self._known: dict[Architecture, list[float]] = {}

    def __call__(self, architectures: Sequence[Architecture]) -> Floats:
        for architecture in architectures:
            if architecture not in self._known:
                self._known[architecture] = [score(architecture).value for score in self._scores]
        values = np.array([self._known[a] for a in architectures], dtype=np.float64)
        values = values.reshape(len(architectures), len(self._scores))
        return np.where(np.isfinite(values), values, np.nan)


class Ranks:
    """Ranks of values among those it was fitted to, as shares; ties count half.

    Scores span orders of magnitude, so only their ranks are used. nan counts as the median, 1/2; for a score that was
    nan in the fit, a further column tells where it is.
    """

    def __init__(self, values: Floats) -> None:
        self._seen = [np.sort(column[~np.isnan(column)]) for column in values.T]
        self._missing = np.isnan(values).any(0)

    def __call__(self, values: Floats) -> Floats:
        """`(n, columns)` for values `(n, scores)`."""
        shares = [_share(column, seen) for column, seen in zip(values.T, self._seen, strict=True)]
        return np.column_stack([*shares, np.isnan(values[:, self._missing])])


class Features:
    """Standardised features; columns, means and deviations are those of the architectures in `fit`."""

    def __init__(self, space: SearchSpace, encodings: Sequence[str], scores: ScoreTable) -> None:
        self._encodings = [encoding(name, space) for name in encodings]
        self._scores = scores
        self._standard: Any = None

    def fit(self, architectures: Sequence[Architecture]) -> Floats:
        """Fix the columns; returns the features `(n, columns)` of the architectures.

        Raises:
            UserError: there are none, or one is not of the space.
        """
        from sklearn.preprocessing import StandardScaler

        for one in self._encodings:
            one.fit(architectures)
        self._ranks = Ranks(self._scores(architectures))
        columns = self._columns(architectures)
        if not columns.shape[1]:
            problem = "they have no column for what these architectures have in common"
            raise UserError("encodings", problem, code="unsupported")
        self._standard = StandardScaler().fit(columns)
        return self._standard.transform(columns)

    def transform(self, architectures: Sequence[Architecture]) -> Floats:
        """`(n, columns)` of other architectures."""
        return self._standard.transform(self._columns(architectures))

    def _columns(self, architectures: Sequence[Architecture]) -> Floats:
        columns = [one.transform(architectures) for one in self._encodings]
        return np.hstack([*columns, self._ranks(self._scores(architectures))])


def _share(values: Floats, seen: Floats) -> Floats:
    if not len(seen):
        return np.full(len(values), 0.5)
    below, not_above = np.searchsorted(seen, values, "left"), np.searchsorted(seen, values, "right")
    return np.where(np.isnan(values), 0.5, (below + not_above) / (2 * len(seen)))
