"""A guide that learns from the study it guides."""

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
    """A learner that says how sure it is."""

    def mean_and_std(self, architectures: Sequence[Architecture]) -> tuple[Floats, Floats]:
        """Expected values `(n,)` and their standard deviations `(n,)`, in the unit of what was learnt from."""
        ...


class SurrogateGuide:
    """An acquisition function of a surrogate, which is fitted to the first objective of the complete candidates.

    It learns their normal scores, z = Φ⁻¹((rank - 1/2) / n), not their values: most of the spread of the values lies
    among bad architectures, and a standard deviation made of it would promise much where there is nothing to find.
    Salinas, Shen & Perrone, "A Quantile-based Approach for Hyperparameter Transfer Learning", ICML 2020.

    Args:
        surrogate: what is fitted.
        settings: when, and what is asked of it.
        seed: of the draws of `thompson`.
    """

    def __init__(self, surrogate: Surrogate, settings: SurrogateSettings, *, seed: int) -> None:
        self._surrogate, self._settings = surrogate, settings
        self._rng = np.random.default_rng(seed)
        self._learnt_from = 0
        self._best = 0.0

    def utilities(self, study: Study, architectures: Sequence[Architecture]) -> Floats | None:
        """The acquisition function, after a fit if enough is new; `None` while the history is too short."""
        sign = 1 if study.directions[0] is StudyDirection.MAXIMIZE else -1
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        history = {to_architecture(trial.params): trial.values[0] for trial in complete}
        if len(history) < self._settings.least_history:
            return None
        if not self._learnt_from or len(history) - self._learnt_from >= self._settings.refit_every:
            z = normal_scores(list(history.values()))
            self._surrogate.fit(list(zip(history, z.tolist(), strict=True)))
            self._learnt_from, self._best = len(history), float((sign * z).max())
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
"""Of upward means and stds, the best value so far and β: what is expected; the optimist's bound mean + β std; a draw
for each architecture (independent Thompson sampling of BANANAS, AAAI 2021, section 4); the expected improvement."""
