"""The likeliest architecture when cost has a price: argmax_a log p(a) - mu cost(a)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from espalier.nas.architecture import Architecture
from espalier.nas.cost.table import CostTable
from espalier.nas.elastic.cost import ElasticCosts
from espalier.nas.region import Region
from espalier.nas.space import SearchSpace
from espalier.supernets.selection.argmax import argmax

ArchitectureAtPrice = Callable[[float], Architecture]
LEAST = -1e6
"""Of log p."""
MAX_SWEEPS = 20
"""Over the choices of an elastic space; two or three are usual."""


def architecture_at_price(
    space: SearchSpace, preferences: Mapping[str, Tensor], region: Region, costs: CostTable | ElasticCosts
) -> ArchitectureAtPrice:
    """The architecture as a function of the price mu.

    Costs that add up are decided choice by choice, which is exact. In an elastic space they multiply: there the maximum
    is sought choice by choice, again and again, beginning with the cheapest architecture, and may be a local one.

    Args:
        space: the search space.
        preferences: for each choice the probability of each option.
        region: the options to choose among.
        costs: of the space's options.
    """
    log_p = {name: p.double().log().clamp(min=LEAST) for name, p in preferences.items()}
    if isinstance(costs, ElasticCosts):
        return _multilinear(space, {name: p.tolist() for name, p in log_p.items()}, region, costs)
    rows = {name: torch.tensor(list(row.values())).to(log_p[name]) for name, row in costs.costs.items()}

    def at(price: float) -> Architecture:
        priced = {name: p - price * rows[name] if name in rows else p for name, p in log_p.items()}
        return argmax(space, priced, region)

    return at


def _multilinear(
    space: SearchSpace, log_p: Mapping[str, list[float]], region: Region, costs: ElasticCosts
) -> ArchitectureAtPrice:
    def at(price: float) -> Architecture:
        indices = {name: options[0] for name, options in region.items()}
        for _ in range(MAX_SWEEPS):
            before = dict(indices)
            for name, options in region.items():
                margin = costs.marginal(name, indices)
                scores = [log_p[name][i] - price * margin[i] for i in options]
                indices[name] = options[scores.index(max(scores))]
            if indices == before:
                break
        return space.architecture(indices)

    return at
