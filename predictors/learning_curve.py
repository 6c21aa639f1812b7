"""Final accuracy from the first epochs of a training."""

from __future__ import annotations

from typing import Any

import numpy as np

from espalier.nas.errors import UserError
from espalier.predictors.arrays import Floats, Indices
from espalier.predictors.conformal import Calibration, calibrate

MIN_CURVES = 8
"""The fewest curves to learn from."""
DRAWS = 20
"""Random settings of the regression to try; the best in three-fold cross-validation is kept."""


class LearningCurve:
    """ν-support-vector regression of the final accuracy on the curve so far, u_1 ... u_τ.

    The features are u_i, the first differences u_{i+1} - u_i, the second differences, and what else is known of each
    network, all standardised; C, ν and γ of the radial kernel are drawn and chosen by cross-validation. Baker, Gupta,
    Raskar & Naik, "Accelerating Neural Architecture Search using Performance Prediction", ICLR workshop 2018. Their
    intervals assume normal errors; these are conformal (`calibrate`, σ = 1), with the settings chosen on all curves.

    A model is for the τ it was fitted with.

    Args:
        seed: of the draws, the cross-validation and the calibration.
    """

    def __init__(self, *, seed: int) -> None:
        self._seed = seed
        self._fitted: tuple[Any, Calibration, tuple[int, int]] | None = None

    def fit(self, curves: Floats, finals: Floats, networks: Floats | None = None) -> None:
        """Learn from finished trainings, and from nothing before them.

        Args:
            curves: `(n, τ)`, an accuracy for each of the first τ epochs.
            finals: `(n,)`, the final accuracies.
            networks: `(n, d)`, further features such as an `Encoding` of the architectures.

        Raises:
            UserError: fewer than `MIN_CURVES` curves, shapes that do not match, or a number that is not finite.
        """
        from sklearn.base import clone

        x = _features(curves, networks)
        if x.shape[0] < MIN_CURVES or finals.shape != x.shape[:1]:
            problem = f"must be {MIN_CURVES} or more with one final accuracy each, not {x.shape[0]} with {finals.shape}"
            raise UserError("curves", problem, code="too_few" if x.shape[0] < MIN_CURVES else "mismatch")
        if not np.isfinite(finals).all():
            raise UserError("finals", "a final accuracy is not finite")

        model = self._choose(x, finals)

        def held_out(train: Indices, test: Indices) -> tuple[Floats, Floats]:
            return clone(model).fit(x[train], finals[train]).predict(x[test]), np.ones(len(test))

        calibration = calibrate(finals, range(len(x)), held_out, seed=self._seed)
        self._fitted = model.fit(x, finals), calibration, (curves.shape[1], x.shape[1])

    def predict(self, curves: Floats, networks: Floats | None = None) -> tuple[Floats, Floats]:
        """Final accuracies `(m,)` and their 95 % intervals `(m, 2)` for curves `(m, τ)` and networks `(m, d)`.

        Raises:
            UserError: nothing has been learnt yet, or curves or networks have another width than those of `fit`.
        """
        if self._fitted is None:
            raise UserError("curves", "call fit with finished trainings first", code="missing")
        model, calibration, widths = self._fitted
        x = _features(curves, networks)
        if (curves.shape[1], x.shape[1]) != widths:
            given = f"{curves.shape[1]} and {x.shape[1]}"
            problem = f"fitted to {widths[0]} epochs and {widths[1]} features, not {given}"
            raise UserError("curves", problem, code="mismatch")
        finals = model.predict(x)
        return finals, calibration.intervals(finals, np.ones(len(finals)))

    def _choose(self, x: Floats, y: Floats) -> Any:
        """The regression with the best of the settings drawn, not fitted."""
        from scipy.stats import loguniform, uniform
        from sklearn.compose import TransformedTargetRegressor
        from sklearn.model_selection import KFold, RandomizedSearchCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import NuSVR

        model = TransformedTargetRegressor(make_pipeline(StandardScaler(), NuSVR()), transformer=StandardScaler())
        ranges = {"C": loguniform(1e-2, 1e3), "nu": uniform(0.1, 0.9), "gamma": loguniform(1e-4, 1)}
        search = RandomizedSearchCV(
            model,
            {f"regressor__nusvr__{name}": values for name, values in ranges.items()},
            n_iter=DRAWS,
            scoring="neg_mean_absolute_error",
            cv=KFold(3, shuffle=True, random_state=self._seed),
            random_state=self._seed,
            refit=False,
        )
        return model.set_params(**search.fit(x, y).best_params_)


def _features(curves: Floats, networks: Floats | None) -> Floats:
    if curves.ndim != 2 or not curves.shape[1]:
        raise UserError("curves", f"must be (n, epochs), not {curves.shape}")
    if networks is not None and (networks.ndim != 2 or len(networks) != len(curves)):
        raise UserError("networks", f"must be ({len(curves)}, features), not {networks.shape}")
    parts = [curves, np.diff(curves, axis=1), np.diff(curves, n=2, axis=1), *([] if networks is None else [networks])]
    x = np.hstack(parts)
    if not np.isfinite(x).all():
        raise UserError("curves", "a number in the curves or networks is not finite")
    return x
