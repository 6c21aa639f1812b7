"""A guide that is fitted to the study it guides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from optuna.study import Study, StudyDirection
from optuna.trial import TrialState

from espalier.nas.architecture import Architecture
from espalier.nas.predictor import Learner
from espalier.nas.search.guided import Floats
from espalier.nas.search.parameters import to_architecture
from espalier.nas.search.settings import Acquisition, SurrogateSettings


class Surrogate(Learner, Protocol):
    """A learner with uncertainty."""

    def mean_and_std(self, architectures: Sequence[Architecture]) -> tuple[Floats, Floats]:
        """Expected values `(n,)` and their standard deviations `(n,)`, in the unit of the history."""
        ...


class SurrogateGuide:
    """The acquisition function of a surrogate that is fitted to the first objective of the complete candidates.

    It is fitted to their normal scores, z = Φ⁻¹((rank - 1/2) / n), not to their values. Most of the spread of the
    values is among bad architectures, and would make the standard deviations too large everywhere.
    Salinas, Shen & Perrone, "A Quantile-based Approach for Hyperparameter Transfer Learning", ICML 2020.

    Args:
        surrogate: the predictor to fit.
        settings: when to fit it, and the acquisition function.
        seed: of the draws of `thompson`.
    """

    def __init__(self, surrogate: Surrogate, settings: SurrogateSettings, *, seed: int) -> None:
        self._surrogate, self._settings = surrogate, settings
        self._rng = np.random.default_rng(seed)
        self._fitted_to = 0
        self._best = 0.0

    def utilities(self, study: Study, architectures: Sequence[Architecture]) -> Floats | None:
        """The acquisition function, after a new fit if it is due; `None` while the history is too short."""
        sign = 1 if study.directions[0] is StudyDirection.MAXIMIZE else -1
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        history = {to_architecture(trial.params): trial.values[0] for trial in complete}
        if len(history) < self._settings.least_history:
            return None
        if not self._fitted_to or len(history) - self._fitted_to >= self._settings.refit_every:
            z = normal_scores(list(history.values()))
            self._surrogate.fit(list(zip(history, z.tolist(), strict=True)))
            self._fitted_to, self._best = len(history), float((sign * z).max())
        mean, std = self._surrogate.mean_and_std(architectures)
        return ACQUISITIONS[self._settings.acquisition](sign * mean, std, self._best, self._settings.beta, self._rng)


def normal_scores(values: Sequence[float]) -> Floats:
    """Φ⁻¹((r - 1/2) / n) of the n values `(n,)`, r the rank from 1, equal values sharing their mean rank."""
    from scipy.stats import norm, rankdata

    z: Floats = norm.ppf((rankdata(values) - 0.5) / len(values))
    return z


def expected_improvement(mean: Floats, std: Floats, best: float) -> Floats:
    """E[max(f - best, 0)] of f ~ N(mean, std²) `(n,)`: s (z Φ(z) + φ(z)) with z = (mean - best) / s.

    Jones, Schonlau & Welch, "Efficient Global Optimization of Expensive Black-Box Functions", 1998, equation 15.
    """
    from scipy.stats import norm

    z = (mean - best) / np.where(std > 0, std, 1)
    improvement: Floats = np.where(std > 0, std * (z * norm.cdf(z) + norm.pdf(z)), np.maximum(mean - best, 0))
    return improvement


ACQUISITIONS: Mapping[Acquisition, Callable[[Floats, Floats, float, float, np.random.Generator], Floats]] = {
    "mean": lambda mean, std, best, beta, rng: mean,
    "ucb": lambda mean, std, best, beta, rng: mean + beta * std,
    "thompson": lambda mean, std, best, beta, rng: rng.normal(mean, std),
    "expected_improvement": lambda mean, std, best, beta, rng: expected_improvement(mean, std, best),
}
"""Functions of means and standard deviations (larger is better), the best value so far, and β: the mean; the upper
confidence bound mean + β std; a draw for each architecture (the independent Thompson sampling of BANANAS, AAAI 2021,
section 4); and the expected improvement."""
