"""Samplers by name: who proposes the next architecture."""

from __future__ import annotations

from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler

from nas.search.evolution import RegularizedEvolutionSampler
from nas.search.settings import SamplerName


def make_sampler(name: SamplerName, *, seed: int, population_size: int, sample_size: int) -> BaseSampler:
    """A sampler; the population and tournament sizes are those of the evolutionary ones."""
    if name == "random":
        return RandomSampler(seed=seed)
    if name == "tpe":
        return TPESampler(seed=seed)
    if name == "nsga2":
        return NSGAIISampler(seed=seed, population_size=population_size)
    return RegularizedEvolutionSampler(seed=seed, population_size=population_size, sample_size=sample_size)
