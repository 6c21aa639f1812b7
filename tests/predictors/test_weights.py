"""Fresh weights against the distributions they are drawn from."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import nn

from espalier.predictors.zero_cost.initialisation import gaussian_, kaiming_
from user_errors import user_error


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(16, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.GroupNorm(4, 64)]
    layers += [
        nn.LayerNorm(6),
        nn.InstanceNorm2d(64, affine=True),
        nn.BatchNorm2d(64, affine=False),
        nn.Conv1d(2, 2, 1),
    ]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(200, 300))
    for parameter in model.parameters():
        nn.init.constant_(parameter, 7.0)
    return model


def test_gaussian_weights_are_of_unit_variance(model: nn.Sequential) -> None:
    gaussian_(model)
    for layer in (model[0], model[-1]):
        assert float(layer.weight.detach().std()) == pytest.approx(1, abs=0.02)
        assert float(layer.weight.detach().mean()) == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize(
    ("mode", "convolution", "linear"), [("fan_in", 16 * 9, 200), ("fan_out", 64 * 9, 300)], ids=["in", "out"]
)
def test_kaiming_weights_have_variance_2_over_fan(
    mode: Literal["fan_in", "fan_out"], convolution: int, linear: int, model: nn.Sequential
) -> None:
    kaiming_(model, mode)
    assert float(model[0].weight.detach().var()) == pytest.approx(2 / convolution, rel=0.05)
    assert float(model[-1].weight.detach().var()) == pytest.approx(2 / linear, rel=0.05)


def test_biases_are_zero_and_normalisation_is_plain(model: nn.Sequential) -> None:
    gaussian_(model)
    for index in (0, 1, 3, 4, 5, -1):
        assert not model[index].bias.any()
    for index in (1, 3, 4, 5):
        assert bool((model[index].weight == 1).all())
    assert bool((model[7].weight == 7).all())  # of no kind that is drawn
    assert bool((model[7].bias == 7).all())


def test_the_draw_is_that_of_the_global_generator(model: nn.Sequential) -> None:
    torch.manual_seed(3)
    gaussian_(model)
    torch.manual_seed(3)
    assert torch.equal(model[0].weight, torch.randn(64, 16, 3, 3))
    assert model[0].weight.requires_grad


def test_nothing_to_draw_is_refused() -> None:
    with user_error("network", "unsupported", says="Conv2d"):
        gaussian_(nn.Sequential(nn.Conv1d(1, 1, 1)))
