"""What every model of a space's costs offers, whether they are counted or measured."""

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
        """The expected cost, a differentiable scalar, if each choice is drawn with these probabilities."""
        ...

    def cheapest(self, open_options: Mapping[str, Sequence[int]]) -> float:
        """The cost of the cheapest architecture of a region."""
        ...

    def most_expensive(self, open_options: Mapping[str, Sequence[int]]) -> float:
        """The cost of the most expensive architecture of a region."""
        ...


def macs_of(space: SearchSpace) -> CostTable | ElasticCosts:
    """Multiply-accumulates of a space's networks, counted layer by layer; exact, without any measurement.

    Args:
        space: any space, on any device.

    Raises:
        UserError: the space has choices that change several layers at once, so that layers cannot be counted alone.
    """
    if any(isinstance(choice, ElasticChoice) for choice in space.choices().values()):
        return elastic_costs(space, "macs")
    return macs_table(space)
