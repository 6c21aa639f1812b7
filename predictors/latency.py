"""Latencies of architectures, learnt from measurements on this device and on others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from espalier.nas.architecture import Architecture
from espalier.nas.errors import UserError
from espalier.nas.measurement import Estimate
from espalier.nas.predictor import Predictor
from espalier.nas.space import SearchSpace
from espalier.predictors.arrays import Floats
from espalier.predictors.encoding import encoding
from espalier.predictors.features import ScoreTable
from espalier.predictors.learned_predictor import LearnedPredictor, Model
from espalier.predictors.regressors import linear_and_smooth


class LatencyPredictor(LearnedPredictor):
    """A Gaussian process of ln(milliseconds): linear in the logarithms of its guides, and a smooth rest.

        ln y = b + w . ln g(a) + f(a) + noise,   f ~ GP(0, Matern 5/2)

    Guides are known without measuring the architecture: its MACs, a table of this device, or tables of
    other devices. With those, ten measurements on a new device suffice for the weights w, one number for each guide,
    and f waits for more: the prior variances of the two parts and of the noise maximise the likelihood (Rasmussen &
    Williams, "Gaussian Processes for Machine Learning", MIT Press 2006, sections 2.7 and 5.4.1). In logarithms errors
    are shares of the latency, and a device that is twice as fast differs by a constant.

    Args:
        space: where the architectures are from.
        guides: positive predictors; each is evaluated once per architecture.
        linear: encodings that ln y is linear in, in addition to the guides.
        encodings: features of f, in addition to these.
        seed: of the calibration of the intervals.

    Raises:
        UserError: no such encoding, or no guide and no encoding in the linear part.
    """

    name = "latency_ms"
    unit = "ms"
    higher_is_better = False

    def __init__(
        self,
        space: SearchSpace,
        *,
        guides: Sequence[Predictor] = (),
        linear: Sequence[str] = (),
        encodings: Sequence[str] = ("operations", "one_hot"),
        seed: int,
    ) -> None:
        super().__init__(seed=seed)
        for name in (*linear, *encodings):
            encoding(name, space, where="encodings")
        if not guides and not linear:
            problem = "a latency predictor needs a guide, or an encoding that latency is linear in"
            raise UserError("guides", problem, code="missing")
        self._space = space
        self._guides = Guides(guides)
        self._linear, self._encodings = tuple(linear), tuple(encodings)

    def scale(self, outcomes: Floats) -> Logarithm:
        """The logarithm of milliseconds.

        Raises:
            UserError: a latency is not a number above 0.
        """
        if not (np.isfinite(outcomes) & (outcomes > 0)).all():
            raise UserError("history", "a latency is not a number above 0", code="out_of_range")
        return Logarithm()

    def regress(self, architectures: Sequence[Architecture], z: Floats) -> Model:
        """The Gaussian process of ln(ms) `(n,)` of n architectures."""
        features = LatencyFeatures(self._space, self._guides, self._linear, self._encodings)
        x = features.fit(architectures)
        regressor = linear_and_smooth(features.linear_columns)
        regressor.fit(x, z)
        return Model(features, regressor)

    @property
    def settings(self) -> dict[str, str]:
        """The guides and the encodings."""
        return {"guides": " ".join(self._guides.names), "encodings": " ".join((*self._linear, *self._encodings))}


class Logarithm:
    """z = ln y."""

    def __call__(self, outcomes: Floats) -> Floats:
        return np.log(outcomes)

    def inverse(self, z: Floats) -> Floats:
        return np.exp(z)


class Costs(Protocol):
    """Gives each architecture of a space its cost, such as a `espalier.nas.cost.model.CostModel`."""

    def cost(self, architecture: Architecture) -> float: ...


class CostGuide:
    """What networks cost as a predictor: MACs, or a table of latencies of this device or of another.

    Args:
        name: of the table.
        costs: of the space.
        unit: of the costs.
    """

    higher_is_better = False

    def __init__(self, name: str, costs: Costs, *, unit: str = "ms") -> None:
        self.name, self.unit = name, unit
        self._costs = costs

    def __call__(self, architecture: Architecture) -> Estimate:
        """The cost of the stand-alone network."""
        return Estimate(self.name, self._costs.cost(architecture), self.unit, self.higher_is_better)


class Guides:
    """The logarithms `(n, guides)` of positive predictors, cached by architecture.

    Args:
        guides: the predictors.
    """

    def __init__(self, guides: Sequence[Predictor]) -> None:
        self.names = [guide.name for guide in guides]
        self._table = ScoreTable(guides)

    def __call__(self, architectures: Sequence[Architecture]) -> Floats:
        """Raises UserError, with the guide's name, if a value is not above 0."""
        values = self._table(architectures)
        wrong = np.argwhere(~(values > 0))
        if len(wrong):
            row, column = wrong[0]
            problem = f"is {values[row, column]:g} for {architectures[row].id}, but its logarithm is needed"
            raise UserError(self.names[column], problem, code="out_of_range")
        return np.log(values)


def spread(guides: Floats, count: int, *, seed: int) -> list[int]:
    """Rows that cover all others: those nearest to the centres of `count` clusters.

    Meant for the first measurements on a new device: architectures that differ as much as possible by the guides, such
    as tables of other devices. Random rows lie where most are, and the extremes would be extrapolated.

    Args:
        guides: `(n, guides)`, of which at least `count` rows differ.
        count: of the rows to choose.
        seed: of the clustering.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import pairwise_distances_argmin
    from sklearn.preprocessing import StandardScaler

    x = StandardScaler().fit_transform(guides)
    centres = KMeans(count, n_init=1, random_state=seed).fit(x).cluster_centers_
    return list(dict.fromkeys(pairwise_distances_argmin(centres, x).tolist()))


class LatencyFeatures:
    """Two blocks of standardised columns, the linear part and the rest, each row of norm about 1."""

    def __init__(self, space: SearchSpace, guides: Guides, linear: Sequence[str], rest: Sequence[str]) -> None:
        self._guides = guides
        self._linear = [encoding(name, space) for name in linear]
        self._rest = [encoding(name, space) for name in rest]
        self._scalers: list[Any] = []

    @property
    def linear_columns(self) -> int:
        """The columns of the first block."""
        return int(self._scalers[0].n_features_in_)

    def fit(self, architectures: Sequence[Architecture]) -> Floats:
        """Settle the columns; `(n, columns)` of the architectures."""
        from sklearn.preprocessing import StandardScaler

        for one in (*self._linear, *self._rest):
            one.fit(architectures)
        self._scalers = [StandardScaler().fit(block) for block in self._blocks(architectures)]
        return self.transform(architectures)

    def transform(self, architectures: Sequence[Architecture]) -> Floats:
        """`(n, columns)` of other architectures."""
        blocks = zip(self._scalers, self._blocks(architectures), strict=True)
        return np.hstack([scaler.transform(block) / np.sqrt(block.shape[1]) for scaler, block in blocks])

    def _blocks(self, architectures: Sequence[Architecture]) -> list[Floats]:
        linear = np.hstack([self._guides(architectures), *(one.transform(architectures) for one in self._linear)])
        rest = [one.transform(architectures) for one in self._rest]
        return [linear, *([np.hstack(rest)] if rest else [])]
