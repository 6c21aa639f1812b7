"""Selection under a cost limit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from torch import Tensor

from espalier.nas.architecture import Architecture, Option
from espalier.nas.cost.table import CostTable
from espalier.nas.elastic.cost import ElasticCosts
from espalier.nas.region import Region
from espalier.nas.space import SearchSpace
from espalier.supernets.selection.lagrangian import architecture_at_price

HALVINGS = 60
"""Of the interval of prices: down to rounding."""
HIGHEST = 1e18
"""Of all prices; infinite for any table."""
LEAST = math.log(0.01)
"""Of log p: options that training has ruled out are not chosen to use up the rest of the limit."""


def likeliest_within(
    space: SearchSpace,
    preferences: Mapping[str, Tensor],
    region: Region,
    costs: CostTable | ElasticCosts,
    limit: float,
) -> Architecture:
    """The likeliest architecture of a cost at most `limit` and near it, or of any cost where even the highest fits.

        argmax_a log p(a) - mu cost(a)   with the smallest mu such that cost(a) <= limit

    This is the Lagrangian relaxation of `max log p(a) such that cost(a) = limit`: exact for the costs that some price
    reaches. For others it is the next lower of these, from which single options are then changed for dearer ones that
    fit, those first that give up the least of log p for their cost. A negative mu rewards cost: the likeliest option
    of every choice can be the cheap one where dear ones together are likelier, and then the likeliest architecture of
    all costs far less than the architectures that p stands for.

    Args:
        space: the search space.
        preferences: for each choice the probability of each option.
        region: the options to choose among.
        costs: of the space's options.
        limit: at least that of the cheapest architecture, in the unit of `costs`.
    """
    at = architecture_at_price(space, preferences, region, costs)

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
    log_p = {
        name: {space.choices()[name].options[i]: math.log(max(float(p[i]), 1e-300)) for i in region[name]}
        for name, p in preferences.items()
        if name in costs.choices
    }
    return _use_up_limit(at(high), log_p, costs, limit)


def _use_up_limit(
    chosen: Architecture,
    log_p: Mapping[str, Mapping[Option, float]],
    costs: CostTable | ElasticCosts,
    limit: float,
) -> Architecture:
    """`chosen`, its options changed one by one for dearer ones as long as their cost fits under the limit."""

    def changes(cost: float) -> Iterator[tuple[float, Architecture]]:
        """What a change gives up of log p for each unit of cost, and the architecture it leads to."""
        for name, row in log_p.items():
            for option, value in row.items():
                changed = Architecture({**chosen, name: option})
                extra = costs.cost(changed) - cost
                if value >= LEAST and 0 < extra <= limit - cost:
                    yield (row[chosen[name]] - value) / extra, changed

    while possible := list(changes(costs.cost(chosen))):
        _, chosen = min(possible, key=lambda change: change[0])
    return chosen
