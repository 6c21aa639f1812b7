"""Zen against the formula by hand; the feature map of all kinds of networks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.predictors.zero_cost.feature_maps import feature_map
from espalier.predictors.zero_cost.network import ScoreError
from espalier.predictors.zero_cost.zen import ALPHA, IMAGES, Zen, zen

IMAGE = torch.Size((3, 8, 8))


def network(scale: float = 1.0, momentum: float | None = 0.1, *, tracked: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(5, momentum=momentum, track_running_stats=tracked)
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3, bias=False),
        norm,
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 2),
    )
    with torch.no_grad():
        model[0].weight.normal_().mul_(scale)
    return model


def seeded(model: nn.Module) -> float:
    torch.manual_seed(1)
    return zen(model, IMAGE)


def by_hand(scale: float) -> float:
    model = network(scale)
    torch.manual_seed(1)
    x, x_ = torch.randn(IMAGES, *IMAGE), torch.randn(IMAGES, *IMAGE)
    z = [F.conv2d(images, model[0].weight).detach() for images in (x, x + ALPHA * x_)]
    f = [F.relu((z - z.mean((0, 2, 3), keepdim=True)) / z.std((0, 2, 3), keepdim=True, correction=0)) for z in z]
    running = 0.81 + 0.09 * z[0].var((0, 2, 3)) + 0.1 * z[1].var((0, 2, 3))
    return math.log((f[0] - f[1]).abs().sum() / IMAGES) + math.log(running.mean().sqrt())


@pytest.mark.parametrize("scale", [1.0, 10.0])
@pytest.mark.parametrize("tracked", [True, False])
def test_the_formula_by_hand(scale: float, tracked: bool) -> None:
    assert seeded(network(scale, tracked=tracked)) == pytest.approx(by_hand(scale), abs=1e-4)


def test_a_scaled_convolution_before_batch_norm_adds_its_logarithm_with_momentum_1() -> None:
    assert seeded(network(10.0, 1.0)) - seeded(network(1.0, 1.0)) == pytest.approx(2.302585, abs=1e-4)
    assert 2.2 < seeded(network(10.0)) - seeded(network(1.0)) < 2.29  # the running variance starts at 1


def test_old_running_statistics_do_not_count() -> None:
    model = network()
    model[1].running_var.fill_(100.0)
    assert seeded(model) == seeded(network())


def test_the_weights_are_drawn_afresh() -> None:
    x, y = torch.zeros(2, *IMAGE), torch.zeros(2, dtype=torch.int64)
    assert Zen()(network(1.0), x, y, seed=4) == Zen()(network(5.0), x, y, seed=4)
    assert Zen()(network(), x, y, seed=4) != Zen()(network(), x, y, seed=5)


def test_a_map_that_does_not_depend_on_the_input_scores_minus_infinity() -> None:
    model = network()
    nn.init.zeros_(model[0].weight)
    assert seeded(model) == -math.inf


def test_the_map_of_a_cell_network_is_the_output_of_its_last_relu() -> None:
    space = NasBench201((3, 8, 8), 10, channels=4, cells=1)
    model = space.build(space.sample(torch.Generator().manual_seed(0)))
    seen: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, nn.AdaptiveAvgPool2d):
            module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = feature_map(model, x)
    assert found.shape == (4, 16, 2, 2)
    torch.testing.assert_close(found, seen[0])
    torch.testing.assert_close(found, feature_map(torch.fx.symbolic_trace(model), x))


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "convnext_atto", "resnet18"])
def test_the_map_of_known_networks_is_what_they_call_their_features(name: str) -> None:
    import timm

    model = timm.create_model(name, num_classes=10).eval()
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(feature_map(model, x), model.forward_features(x), rtol=1e-4, atol=1e-4)


class Pools(nn.Module):
    """A residual sum, changed in place, and a pooling without a module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = (x + self.conv(x)).mul_(2)
        pooled, _ = F.max_pool2d(x, 2, return_indices=True)
        return pooled.flatten(2).mean(2), pooled


def test_functions_are_seen() -> None:
    model = Pools()
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(feature_map(model, x), model(x)[1])


def test_networks_without_a_map_are_refused() -> None:
    import timm

    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    tokens = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=2)
    single = nn.Sequential(nn.Conv2d(3, 3, 4), nn.ReLU(), nn.Flatten(), nn.Linear(3, 2))
    flat = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    for model, images in [(tokens, torch.randn(2, 3, 32, 32)), (single, x), (flat, x)]:
        with pytest.raises(ScoreError, match=r"^network: it has no feature map"):
            feature_map(model, images)
