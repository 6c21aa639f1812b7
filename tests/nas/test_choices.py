from __future__ import annotations

import pytest
import torch
from torch import nn

from espalier.nas.choices import InputChoice, LayerChoice, ValueChoice, sum_present
from espalier.nas.gates import Mixture, mixture
from toy_space import ToySpace


def test_a_mixture_is_the_weighted_sum_of_its_active_options() -> None:
    choice = LayerChoice("c", {"twice": Scale(2.0), "none": None, "thrice": Scale(3.0)})
    x = torch.ones(2)
    weights = torch.tensor([0.5, 0.3, 0.2], requires_grad=True)
    y = choice(x, {"c": mixture(weights)})
    assert torch.allclose(y, 0.5 * 2 * x + 0.2 * 3 * x)
    y.sum().backward()
    assert torch.allclose(weights.grad, torch.tensor([4.0, 0.0, 6.0]))
    assert torch.allclose(choice(x, {"c": Mixture(weights, (2,))}), 0.2 * 3 * x)


def test_inactive_options_are_not_run() -> None:
    choice = LayerChoice("c", {"fine": nn.Identity(), "broken": Broken()})
    x = torch.ones(1)
    assert torch.equal(choice(x, {"c": 0}), x)
    assert torch.equal(choice(x, {"c": Mixture(torch.tensor([1.0, 1.0]), (0,))}), x)
    with pytest.raises(RuntimeError, match="was run"):
        choice(x, {"c": 1})


def test_nothing_passes_through_none() -> None:
    choice = LayerChoice("c", {"none": None, "skip": nn.Identity()})
    assert choice(torch.ones(1), {"c": 0}) is None
    assert choice(torch.ones(1), {"c": Mixture(torch.ones(2), (0,))}) is None
    assert sum_present([None, None]) is None


def test_one_hot_mixture_equals_the_path() -> None:
    space = ToySpace().eval()
    x = torch.randn(2, *space.input_shape)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        gates = space.gates(space.sample(generator))
        one_hot = {
            name: gate if name == "depth" else mixture(torch.eye(len(space.choices()[name].options))[gate])
            for name, gate in gates.items()
        }
        assert torch.allclose(space(x, one_hot), space(x, gates), atol=1e-6)


def test_input_choice_sums_its_subset() -> None:
    choice = InputChoice("i", 3, chosen=2)
    assert choice.options == ((0, 1), (0, 2), (1, 2))
    inputs = [torch.tensor(v) for v in (1.0, 10.0, 100.0)]
    assert choice(inputs, {"i": 1}) == 101
    assert choice(inputs, {"i": mixture(torch.tensor([0.5, 0.0, 1.0]))}) == 0.5 * 11 + 110


def test_value_choice_refuses_a_mixture() -> None:
    choice = ValueChoice("v", (8, 16))
    assert choice({"v": 1}) == 16
    with pytest.raises(TypeError, match="v: a single value"):
        choice({"v": mixture(torch.ones(2))})


@pytest.mark.parametrize("gate", [-1, 2, mixture(torch.ones(3)), mixture(torch.ones(1))])
def test_a_gate_that_does_not_fit_is_refused(gate: object) -> None:
    with pytest.raises(IndexError, match="c has 2 options"):
        LayerChoice("c", {"a": nn.Identity(), "b": nn.Identity()})(torch.ones(1), {"c": gate})


@pytest.mark.parametrize("active", [(1, 0), (0, 0), (0, 5)])
def test_active_options_are_increasing_indices(active: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="increasing"):
        Mixture(torch.ones(2), active)


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


class Broken(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("was run")
