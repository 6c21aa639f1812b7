"""Regularised evolution as an Optuna sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from espalier.nas.pareto import non_dominated


class RegularizedEvolutionSampler(BaseSampler):
    """Ageing evolution: mutates the best of a random sample of the youngest `population_size` architectures.

    Real et al., "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019, Algorithm 1. The first
    `population_size` proposals are uniform. After that, `sample_size` members are drawn from the population with
    replacement, and the best of them gets one choice, drawn uniformly, moved to another option, drawn uniformly.
    Every finished trial joins the population, and the oldest member leaves it, however good it is. With several
    objectives, the best is drawn uniformly from the members of the sample that no other member dominates.

    Args:
        population_size: P of the paper.
        sample_size: S of the paper.
        seed: of all draws.
    """

    def __init__(self, *, population_size: int, sample_size: int, seed: int) -> None:
        self._population_size = population_size
        self._sample_size = sample_size
        self._rng = np.random.default_rng(seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All choices once there is a full population; before that, proposals are independent."""
        population = self._population(study)
        return dict(population[-1].distributions) if len(population) >= self._population_size else {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A mutation of the best member of a random sample."""
        if not search_space:
            return {}
        population = self._population(study)
        sample = [population[i] for i in self._rng.integers(len(population), size=self._sample_size)]
        return mutate(self._best(sample, study.directions).params, search_space, self._rng)

    def sample_independent(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        """A uniform draw."""
        return uniform(distribution, self._rng)

    def _population(self, study: Study) -> list[FrozenTrial]:
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return trials[-self._population_size :]

    def _best(self, sample: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> FrozenTrial:
        names = [direction.name.lower() for direction in directions]
        best = np.flatnonzero(non_dominated([trial.values for trial in sample], names))
        return sample[best[self._rng.integers(len(best))]]


def mutate(
    parameters: Mapping[str, Any], distributions: Mapping[str, BaseDistribution], rng: np.random.Generator
) -> dict[str, Any]:
    """A copy with one random choice moved to another random option.

    Args:
        parameters: of the parent.
        distributions: the choices.
        rng: makes both draws.
    """
    child = dict(parameters)
    open_choices = [name for name in distributions if len(_options(distributions[name])) > 1]
    if open_choices:
        name = open_choices[rng.integers(len(open_choices))]
        others = [option for option in _options(distributions[name]) if option != child[name]]
        child[name] = others[rng.integers(len(others))]
    return child


def uniform(distribution: BaseDistribution, rng: np.random.Generator) -> Any:
    """A uniform draw among the options of a choice."""
    options = _options(distribution)
    return options[rng.integers(len(options))]


def _options(distribution: BaseDistribution) -> tuple[Any, ...]:
    if not isinstance(distribution, CategoricalDistribution):
        raise TypeError(f"choices are categorical, not {type(distribution).__name__}")
    return distribution.choices
