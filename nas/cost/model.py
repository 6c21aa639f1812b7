"""What the networks of a space cost, whoever counts or measures it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from espalier.nas.architecture import Architecture
from espalier.nas.choices import ElasticChoice
from espalier.nas.cost.macs import macs_table
from espalier.nas.cost.table import CostTable
from espalier.nas.elastic.cost import ElasticCosts, elastic_costs
from espalier.nas.space import SearchSpace


class CostModel(Protocol):
    """The cost of every architecture of a space, and its expectation, in one unit.

    Attributes:
        unit: of all numbers.
    """

    @property
    def unit(self) -> str: ...

    def cost(self, architecture: Architecture) -> float:
        """The cost of one architecture."""
        ...

    def expected(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """The mean cost, a differentiable scalar, of architectures drawn choice by choice with these probabilities."""
        ...

    def cheapest(self, open_options: Mapping[str, Sequence[int]]) -> float:
        """The cost of the cheapest architecture of a region."""
        ...

    def most_expensive(self, open_options: Mapping[str, Sequence[int]]) -> float:
        """The cost of the most expensive architecture of a region."""
        ...


def macs_of(space: SearchSpace) -> CostTable | ElasticCosts:
    """Multiply-accumulates of a space's networks, counted layer by layer: exact, and nothing has to be measured.

    Raises:
        UserError: the space has choices that change its layers in a way that cannot be counted one by one.
    """
    if any(isinstance(choice, ElasticChoice) for choice in space.choices().values()):
        return elastic_costs(space, "macs")
    return macs_table(space)
