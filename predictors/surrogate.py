"""Surrogates: models that learn from the architectures evaluated so far what others would score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from espalier.nas.architecture import Architecture
from espalier.nas.errors import UserError
from espalier.nas.measurement import Estimate
from espalier.nas.predictor import Predictor
from espalier.nas.space import SearchSpace
from espalier.predictors.arrays import Floats
from espalier.predictors.encoding import ENCODINGS, encoding
from espalier.predictors.features import Features, ScoreTable
from espalier.predictors.learned_predictor import LearnedPredictor, Model
from espalier.predictors.normal_scores import NormalScores
from espalier.predictors.regressors import MODELS


class Surrogate(LearnedPredictor):
    """A regression of outcomes on encodings of architectures and on other predictors' scores of them.

    With scores it is a combination of them fitted to the outcomes; with scores alone, nothing else. The survey of
    such models is White et al., "How Powerful are Performance Predictors in Neural Architecture Search?", NeurIPS 2021.
    The model learns normal scores z of the outcomes (`NormalScores`) and its answers are mapped back.

    Args:
        space: where the architectures are from.
        model: one of `MODELS`: a Gaussian process, a forest, boosted trees, a Bayesian ridge regression.
        encodings: names in `ENCODINGS`.
        scores: asked once about each architecture; see `Features`.
        unit: of the outcomes, as they are given to `fit`.
        higher_is_better: whether a larger outcome is better.
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
        super().__init__(seed=seed)
        if model not in MODELS:
            raise UserError("model", f"unknown surrogate model {model!r}", allowed=MODELS, given=model)
        for name in encodings:
            encoding(name, space, where="encodings")
        if not encodings and not scores:
            problem = "a surrogate needs an encoding or a score to learn from"
            raise UserError("encodings", problem, code="missing", allowed=ENCODINGS)
        self.unit = unit
        self.higher_is_better = higher_is_better
        self._space = space
        self._kind = model
        self._encodings = tuple(encodings)
        self._scores = ScoreTable(scores)

    def scale(self, outcomes: Floats) -> NormalScores:
        """Normal scores of the outcomes.

        Raises:
            UserError: an outcome is not finite.
        """
        if not np.isfinite(outcomes).all():
            raise UserError("history", "an outcome is not finite")
        return NormalScores(outcomes)

    def regress(self, architectures: Sequence[Architecture], z: Floats) -> Model:
        """The regression of z `(n,)` on the features of n architectures."""
        features = Features(self._space, self._encodings, self._scores)
        x = features.fit(architectures)
        regressor = MODELS[self._kind](self._seed, x.shape[1])
        regressor.fit(x, z)
        return Model(features, regressor)

    @property
    def settings(self) -> dict[str, str]:
        """The kind of regression and its encodings."""
        return {"model": self._kind, "encodings": " ".join(self._encodings)}

    def mean_and_std(self, architectures: Sequence[Architecture]) -> tuple[Floats, Floats]:
        """Expected outcomes and their standard deviations `(n,)`, in the outcomes' unit, not calibrated.

        The mean is the outcome at the mean of z, the standard deviation half the distance between the outcomes one
        standard deviation of z below and above it.

        Raises:
            UserError: nothing has been learnt yet, or an architecture is not of the space.
        """
        z, sigma = self.model.mean_and_std(architectures)
        low, mean, high = self._scale.inverse(np.stack([z - sigma, z, z + sigma]))
        return mean, (high - low) / 2

    def estimates(self, architectures: Sequence[Architecture]) -> list[Estimate]:
        """See `LearnedPredictor.estimates`; the provenance also holds `std`, see `mean_and_std`."""
        estimates = super().estimates(architectures)
        stds = self.mean_and_std(architectures)[1].tolist()
        return [
            replace(estimate, provenance={**estimate.provenance, "std": std})
            for estimate, std in zip(estimates, stds, strict=True)
        ]
