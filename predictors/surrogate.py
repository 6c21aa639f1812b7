"""Surrogates: models that learn from the architectures judged so far what the others would score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from espalier.nas.architecture import Architecture
from espalier.nas.errors import UserError
from espalier.nas.measurement import Estimate
from espalier.nas.predictor import History, Predictor
from espalier.nas.space import SearchSpace
from espalier.predictors.conformal import Calibration, Indices, calibrate
from espalier.predictors.encoding import ENCODINGS, Floats, encoding
from espalier.predictors.features import Features, ScoreTable
from espalier.predictors.normal_scores import NormalScores
from espalier.predictors.regressors import MODELS, Regressor

LEAST = 8
"""Entries of a history below which nothing is learnt from it."""


class Surrogate:
    """A regression of outcomes on encodings of architectures and on other predictors' scores of them.

    With scores it is a combination of them fitted to the outcomes; with scores alone, nothing else. The survey of
    such models is White et al., "How Powerful are Performance Predictors in Neural Architecture Search?", NeurIPS 2021.
    The model learns normal scores z of the outcomes (`NormalScores`) and its answers are mapped back.

    Args:
        space: where the architectures are from.
        model: one of `MODELS`: a Gaussian process, a forest, boosted trees, a Bayesian ridge regression.
        encodings: names in `ENCODINGS`.
        scores: asked once about each architecture; see `Features`.
        unit, higher_is_better: of the outcomes, as they are given to `fit`.
        seed: of the model and of the calibration of its intervals.

    Raises:
        UserError: no such model or encoding, or neither encodings nor scores.
    """

    name = "surrogate"

    def __init__(
        self,
        space: SearchSpace,
        *,
        model: str = "gp",
        encodings: Sequence[str] = ("one_hot",),
        scores: Sequence[Predictor] = (),
        unit: str = "accuracy",
        higher_is_better: bool = True,
        seed: int,
    ) -> None:
        if model not in MODELS:
            raise UserError("model", f"no surrogate model {model!r}", allowed=MODELS, given=model)
        for name in encodings:
            encoding(name, space, where="encodings")
        if not encodings and not scores:
            raise UserError("encodings", "a surrogate needs an encoding or a score to learn from", allowed=ENCODINGS)
        self.unit = unit
        self.higher_is_better = higher_is_better
        self._space = space
        self._model = model
        self._encodings = tuple(encodings)
        self._scores = ScoreTable(scores)
        self._seed = seed
        self._history: History = ()
        self._fitted: _Fitted | None = None
        self._calibration: Calibration | None = None

    def fit(self, history: History) -> None:
        """Learn from the history, and from nothing before it. An architecture may be in it more than once.

        Raises:
            UserError: fewer than `LEAST` entries, or all of one architecture; an outcome that is not finite; an
                architecture that is not of the space.
        """
        if len(history) < LEAST or len({architecture for architecture, _ in history}) < 2:
            problem = (
                f"a surrogate learns from {LEAST} outcomes or more, of different architectures, not {len(history)}"
            )
            raise UserError("history", problem)
        y = np.array([outcome for _, outcome in history], dtype=np.float64)
        if not np.isfinite(y).all():
            raise UserError("history", "an outcome is not finite")
        self._fitted, self._calibration = None, None
        self._history = tuple(history)
        self._outcomes = NormalScores(y)
        self._z = self._outcomes(y)
        self._fitted = self._train(np.arange(len(history)))

    def mean_and_std(self, architectures: Sequence[Architecture]) -> tuple[Floats, Floats]:
        """Two arrays `(n,)`, in the outcomes' unit: what is expected, and its standard deviation, not calibrated.

        They are the outcome at the mean of z, and half the way between those one standard deviation of z to both sides.

        Raises:
            UserError: nothing has been learnt yet, or an architecture is not of the space.
        """
        fitted = self._asked()
        z, sigma = fitted.mean_and_std(architectures)
        low, mean, high = self._outcomes.inverse(np.stack([z - sigma, z, z + sigma]))
        return mean, (high - low) / 2

    def estimates(self, architectures: Sequence[Architecture]) -> list[Estimate]:
        """The expected outcomes, with 95 % intervals by conformal prediction of z (`calibrate`).

        The intervals hold for architectures drawn as those of the history were, taken together. The first call after
        `fit` trains five more models for them.

        Raises:
            UserError: see `mean_and_std`.
        """
        fitted, calibration = self._asked(), self._calibrated()
        intervals = self._outcomes.inverse(calibration.intervals(*fitted.mean_and_std(architectures)))
        means, stds = self.mean_and_std(architectures)
        shared: dict[str, str | int | float] = {
            "model": self._model,
            "encodings": " ".join(self._encodings),
            "history": len(self._history),
            "coverage": calibration.coverage,
            "seed": self._seed,
        }
        return [
            Estimate(
                self.name,
                mean,
                self.unit,
                self.higher_is_better,
                interval=(low, high),
                provenance={**shared, "std": std},
            )
            for mean, std, (low, high) in zip(means.tolist(), stds.tolist(), intervals.tolist(), strict=True)
        ]

    def __call__(self, architecture: Architecture) -> Estimate:
        """See `estimates`."""
        return self.estimates([architecture])[0]

    def _asked(self) -> _Fitted:
        if self._fitted is None:
            raise UserError("surrogate", "it has to be fitted to a history before it is asked")
        return self._fitted

    def _train(self, rows: Indices) -> _Fitted:
        features = Features(self._space, self._encodings, self._scores)
        x = features.fit([self._history[i][0] for i in rows])
        regressor = MODELS[self._model](self._seed, x.shape[1])
        regressor.fit(x, self._z[rows])
        return _Fitted(features, regressor)

    def _calibrated(self) -> Calibration:
        if self._calibration is None:
            groups = [architecture for architecture, _ in self._history]
            self._calibration = calibrate(self._z, groups, self._held_out, seed=self._seed)
        return self._calibration

    def _held_out(self, train: Indices, test: Indices) -> tuple[Floats, Floats]:
        return self._train(train).mean_and_std([self._history[i][0] for i in test])


@dataclass(frozen=True)
class _Fitted:
    features: Features
    regressor: Regressor

    def mean_and_std(self, architectures: Sequence[Architecture]) -> tuple[Floats, Floats]:
        """Mean and standard deviation of each architecture's z; `(n,)` both."""
        if not architectures:
            return np.empty(0), np.empty(0)
        return self.regressor.mean_and_std(self.features.transform(architectures))
