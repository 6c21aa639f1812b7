"""Selection under a limit on the cost."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nas.architecture import Architecture
from nas.cost_table import CostTable
from nas.region import Region
from nas.space import SearchSpace
from supernets.selection.argmax import argmax

HALVINGS = 60
"""Of the interval of prices: to the last digit."""
HIGHEST = 1e18
"""Of all prices; infinite for any table."""


def likeliest_within(
    space: SearchSpace, preferences: Mapping[str, Tensor], region: Region, costs: CostTable, limit: float
) -> Architecture:
    """The likeliest architecture of a cost that is at most `limit`, and as near to it as a price of cost can bring it.

    Where even the dearest keeps the limit, the likeliest of all.

        argmax_a log p(a) - mu cost(a)   with the smallest mu such that cost(a) <= limit

    This is the Lagrangian relaxation of `max log p(a) such that cost(a) = limit`: exact for the costs that some price
    reaches, and for others the next lower of these. A negative mu rewards cost: the likeliest option of every choice
    can be the cheap one where dear ones together are likelier, and then the likeliest architecture of all costs far
    less than the architectures that p stands for.

    Args:
        preferences: for each choice the probability of each option. region: the options to choose among.
        costs: of the space's options. limit: at least that of the cheapest architecture, in the unit of `costs`.
    """

    def at(price: float) -> Architecture:
        priced = {
            name: p.double().log().clamp(min=-1e6)
            - price * torch.tensor(list(costs.costs[name].values()), device=p.device)
            if name in costs.costs
            else p
            for name, p in preferences.items()
        }
        return argmax(space, priced, region)

    def fits(price: float) -> bool:
        return costs.cost(at(price)) <= limit

    high = 1.0 / max(limit, 1e-9)
    while not fits(high) and high < HIGHEST:
        high *= 4
    low = -1.0 / max(limit, 1e-9)
    while fits(low) and low > -HIGHEST:
        low *= 4
    if fits(low):
        return at(0.0)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return at(high)
