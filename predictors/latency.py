"""Latencies of architectures learnt from those that were measured, on this device and on others."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from espalier.nas.architecture import Architecture
from espalier.nas.errors import UserError
from espalier.nas.measurement import Estimate
from espalier.nas.predictor import History, Predictor
from espalier.nas.space import SearchSpace
from espalier.predictors.conformal import Calibration, Indices, calibrate
from espalier.predictors.encoding import Floats, encoding
from espalier.predictors.features import ScoreTable
from espalier.predictors.surrogate import LEAST


class LatencyPredictor:
    """A Gaussian process of ln(milliseconds): linear in the logarithms of its guides, and a smooth rest.

        ln y = b + w . ln g(a) + f(a) + noise,   f ~ GP(0, Matern 5/2)

    Guides are what is known of an architecture without measuring it: its MACs, a table of this device, or tables of
    other devices. With those, ten measurements on a new device suffice for the weights w, one number for each guide,
    and f waits for more: the prior variances of the two parts and of the noise maximise the likelihood (Rasmussen &
    Williams, "Gaussian Processes for Machine Learning", MIT Press 2006, sections 2.7 and 5.4.1). In logarithms errors
    are shares of the latency, and a device that is twice as fast differs by a constant.

    Args:
        space: where the architectures are from.
        guides: positive numbers about an architecture, asked once about each.
        linear: encodings beside them.
        encodings: what f looks at, besides all of these.
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
        for name in (*linear, *encodings):
            encoding(name, space, where="encodings")
        if not guides and not linear:
            raise UserError("guides", "a latency predictor needs a guide or an encoding that latencies are linear in")
        self._space = space
        self._guides = Guides(guides)
        self._linear, self._encodings = tuple(linear), tuple(encodings)
        self._seed = seed
        self._history: History = ()
        self._fitted: _Fitted | None = None
        self._calibration: Calibration | None = None

    def fit(self, history: History) -> None:
        """Learn from measured milliseconds, and from nothing before. An architecture may be in it more than once.

        Raises:
            UserError: fewer than `LEAST` entries, or all of one architecture; a latency that is not above 0, or a guide
                that is not; an architecture that is not of the space.
        """
        if len(history) < LEAST or len({architecture for architecture, _ in history}) < 2:
            problem = f"latencies are learnt from {LEAST} or more, of different architectures, not {len(history)}"
            raise UserError("history", problem)
        y = np.array([latency for _, latency in history], dtype=np.float64)
        if not (np.isfinite(y) & (y > 0)).all():
            raise UserError("history", "a latency is not a number above 0")
        self._fitted, self._calibration = None, None
        self._history, self._y = tuple(history), np.log(y)
        self._fitted = self._train(np.arange(len(history)))

    def estimates(self, architectures: Sequence[Architecture]) -> list[Estimate]:
        """Expected milliseconds, with 95 % intervals by conformal prediction of ln y (`calibrate`).

        The intervals hold for architectures drawn as those of the history were, taken together: a history of the
        candidates near a limit says less about those far from it. The first call after `fit` trains five more models.

        Raises:
            UserError: nothing has been learnt yet, an architecture is not of the space, or a guide is not above 0.
        """
        if self._fitted is None:
            raise UserError("latency predictor", "it has to be fitted to measurements before it is asked")
        if not architectures:
            return []
        calibration = self._calibrated()
        means, stds = self._fitted.mean_and_std(architectures)
        rows = np.exp(np.column_stack([means, calibration.intervals(means, stds)])).tolist()
        shared: dict[str, str | int | float] = {
            "history": len(self._history),
            "guides": " ".join(self._guides.names),
            "encodings": " ".join((*self._linear, *self._encodings)),
            "coverage": calibration.coverage,
            "seed": self._seed,
        }
        return [
            Estimate(self.name, value, self.unit, self.higher_is_better, interval=(low, high), provenance=shared)
            for value, low, high in rows
        ]

    def __call__(self, architecture: Architecture) -> Estimate:
        """See `estimates`."""
        return self.estimates([architecture])[0]

    def _train(self, rows: Indices) -> _Fitted:
        features = _Features(self._space, self._guides, self._linear, self._encodings)
        x = features.fit([self._history[i][0] for i in rows])
        return _Fitted(features, _process(features.linear_columns, x, self._y[rows]))

    def _calibrated(self) -> Calibration:
        if self._calibration is None:
            groups = [architecture for architecture, _ in self._history]
            self._calibration = calibrate(self._y, groups, self._held_out, seed=self._seed)
        return self._calibration

    def _held_out(self, train: Indices, test: Indices) -> tuple[Floats, Floats]:
        return self._train(train).mean_and_std([self._history[i][0] for i in test])


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
    """The logarithms `(n, guides)` of positive predictors, each architecture asked about once.

    Args:
        guides: the predictors.
    """

    def __init__(self, guides: Sequence[Predictor]) -> None:
        self.names = [guide.name for guide in guides]
        self._table = ScoreTable(guides)

    def __call__(self, architectures: Sequence[Architecture]) -> Floats:
        """Raises UserError where one is not a number above 0; its name is given."""
        values = self._table(architectures)
        wrong = np.argwhere(~(values > 0))
        if len(wrong):
            row, column = wrong[0]
            problem = f"is {values[row, column]:g} for {architectures[row].id}, its logarithm is needed"
            raise UserError(self.names[column], problem)
        return np.log(values)


def spread(guides: Floats, count: int, *, seed: int) -> list[int]:
    """Rows that are spread over all: those nearest to the centres of `count` clusters.

    What to measure first on a new device: architectures that the guides, such as tables of other devices, take to be
    as different as can be. Rows drawn at random lie where most are, and leave the ends to be guessed.

    Args:
        guides: `(n, guides)`, of which at least `count` rows differ.
        seed: of the clustering.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import pairwise_distances_argmin
    from sklearn.preprocessing import StandardScaler

    x = StandardScaler().fit_transform(guides)
    centres = KMeans(count, n_init=1, random_state=seed).fit(x).cluster_centers_
    return list(dict.fromkeys(pairwise_distances_argmin(centres, x).tolist()))


class _Features:
    """Two blocks of columns, what latencies are linear in and the rest, standardised, each of norm 1 or so."""

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


@dataclass(frozen=True)
class _Fitted:
    features: _Features
    process: Any

    def mean_and_std(self, architectures: Sequence[Architecture]) -> tuple[Floats, Floats]:
        """Mean and standard deviation of each architecture's ln(ms); `(n,)` both."""
        mean, std = self.process.predict(self.features.transform(architectures), return_std=True)
        return mean, std


def _process(linear_columns: int, x: Floats, y: Floats) -> Any:
    """The Gaussian process, fitted; variances are in units of that of `y`."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

    class Linear(DotProduct):
        """The inner product of the leading columns alone."""

        def __call__(self, X: Any, Y: Any = None, eval_gradient: bool = False) -> Any:
            leading = None if Y is None else Y[:, :linear_columns]
            return super().__call__(X[:, :linear_columns], leading, eval_gradient)

        def diag(self, X: Any) -> Any:
            return super().diag(X[:, :linear_columns])

    linear = ConstantKernel(1.0, VARIANCE) * Linear(sigma_0=1e-3, sigma_0_bounds="fixed")  # normalize_y has the rest
    rest = ConstantKernel(0.1, VARIANCE) * Matern(1.0, LENGTH, nu=2.5)
    process = GaussianProcessRegressor(linear + rest + WhiteKernel(0.05, NOISE), normalize_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a variance at its bound is no fault: a part is not needed
        return process.fit(x, y)


VARIANCE = (1e-4, 1e2)
NOISE = (1e-2, 1.0)
LENGTH = (0.2, 20.0)
"""Bounds of the hyper-parameters; architectures are about 1 apart. Timings are never without noise: with next to none,
ten of them can be explained by the rest alone, and intervals that are scaled by it mean nothing."""
