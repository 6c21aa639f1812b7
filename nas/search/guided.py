"""Guided search: of several proposals of any sampler, only the one that a guide prefers is evaluated."""

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
"""Draws for each wanted proposal before fewer are accepted: a sampler that has converged repeats itself."""


class Guide(Protocol):
    """Predicts which proposals are promising."""

    def utilities(self, study: Study, architectures: Sequence[Architecture]) -> Floats | None:
        """A number for each architecture; larger is better.

        Args:
            study: the study so far.
            architectures: the proposals.

        Returns:
            `(n,)`; `None` while the guide cannot judge yet.
        """
        ...


class ScoreGuide:
    """A guide by a fixed score.

    Args:
        evaluator: the score.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator

    def utilities(self, study: Study, architectures: Sequence[Architecture]) -> Floats | None:
        """The scores, negated if lower is better; values that are not finite rank worst."""
        return np.array([utility(self._evaluator, architecture) for architecture in architectures])


class GuidedSampler(BaseSampler):
    """Draws up to k different proposals from another sampler, and keeps the one that the guide prefers.

    The assisted searches of Zhang & Jia, "GradSign: Model Performance Inference with Theoretical Insights", ICLR 2022
    (G-REA, G-Random, G-RL), after Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021. Known
    and forbidden proposals are left out as long as others remain.

    Args:
        base: makes the proposals.
        guide: chooses among them.
        distributions: the choices of the space.
        proposals: k.
        allowed: whether an architecture satisfies the limits that cost nothing to check.
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
        """All choices: proposals are compared as a whole."""
        return self._distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The proposal that the guide prefers; the first one if the guide cannot judge yet."""
        proposals = self._draw(study, trial)
        architectures = [to_architecture(parameters) for parameters in proposals]
        utilities = self._guide.utilities(study, architectures) if len(proposals) > 1 else None
        return proposals[0 if utilities is None else int(np.argmax(utilities))]

    def sample_independent(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        """A draw of the base sampler."""
        return self._base.sample_independent(study, trial, name, distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Forwarded to the base sampler."""
        self._base.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Forwarded to the base sampler."""
        self._base.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Forwarded to the base sampler."""
        self._base.reseed_rng()

    def _draw(self, study: Study, trial: FrozenTrial) -> list[Parameters]:
        """One to k different proposals; only new and allowed ones if there are any."""
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
