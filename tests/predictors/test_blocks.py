"""Where a network is cut into blocks, and that running it block by block changes nothing."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.predictors.zero_cost.blocks import block_ends, run_blocks, traced
from user_errors import user_error

CELL = "|nor_conv_3x3~0|+|nor_conv_1x1~0|avg_pool_3x3~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, channels, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.b(self.relu(self.a(x))))


def ends(model: nn.Module, x: Tensor) -> list[str]:
    return [str(node.target) for node in block_ends(traced(model), x)]


def test_a_block_is_a_convolution_and_what_follows_in_its_shape() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(6, 9, 1),  # of one position: no maps
        nn.Flatten(),
        nn.Linear(9, 5),
    )
    assert ends(model, torch.randn(4, 3, 8, 8)) == ["2", "5"]


def test_branches_are_inside_a_block() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Residual(4), Residual(4), nn.Flatten(), nn.Linear(144, 2))
    assert ends(model, torch.randn(4, 3, 8, 8)) == ["0", "1.relu", "2.relu"]


def test_the_blocks_of_a_cell_network(small_space: NasBench201) -> None:
    network = small_space.build(small_space.parse(CELL))
    seen: list[tuple[int, ...]] = []
    run_blocks(network, torch.randn(3, 1, 8, 8), lambda _, features: seen.append(tuple(features.shape)))
    stem_and_cell, halved, quartered = (3, 4, 8, 8), (3, 8, 4, 4), (3, 16, 2, 2)
    assert seen == [stem_and_cell] * 2 + [halved] * 2 + [quartered] * 2
    assert str(block_ends(network, torch.randn(3, 1, 8, 8))[-1].target) == "head.1"  # its batch norm and ReLU are in


@pytest.mark.parametrize(("name", "blocks"), [("resnet18", 9), ("mobilenetv3_small_050", 23)])
def test_networks_of_a_library(name: str, blocks: int) -> None:
    import timm

    seen: list[Tensor] = []
    run_blocks(timm.create_model(name, num_classes=10), torch.randn(2, 3, 64, 64), lambda _, f: seen.append(f))
    assert len(seen) == blocks
    assert all(features.ndim == 4 and features.shape[2] > 1 for features in seen)


def test_block_by_block_is_the_network() -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), Residual(4), nn.AvgPool2d(2), Residual(4))
    model = nn.Sequential(body, nn.Flatten(), nn.Linear(36, 2)).double()
    x = torch.randn(5, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    blocks: list[tuple[Tensor, Tensor]] = []
    run_blocks(model, x.detach(), lambda x, features: blocks.append((x, features)))
    features = body(x)
    torch.testing.assert_close(blocks[-1][1], features)
    for (_, output), (following, _) in itertools.pairwise(blocks):
        assert output.shape == following.shape
    g = torch.randn_like(features)
    (expected,) = torch.autograd.grad(features, x, g)
    for block_in, output in reversed(blocks):  # each block's own gradient, one after the other
        (g,) = torch.autograd.grad(output, block_in, g)
    torch.testing.assert_close(g, expected)


class Two(nn.Module):
    """Logits, and the images beside them."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.body(x), x


def test_what_comes_with_the_logits_is_no_way_around() -> None:
    body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2))
    assert ends(Two(body), torch.randn(2, 1, 8, 8)) == ["body.1"]


class Branches(nn.Module):
    """Looks at the values."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_a_network_that_cannot_be_traced_is_refused() -> None:
    with user_error("network", "unsupported", says="torch.fx"):
        traced(Branches())
