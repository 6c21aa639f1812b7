"""Costs of elastic spaces: those of the built networks, and their exact expectation (T17 of weight entanglement)."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from espalier.nas.architecture import Architecture
from espalier.nas.cost.count import CostCounter
from espalier.nas.elastic.cost import ElasticCosts, elastic_costs
from espalier.nas.region import Region
from toy_elastic import ToyElastic


@pytest.fixture(scope="module")
def space() -> ToyElastic:
    return ToyElastic()


@pytest.fixture(scope="module")
def everything(space: ToyElastic) -> list[Architecture]:
    options = [choice.options for choice in space.choices().values()]
    return [Architecture(dict(zip(space.choices(), joint, strict=True))) for joint in itertools.product(*options)]


@pytest.fixture(scope="module", params=["macs", "params"])
def costs(request: pytest.FixtureRequest, space: ToyElastic) -> ElasticCosts:
    return elastic_costs(space, request.param)


def test_the_cost_is_that_of_the_built_network(
    space: ToyElastic, costs: ElasticCosts, everything: list[Architecture]
) -> None:
    counter = CostCounter(space)
    for architecture in everything[::23]:
        assert costs.cost(architecture) == getattr(counter(architecture), costs.unit)


def test_the_expectation_is_the_sum_over_all_architectures(
    space: ToyElastic, costs: ElasticCosts, everything: list[Architecture]
) -> None:
    """T17: sum_a p(a) cost(a) equals the multilinear formula, and so does its gradient."""
    torch.manual_seed(0)
    alphas = {n: torch.randn(len(c.options), dtype=torch.float64) for n, c in space.choices().items()}
    p = {name: alpha.softmax(0).requires_grad_() for name, alpha in alphas.items()}
    total = torch.zeros((), dtype=torch.float64)
    for architecture in everything:
        gates = space.gates(architecture)
        total = total + math.prod(p[name][index] for name, index in gates.items()) * costs.cost(architecture)
    expected = costs.expected(p)
    assert float(expected.detach()) == pytest.approx(float(total.detach()), rel=1e-12)
    wanted = torch.autograd.grad(total, list(p.values()))
    got = torch.autograd.grad(expected, list(p.values()), materialize_grads=True, allow_unused=True)
    # The sum over architectures weighs every cost by all p, so its slopes differ from ours by a number for each choice.
    for name, a, b in zip(p, got, wanted, strict=True):
        assert (a - a.mean()).tolist() == pytest.approx((b - b.mean()).tolist(), rel=1e-9, abs=1e-6), name


def test_extremes_and_margins(space: ToyElastic, costs: ElasticCosts, everything: list[Architecture]) -> None:
    values = [costs.cost(architecture) for architecture in everything]
    whole = Region.whole(space)
    assert costs.cheapest(whole) == min(values)
    assert costs.most_expensive(whole) == max(values)
    narrow = whole.decide("width", 1).restrict("heads", (0, 2))
    inside = [value for a, value in zip(everything, values, strict=True) if narrow.contains(space, a)]
    assert costs.cheapest(narrow) == min(inside)
    gates = space.gates(everything[5])
    for name in space.choices():
        moved = [costs.cost(space.architecture({**gates, name: i})) for i in range(len(space.choices()[name].options))]
        margins = costs.marginal(name, gates)
        assert [m - margins[0] for m in margins] == pytest.approx([m - moved[0] for m in moved])
