"""What the predictors that learn from measured outcomes have in common: the fit, and conformal intervals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from espalier.nas.architecture import Architecture
from espalier.nas.errors import UserError
from espalier.nas.measurement import Estimate
from espalier.nas.predictor import History
from espalier.predictors.arrays import Floats, Indices
from espalier.predictors.conformal import Calibration, calibrate
from espalier.predictors.regressors import Regressor

MIN_HISTORY = 8
"""Entries of a history below which nothing is learnt from it."""


class Scale(Protocol):
    """A strictly increasing map z = t(y) of outcomes; models learn z."""

    def __call__(self, outcomes: Floats) -> Floats:
        """Z of outcomes of any shape."""
        ...

    def inverse(self, z: Floats) -> Floats:
        """Outcomes of z of any shape."""
        ...


class Encoder(Protocol):
    """Turns architectures into rows of features; its columns are fixed by the architectures it was fitted to."""

    def transform(self, architectures: Sequence[Architecture]) -> Floats:
        """Features `(n, columns)`."""
        ...


@dataclass(frozen=True)
class Model:
    """A regression of z on features of architectures, fitted."""

    features: Encoder
    regressor: Regressor

    def mean_and_std(self, architectures: Sequence[Architecture]) -> tuple[Floats, Floats]:
        """Mean and standard deviation of each architecture's z, both `(n,)`."""
        if not architectures:
            return np.empty(0), np.empty(0)
        return self.regressor.mean_and_std(self.features.transform(architectures))


class LearnedPredictor(ABC):
    """A regression of z = t(y), y the outcomes, with intervals by conformal prediction of z (`calibrate`).

        y_hat = t^-1(z_hat)        [low, high] = t^-1(z_hat ± q max(sigma, floor))

    Args:
        seed: of the folds of the calibration.
    """

    name: str
    unit: str
    higher_is_better: bool

    def __init__(self, *, seed: int) -> None:
        self._seed = seed
        self._history: History = ()
        self._model: Model | None = None
        self._calibration: Calibration | None = None

    @abstractmethod
    def scale(self, outcomes: Floats) -> Scale:
        """The map t for these outcomes `(n,)`.

        Raises:
            UserError: an outcome that t is not defined for.
        """

    @abstractmethod
    def regress(self, architectures: Sequence[Architecture], z: Floats) -> Model:
        """Fit a new model to z `(n,)` of n architectures."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, str]:
        """What an estimate's provenance tells of the model."""

    def fit(self, history: History) -> None:
        """Learn from the history alone; what was learnt before is dropped. Architectures may occur repeatedly.

        Raises:
            UserError: fewer than `MIN_HISTORY` entries, or all of one architecture; an outcome out of range; an
                architecture that is not of the space.
        """
        if len(history) < MIN_HISTORY or len({architecture for architecture, _ in history}) < 2:
            problem = (
                f"{self.name} needs at least {MIN_HISTORY} outcomes of different architectures, not {len(history)}"
            )
            raise UserError("history", problem, code="too_few")
        y = np.array([outcome for _, outcome in history], dtype=np.float64)
        scale = self.scale(y)
        self._model, self._calibration = None, None
        self._history, self._scale, self._z = tuple(history), scale, scale(y)
        self._model = self._fitted_to(np.arange(len(history)))

    def estimates(self, architectures: Sequence[Architecture]) -> list[Estimate]:
        """Expected outcomes with 95 % intervals.

        The intervals hold on average over architectures drawn from the same distribution as those of the history: a
        history near one limit says less about architectures far from it. The first call after `fit` trains five more
        models, one for each fold of the calibration.

        Raises:
            UserError: nothing has been learnt yet, or an architecture is not of the space.
        """
        model, calibration = self.model, self._calibrated()
        means, stds = model.mean_and_std(architectures)
        rows = self._scale.inverse(np.column_stack([means, calibration.intervals(means, stds)])).tolist()
        provenance: dict[str, str | int | float] = {
            **self.settings,
            "history": len(self._history),
            "coverage": calibration.coverage,
            "seed": self._seed,
        }
        return [
            Estimate(self.name, value, self.unit, self.higher_is_better, interval=(low, high), provenance=provenance)
            for value, low, high in rows
        ]

    def __call__(self, architecture: Architecture) -> Estimate:
        """See `estimates`."""
        return self.estimates([architecture])[0]

    @property
    def model(self) -> Model:
        """The fitted model.

        Raises:
            UserError: nothing has been learnt yet.
        """
        if self._model is None:
            raise UserError(self.name, "call fit first: nothing has been learnt yet", code="missing")
        return self._model

    def _fitted_to(self, rows: Indices) -> Model:
        return self.regress([self._history[i][0] for i in rows], self._z[rows])

    def _calibrated(self) -> Calibration:
        if self._calibration is None:
            groups = [architecture for architecture, _ in self._history]
            self._calibration = calibrate(self._z, groups, self._held_out, seed=self._seed)
        return self._calibration

    def _held_out(self, train: Indices, test: Indices) -> tuple[Floats, Floats]:
        return self._fitted_to(train).mean_and_std([self._history[i][0] for i in test])
