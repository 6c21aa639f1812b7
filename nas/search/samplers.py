"""Samplers by name. A sampler proposes the next architecture."""

from __future__ import annotations

from collections.abc import Mapping

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from espalier.nas.errors import UserError
from espalier.nas.objective import Evaluator
from espalier.nas.search.evolution import RegularizedEvolutionSampler
from espalier.nas.search.guided import Guide, GuidedSampler, ScoreGuide
from espalier.nas.search.local import LocalSampler
from espalier.nas.search.scores import Allowed
from espalier.nas.search.settings import SamplerName, SearchSettings
from espalier.nas.search.surrogate import Surrogate, SurrogateGuide


def sampler(
    settings: SearchSettings,
    evaluators: Mapping[str, Evaluator],
    surrogate: Surrogate | None,
    distributions: Mapping[str, BaseDistribution],
    *,
    allowed: Allowed,
    seed: int,
) -> BaseSampler:
    """The sampler of the settings, with its guide if it has one.

    Args:
        settings: of the search.
        evaluators: by name, including the guide's.
        surrogate: the predictor that is fitted to the search, if one is needed.
        distributions: the choices of the space.
        allowed: see `GuidedSampler`.
        seed: of all draws.

    Raises:
        UserError: a surrogate is needed, but there is none.
    """
    base = settings.own_sampler(seed) or make_sampler(
        settings.sampler, seed=seed, population_size=settings.population_size, sample_size=settings.sample_size
    )
    if settings.learns and surrogate is None:
        raise UserError("search", "the settings need a surrogate, but there is none", code="missing")
    guide: Guide
    if surrogate is not None and settings.learns:
        guide = SurrogateGuide(surrogate, settings.surrogate, seed=seed)
    elif settings.guide is not None:
        guide = ScoreGuide(evaluators[settings.guide.by])
    else:
        return base
    proposals = settings.guide.proposals if settings.guide is not None else settings.surrogate.proposals
    return GuidedSampler(base, guide, distributions, proposals=proposals, allowed=allowed)


def make_sampler(name: SamplerName, *, seed: int, population_size: int, sample_size: int) -> BaseSampler:
    """A sampler by name.

    Args:
        name: `surrogate` makes the proposals that the surrogate then chooses from.
        seed: of all draws.
        population_size: of nsga2 and regularized_evolution; number of parents for surrogate.
        sample_size: tournament size of regularized_evolution.
    """
    if name == "random":
        return RandomSampler(seed=seed)
    if name == "tpe":
        return TPESampler(seed=seed)
    if name == "nsga2":
        return NSGA2Sampler(seed=seed, population_size=population_size)
    if name == "surrogate":
        return LocalSampler(seed=seed, parents=population_size)
    return RegularizedEvolutionSampler(seed=seed, population_size=population_size, sample_size=sample_size)


class NSGA2Sampler(NSGAIISampler):
    """NSGA-II whose population also contains queued architectures.

    Optuna assigns a trial to a generation with its first proposal, which a queued trial does not have.
    """

    _generation_of = (-1, 0)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Assign the trial to a generation."""
        super().before_trial(study, trial)
        self.get_trial_generation(study, trial)

    def get_trial_generation(self, study: Study, trial: FrozenTrial) -> int:
        """The trial's generation, worked out once however often a proposal for it is drawn."""
        if trial.number != self._generation_of[0]:
            self._generation_of = (trial.number, super().get_trial_generation(study, trial))
        return self._generation_of[1]
