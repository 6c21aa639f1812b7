"""Proposals for surrogates: neighbours of the best known architectures, and uniform draws."""

from __future__ import annotations

from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from espalier.nas.search.evolution import mutate, uniform


class LocalSampler(BaseSampler):
    """Alternates between uniform draws and mutations of the best architectures: proposals for a surrogate.

    White, Neiswanger & Savani, "BANANAS: Bayesian Optimization with Neural Architectures for Neural Architecture
    Search", AAAI 2021, section 4, optimise their acquisition function over mutations of the best architectures so
    far. The uniform draws keep the search from ending at a local optimum.

    Args:
        parents: how many of the best architectures, by the first objective, are mutated.
        seed: of all draws.
    """

    def __init__(self, *, parents: int, seed: int) -> None:
        self._parents = parents
        self._rng = np.random.default_rng(seed)
        self._best: list[FrozenTrial] = []
        self._near = False

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Find the parents for all proposals of this trial."""
        sign = -1 if study.directions[0] is StudyDirection.MAXIMIZE else 1
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        self._best = sorted(complete, key=lambda past: sign * past.values[0])[: self._parents]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All choices if the next proposal is a mutation; none for a uniform draw."""
        self._near = not self._near
        return dict(self._best[0].distributions) if self._best and self._near else {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A mutation of one of the parents."""
        if not search_space:
            return {}
        parent = self._best[self._rng.integers(len(self._best))]
        return mutate(parent.params, search_space, self._rng)

    def sample_independent(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        """A uniform draw."""
        return uniform(distribution, self._rng)
