"""Proposals of any sampler, filtered by a guide: of several, only the best is evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from espalier.nas.architecture import Architecture
from espalier.nas.objective import Evaluator
from espalier.nas.search.parameters import Parameters, to_architecture
from espalier.nas.search.scores import Allowed, utility

Floats = NDArray[np.float64]
TRIES_EACH = 2
"""Draws for each proposal wanted, before fewer are taken: a sampler that has converged repeats itself."""


class Guide(Protocol):
    """Who says which proposals are promising."""

    def utilities(self, study: Study, architectures: Sequence[Architecture]) -> Floats | None:
        """A number for each architecture `(n,)`, the larger the better; `None` as long as there is nothing to say."""
        ...


class ScoreGuide:
    """An evaluator that is asked, and learns nothing."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator

    def utilities(self, study: Study, architectures: Sequence[Architecture]) -> Floats | None:
        """Its numbers in the direction that is expected to be good; what is not a finite number ranks worst."""
        return np.array([utility(self._evaluator, architecture) for architecture in architectures])


class GuidedSampler(BaseSampler):
    """Draws up to k different proposals from another sampler and keeps the one that the guide likes best.

    The assisted searches of Zhang & Jia, "GradSign: Model Performance Inference with Theoretical Insights", ICLR 2022
    (G-REA, G-Random, G-RL), after Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021. Proposals
    that the study knows, or that are not allowed, are left out as long as others remain.

    Args:
        base: whose proposals they are.
        guide: who judges them.
        distributions: the choices of the space.
        proposals: k.
        allowed: what keeps the limits that are known without effort.
    """

    def __init__(
        self,
        base: BaseSampler,
        guide: Guide,
        distributions: Mapping[str, BaseDistribution],
        *,
        proposals: int,
        allowed: Allowed,
    ) -> None:
        self._base, self._guide = base, guide
        self._distributions, self._proposals, self._allowed = dict(distributions), proposals, allowed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All choices: a proposal is judged as a whole."""
        return self._distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The best of the proposals; the first where the guide has nothing to say."""
        proposals = self._draw(study, trial)
        architectures = [to_architecture(parameters) for parameters in proposals]
        utilities = self._guide.utilities(study, architectures) if len(proposals) > 1 else None
        return proposals[0 if utilities is None else int(np.argmax(utilities))]

    def sample_independent(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        """A draw of the other sampler."""
        return self._base.sample_independent(study, trial, name, distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Hands on."""
        self._base.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Hands on."""
        self._base.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Hands on."""
        self._base.reseed_rng()

    def _draw(self, study: Study, trial: FrozenTrial) -> list[Parameters]:
        """At least one proposal, at most k; all different, all new and allowed if any is."""
        known = {_key(past.params) for past in study.get_trials(deepcopy=False) if past.state.is_finished()}
        drawn: dict[tuple[Any, ...], Parameters] = {}
        good: dict[tuple[Any, ...], Parameters] = {}
        for _ in range(TRIES_EACH * self._proposals):
            parameters = self._draw_one(study, trial)
            key = _key(parameters)
            if key not in drawn and key not in known and self._allowed(to_architecture(parameters)):
                good[key] = parameters
            drawn[key] = parameters
            if len(good) == self._proposals:
                break
        return list((good or drawn).values())

    def _draw_one(self, study: Study, trial: FrozenTrial) -> Parameters:
        space = self._base.infer_relative_search_space(study, trial)
        relative = self._base.sample_relative(study, trial, space)
        return {
            name: relative[name] if name in relative else self._base.sample_independent(study, trial, name, options)
            for name, options in self._distributions.items()
        }


def _key(parameters: Parameters) -> tuple[Any, ...]:
    return tuple(sorted(parameters.items()))
