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


def likeliest_within(
    space: SearchSpace, preferences: Mapping[str, Tensor], region: Region, costs: CostTable, limit: float
) -> Architecture:
    """The likeliest architecture at the lowest price mu of cost at which it keeps the limit.

        argmax_a log p(a) - mu cost(a)   with the smallest mu such that cost(a) <= limit

    This is the Lagrangian relaxation of `max log p(a) such that cost(a) <= limit`: exact for the limits that some
    price reaches, and for others as good as the next lower of these.

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

    plain = argmax(space, preferences, region)
    if costs.cost(plain) <= limit:
        return plain
    low, high = 0.0, 1.0 / max(limit, 1e-9)
    while costs.cost(at(high)) > limit and high < 1e18:
        low, high = high, 4 * high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if costs.cost(at(middle)) <= limit else (middle, high)
    return at(high)
