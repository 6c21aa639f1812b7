"""What every allocation has to do: whole numbers that add up, at least one weight in each layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from espalier.pruning.allocation import ALLOCATIONS, global_magnitude
from espalier.pruning.allocation.choices import choices
from espalier.pruning.allocation.lgreco import lgreco
from espalier.pruning.allocation.scored import saliency
from espalier.pruning.patterns import Layerwise
from espalier.pruning.weights import Weights
from user_errors import user_error

Allocate = Callable[[Weights, float], dict[str, int]]
MEMBERS: Mapping[str, Allocate] = {
    **ALLOCATIONS,
    "er": lambda weights, sparsity: ALLOCATIONS["erk"](weights, sparsity, kernel=False, power=0.5),
    "global, normalised": lambda weights, sparsity: global_magnitude(weights, sparsity, normalise=True),
    "saliency": lambda weights, sparsity: saliency(weights, sparsity, {n: w.detach() ** 2 for n, w in weights.items()}),
    "lgreco by macs": lambda weights, sparsity: lgreco(
        weights, sparsity, choices(weights, macs={name: 1.0 + 7 * i for i, name in enumerate(weights)}), buckets=500
    ),
}
"""By a name; a new allocation that needs nothing but the weights is here as soon as it is in `ALLOCATIONS`."""
SHAPES = ((16, 3, 3, 3), (32, 16, 3, 3), (1, 1), (64, 32, 1, 1), (10, 64))


def weights_of(shapes: tuple[tuple[int, ...], ...] = SHAPES, seed: int = 0) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{i}.weight": nn.Parameter(torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:])))
        for i, shape in enumerate(shapes)
    }


@pytest.fixture(params=MEMBERS)
def allocate(request: pytest.FixtureRequest) -> Allocate:
    return MEMBERS[request.param]


def assert_exact(zeros: dict[str, int], weights: Weights, sparsity: float) -> None:
    n = sum(weight.numel() for weight in weights.values())
    assert list(zeros) == list(weights)
    assert all(type(count) is int for count in zeros.values())
    assert n - sum(zeros.values()) == round((1 - sparsity) * n)
    assert all(0 <= zeros[name] < weight.numel() for name, weight in weights.items())


@pytest.mark.parametrize("sparsity", [0.0, 0.001, 0.5, 0.55, 0.9, 0.95, 0.99, 0.999])
def test_the_numbers_add_up(allocate: Allocate, sparsity: float) -> None:
    weights = weights_of()
    before = {name: weight.clone() for name, weight in weights.items()}
    zeros = allocate(weights, sparsity)
    assert_exact(zeros, weights, sparsity)
    masks = Layerwise(zeros).select({name: weight.detach().abs() for name, weight in weights.items()})
    assert {name: int((~kept).sum()) for name, kept in masks.items()} == zeros
    assert all(torch.equal(weight, before[name]) for name, weight in weights.items())
    assert allocate(weights, sparsity) == zeros


layers = st.lists(st.lists(st.integers(1, 5), min_size=2, max_size=4).map(tuple), min_size=1, max_size=5).map(tuple)


@pytest.mark.parametrize("name", MEMBERS)
@settings(max_examples=25, deadline=None)
@given(shapes=layers, sparsity=st.floats(0, 0.999), seed=st.integers(0, 1000))
def test_they_do_for_any_layers(name: str, shapes: tuple[tuple[int, ...], ...], sparsity: float, seed: int) -> None:
    weights = weights_of(shapes, seed)
    if round((1 - sparsity) * sum(weight.numel() for weight in weights.values())) < len(weights):
        with user_error("sparsity", "infeasible"):
            MEMBERS[name](weights, sparsity)
        return
    assert_exact(MEMBERS[name](weights, sparsity), weights, sparsity)


def test_a_layer_of_zeros_is_no_exception(allocate: Allocate) -> None:
    weights = weights_of()
    with torch.no_grad():
        weights["1.weight"].zero_()
    assert_exact(allocate(weights, 0.9), weights, 0.9)


def test_what_cannot_be_reached_is_refused(allocate: Allocate) -> None:
    with user_error("sparsity", "out_of_range"):
        allocate(weights_of(), 1.0)
    with user_error("sparsity", "infeasible", says="0.9999"):
        allocate(weights_of(), 0.9999)
