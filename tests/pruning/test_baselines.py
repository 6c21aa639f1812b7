"""The methods beside soft shrinkage: their schedules, what they exchange, what they add to gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from espalier.pruning.growing_regularisation import GrowingRegularisation
from espalier.pruning.magnitude import GradualMagnitude, OneShotMagnitude
from espalier.pruning.patterns import Globally, Layerwise, NOfM
from espalier.pruning.rigl import RigL
from espalier.pruning.weights import Weights
from user_errors import user_error


def layer(n: int = 100, seed: int = 0) -> Weights:
    return {"w": nn.Parameter(torch.randn(n // 10, 10, generator=torch.Generator().manual_seed(seed)))}


def zeros(weights: Weights) -> int:
    return int((weights["w"] == 0).sum())


def test_one_shot_leaves_the_network_alone_until_the_end() -> None:
    weights = layer()
    before = weights["w"].clone()
    pruner = OneShotMagnitude(weights, Layerwise({"w": 70}), iterations=3)
    pruner.step()
    pruner.step()
    assert torch.equal(weights["w"], before)
    pruner.step()
    assert zeros(weights) == 70
    assert torch.equal(weights["w"] == 0, before.abs() <= before.abs().flatten().sort().values[69])


def test_gradual_pruning_follows_the_cubic() -> None:
    """s_t = s_f - s_f (1 - t / n)^3, rounded to whole weights; 80 zeros at the end of 10 iterations."""
    weights = layer()
    pruner = GradualMagnitude(weights, Layerwise({"w": 80}), iterations=10)
    counts = []
    for _ in range(10):
        pruner.step()
        counts.append(zeros(weights))
    assert counts == [round(80 * (1 - (1 - t / 10) ** 3)) for t in range(1, 11)]
    assert counts == [22, 39, 53, 63, 70, 75, 78, 79, 80, 80]


def test_gradual_pruning_removes_at_evenly_spaced_iterations_and_for_good() -> None:
    weights = layer()
    pruner = GradualMagnitude(weights, Layerwise({"w": 80}), iterations=10, updates=4)
    counts, before = [], torch.zeros(10, 10, dtype=torch.bool)
    for index in range(10):
        with torch.no_grad():
            weights["w"] += torch.randn(10, 10, generator=torch.Generator().manual_seed(index))
        pruner.step()
        assert (weights["w"] == 0)[before].all()
        before = weights["w"] == 0
        counts.append(zeros(weights))
    assert [a != b for a, b in zip(counts, [0, *counts], strict=False)] == [t in (3, 5, 8, 10) for t in range(1, 11)]
    with user_error("updates", "out_of_range"):
        GradualMagnitude(weights, Layerwise({"w": 80}), iterations=10, updates=0)


def test_rigl_drops_the_smallest_and_grows_where_gradients_are_largest() -> None:
    """Of 10 weights 4 are in; f(2) = .5 / 2 (1 + cos(2π / 8)) of them, .43 * 4 = 1.7, so 2 are exchanged."""
    weights = {"w": nn.Parameter(torch.tensor([[10.0, 9, 8, 7, 6, 5, 4, 3, 2, 1]]))}
    pruner = RigL(weights, Layerwise({"w": 6}), iterations=10, fraction=0.5, every=2, until=0.8)
    pruner.step()
    assert weights["w"].tolist() == [[10, 9, 8, 7, 0, 0, 0, 0, 0, 0]]
    weights["w"].grad = torch.tensor([[0.0, 0, 0.5, 0.1, 0, 0, 0.3, 0, -0.9, 0]])
    pruner.step()  # 7 and 8 leave; the ninth enters at 0, and the third, which has left, comes back as it was
    assert weights["w"].tolist() == [[10, 9, 8, 0, 0, 0, 0, 0, 0, 0]]
    assert pruner.select()["w"].nonzero()[:, 1].tolist() == [0, 1, 2, 8]
    with torch.no_grad():
        weights["w"].copy_(torch.arange(1.0, 11.0))
    pruner.step()
    assert weights["w"].nonzero()[:, 1].tolist() == [0, 1, 2, 8]


def test_rigl_exchanges_ever_fewer_and_at_last_none() -> None:
    """round(f(t) a) of the a = 500 weights that are in leave, f falling along a cosine from α to 0 at T_end."""
    weights = {"w": nn.Parameter(torch.randn(1000, 1, generator=torch.Generator().manual_seed(0)))}
    pruner = RigL(weights, Layerwise({"w": 500}), iterations=20, fraction=0.4, every=4, until=0.8)
    before, left = torch.zeros(1000, 1, dtype=torch.bool), {}
    for t in range(1, 21):
        kept_before = before
        weights["w"].grad = torch.where(kept_before, 0.0, 1.0 + torch.rand(1000, 1))  # nobody comes back
        pruner.step()
        before = pruner.select()["w"].clone()
        assert int(before.sum()) == 500
        if t > 1 and (gone := int((kept_before & ~before).sum())):
            left[t] = gone
    assert left == {t: round(0.2 * (1 + math.cos(math.pi * t / 16)) * 500) for t in (4, 8, 12)}


def test_rigl_keeps_any_pattern() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {name: nn.Parameter(torch.randn(8, 8, generator=generator)) for name in "ab"}
    for pattern in (NOfM(2, 4), Globally(96)):
        pruner = RigL(weights, pattern, iterations=20, every=2)
        for _ in range(10):
            for weight in weights.values():
                weight.grad = torch.randn(8, 8, generator=generator)
                with torch.no_grad():
                    weight.add_(0.1 * torch.randn(8, 8, generator=generator))
            pruner.step()
            kept = pruner.select()
            if isinstance(pattern, NOfM):
                assert all((mask.reshape(-1, 4).sum(dim=1) == 2).all() for mask in kept.values())
            assert sum(int(mask.sum()) for mask in kept.values()) == (64 if isinstance(pattern, NOfM) else 32)


def test_rigl_says_what_it_lacks() -> None:
    weights = layer()
    with user_error("every", "out_of_range", says="75"):
        RigL(weights, Layerwise({"w": 50}), iterations=100, every=100)
    assert RigL(weights, Layerwise({"w": 50}), iterations=100).every == 7
    assert RigL(weights, Layerwise({"w": 50}), iterations=100_000).every == 100
    with user_error("fraction", "out_of_range"):
        RigL(weights, Layerwise({"w": 50}), iterations=100, every=10, fraction=0.0)
    pruner = RigL(weights, Layerwise({"w": 50}), iterations=100, every=2)
    pruner.step()
    with user_error("w", "missing"):
        pruner.step()


def test_the_penalty_grows_in_steps_and_settles() -> None:
    """λ grows by .1 in every second of 10 iterations to .5, and stays there for 10 more."""
    pruner = GrowingRegularisation(layer(), Layerwise({"w": 90}), iterations=20, limit=0.5, increments=5, settle=0.5)
    strengths = [pruner.strength(t) for t in range(1, 21)]
    assert strengths == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5, 0.5] + [0.5] * 10)


def test_the_penalty_is_on_what_was_chosen_at_the_start_alone() -> None:
    weights = {"w": nn.Parameter(torch.tensor([[1.0, -2.0, 3.0, -4.0]]))}
    pruner = GrowingRegularisation(weights, Layerwise({"w": 2}), iterations=4, limit=0.4, increments=4, settle=0.0)
    for strength in (0.1, 0.2, 0.3):
        weights["w"].grad = torch.full((1, 4), 7.0)
        pruner.before_step()
        values = weights["w"].tolist()[0]
        expected = [7 + strength * values[0], 7 + strength * values[1], 7.0, 7.0]
        assert weights["w"].grad.tolist()[0] == pytest.approx(expected)
        pruner.step()
        with torch.no_grad():
            weights["w"].copy_(torch.tensor([[5.0, 6.0, 0.1, 0.2]]))  # the first two are no longer the smallest
    pruner.step()
    assert weights["w"].tolist()[0] == pytest.approx([0, 0, 0.1, 0.2])
    weights["w"].grad = torch.full((1, 4), 7.0)
    pruner.before_step()
    assert weights["w"].grad.tolist() == [[7.0] * 4]


@pytest.mark.parametrize(("key", "value"), [("limit", 0.0), ("increments", 0), ("settle", 1.0)])
def test_a_wrong_option_of_the_penalty_is_told(key: str, value: float) -> None:
    with user_error(key, "out_of_range"):
        GrowingRegularisation(layer(), Layerwise({"w": 90}), iterations=20, **{key: value})
