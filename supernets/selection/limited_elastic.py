"""Selection under a limit on the cost in elastic spaces, where the costs of choices multiply."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from nas.architecture import Architecture
from nas.elastic.cost import ElasticCosts
from nas.region import Region
from nas.space import SearchSpace

HALVINGS = 40
"""Of the interval of prices."""
MOST_SWEEPS = 20
"""Over the choices; two or three are usual."""
LEAST = 1e-300
"""Of p, so that it has a logarithm."""


def likeliest_elastic(
    space: SearchSpace, preferences: Mapping[str, Tensor], region: Region, costs: ElasticCosts, limit: float
) -> Architecture:
    """The likeliest architecture of a cost that is at most `limit` and near it, or of any where even the dearest fits.

        argmax_a log p(a) - mu cost(a)   with the smallest mu such that cost(a) <= limit

    as `likeliest_within` has it for costs that add up, a negative mu rewarding cost. Here the maximum is sought choice
    by choice, beginning with the cheapest architecture, and may be a local one.

    Args:
        preferences: for each choice the probability of each option. region: the options to choose among.
        costs: of the space's options. limit: at least that of the cheapest architecture, in the unit of `costs`.
    """
    if costs.dearest(region) <= limit:
        return _at(0.0, space, preferences, region, costs)
    high = 1.0
    while costs.cost(_at(high, space, preferences, region, costs)) > limit:
        high *= 8
    low = -high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        fits = costs.cost(_at(middle, space, preferences, region, costs)) <= limit
        low, high = (low, middle) if fits else (middle, high)
    return _at(high, space, preferences, region, costs)


def _at(
    price: float, space: SearchSpace, preferences: Mapping[str, Tensor], region: Region, costs: ElasticCosts
) -> Architecture:
    """The architecture at a price of cost, in shares of the dearest's."""
    likelihood = {name: p.double().clamp(min=LEAST).log().tolist() for name, p in preferences.items()}
    unit = price / costs.dearest(region)
    indices = {name: min(options) for name, options in region.items()}
    for _ in range(MOST_SWEEPS):
        before = dict(indices)
        for name, options in region.items():
            margin = costs.marginal(name, indices)
            score = [likelihood[name][i] - unit * margin[i] for i in options]
            indices[name] = options[score.index(max(score))]
        if indices == before:
            break
    return space.architecture(indices)
