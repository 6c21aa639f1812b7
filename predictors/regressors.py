"""The models of a surrogate: features in, mean and standard deviation out. All of them are scikit-learn's."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from espalier.predictors.arrays import Floats


class Regressor(Protocol):
    """Learns outcomes `(n,)` from features `(n, d)`, standardised."""

    def fit(self, x: Floats, y: Floats) -> None:
        """Learn, from nothing before it."""
        ...

    def mean_and_std(self, x: Floats) -> tuple[Floats, Floats]:
        """Two arrays `(n,)`: the mean and the standard deviation of each row's outcome."""
        ...


class _Probabilistic:
    """A scikit-learn model that knows its own standard deviation."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def fit(self, x: Floats, y: Floats) -> None:
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings():
            # A hyper-parameter at its bound is fine: an outcome that repeats exactly has no noise, and a part of the
            # kernel that explains nothing has no variance.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._model.fit(x, y)

    def mean_and_std(self, x: Floats) -> tuple[Floats, Floats]:
        mean, std = self._model.predict(x, return_std=True)
        return mean, std


class _Ensemble:
    """A scikit-learn ensemble: mean and standard deviation over its members."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def fit(self, x: Floats, y: Floats) -> None:
        self._model.fit(x, y)

    def mean_and_std(self, x: Floats) -> tuple[Floats, Floats]:
        members = np.stack([member.predict(x) for member in self._model.estimators_])
        return members.mean(0), members.std(0)


def _gp(seed: int, columns: int) -> Regressor:
    """A Gaussian process with Matérn's kernel of ν = 5/2 and noise; their hyper-parameters maximise the likelihood.

    Rasmussen & Williams, "Gaussian Processes for Machine Learning", MIT Press 2006, sections 2.2 and 4.2. One length
    scale for all features: 150 outcomes do not settle one for each.
    """
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    scale = float(np.sqrt(columns))  # of the distance between two rows of standardised features
    matern = Matern(scale, (scale / 30, scale * 30), nu=2.5)
    kernel = ConstantKernel(1.0, (1e-2, 1e3)) * matern + WhiteKernel(0.1, (1e-6, 2.0))
    model = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=1, random_state=seed)
    return _Probabilistic(model)


def linear_and_smooth(linear_columns: int) -> Regressor:
    """A Gaussian process, linear in the leading columns and smooth (Matérn's kernel of ν = 5/2) in all of them.

    Variances are in units of that of the outcomes.

    Args:
        linear_columns: the number of leading columns.
    """
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
    smooth = ConstantKernel(0.1, VARIANCE) * Matern(1.0, LENGTH, nu=2.5)
    return _Probabilistic(GaussianProcessRegressor(linear + smooth + WhiteKernel(0.05, NOISE), normalize_y=True))


VARIANCE = (1e-4, 1e2)
NOISE = (1e-2, 1.0)
LENGTH = (0.2, 20.0)
"""Bounds of the hyper-parameters of `linear_and_smooth`; rows of features are about 1 apart. Timings are never free of
noise: with next to none, the smooth part alone can explain ten of them, and intervals scaled by it mean nothing."""


def _ridge(seed: int, columns: int) -> Regressor:
    """Bayesian ridge regression (MacKay, "Bayesian Interpolation", Neural Computation 1992)."""
    from sklearn.linear_model import BayesianRidge

    return _Probabilistic(BayesianRidge())


def _forest(seed: int, columns: int) -> Regressor:
    """100 extremely randomised trees (Geurts, Ernst & Wehenkel, Machine Learning 2006)."""
    from sklearn.ensemble import ExtraTreesRegressor

    return _Ensemble(ExtraTreesRegressor(100, bootstrap=True, max_features=0.5, random_state=seed))


def _boosting(seed: int, columns: int) -> Regressor:
    """Five gradient-boosted sets of trees (Friedman, Annals of Statistics 2001), each fitted to a bootstrap sample."""
    from sklearn.ensemble import BaggingRegressor, GradientBoostingRegressor

    member = GradientBoostingRegressor(n_estimators=50, learning_rate=0.2, max_features=0.5)
    return _Ensemble(BaggingRegressor(member, 5, random_state=seed))


MODELS: Mapping[str, Callable[[int, int], Regressor]] = {
    "gp": _gp,
    "forest": _forest,
    "boosting": _boosting,
    "ridge": _ridge,
}
"""By name: `(seed, number of features) -> Regressor`."""
