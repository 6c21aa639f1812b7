"""Networks to compare the chosen ones with: in elastic spaces the size alone explains much of the accuracy."""

from __future__ import annotations

import torch

from espalier.nas.architecture import Architecture
from espalier.nas.choices import ElasticChoice
from espalier.nas.elastic.cost import elastic_costs
from espalier.nas.space import SearchSpace

DRAWS = 500
"""Random architectures to look at for those of a given size."""
NEAREST = 10
"""How many of them are of about that size."""


def is_elastic(space: SearchSpace) -> bool:
    """Whether every choice is of a size, so that there is a largest network."""
    return all(isinstance(choice, ElasticChoice) for choice in space.choices().values())


def largest(space: SearchSpace) -> Architecture:
    """The last option of every choice."""
    return Architecture({name: choice.options[-1] for name, choice in space.choices().items()})


class SameSize:
    """Random architectures with about as many parameters as a given one.

    Args:
        space: an elastic one.
        generator: of the draws, which are shared by all calls.
    """

    def __init__(self, space: SearchSpace, generator: torch.Generator) -> None:
        costs = elastic_costs(space, "params")
        self._params = costs.cost
        self._draws = {architecture: costs.cost(architecture) for architecture in _drawn(space, generator)}

    def __call__(self, architecture: Architecture) -> list[Architecture]:
        """The `NEAREST` of `DRAWS`, the nearest in size first."""
        size = self._params(architecture)
        return sorted(self._draws, key=lambda other: abs(self._draws[other] - size))[:NEAREST]


def _drawn(space: SearchSpace, generator: torch.Generator) -> list[Architecture]:
    return [space.sample(generator) for _ in range(DRAWS)]
