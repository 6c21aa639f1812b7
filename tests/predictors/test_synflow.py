"""SynFlow against its conservation law and its invariances."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.predictors.zero_cost.synflow import SynFlow

LABELS = torch.tensor([0, 1])


def chain(*weights: Tensor, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for w in weights:
        layer = nn.Linear(w.shape[1], w.shape[0], bias=False)
        layer.weight.data = w.clone()
        layers += [layer, activation()]
    return nn.Sequential(*layers[:-1])


def score(model: nn.Module, *shape: int) -> float:
    return SynFlow()(model, torch.randn(2, *shape), LABELS)


def test_two_layers_by_hand() -> None:
    # R = 7.5, and each layer's Σ |w ∂R/∂w| is R
    w1, w2 = torch.tensor([[1.0, -2], [0.5, 1]]), torch.tensor([[2.0, -1]])
    assert score(chain(w1, w2), 2) == 15
    assert score(chain(-w1, w2.abs()), 2) == 15
    assert score(chain(w1 * 4, w2 / 4), 2) == 15


def test_relu6_cuts_nothing_off() -> None:
    w1, w2 = torch.tensor([[10.0, -20], [5.0, 10]]), torch.tensor([[2.0, -1]])
    assert score(chain(w1, w2, activation=nn.ReLU6), 2) == score(chain(w1, w2), 2) == 150


def test_every_layer_of_a_chain_without_biases_carries_r() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(3, 3, generator=generator) for _ in range(7)]
    r = torch.ones(3, dtype=torch.float64)
    for w in weights:
        r = w.double().abs() @ r
    assert score(chain(*weights), 3) == pytest.approx(7 * float(r.sum()), rel=1e-12)


def test_biases_carry_signal_but_are_not_counted() -> None:
    # R = |w| + |b| = 2 + 5; w ∂R/∂w = 2
    layer = nn.Linear(1, 1)
    layer.weight.data, layer.bias.data = torch.tensor([[2.0]]), torch.tensor([-5.0])
    assert score(layer, 1) == 2
    # behind it, w2 ∂R/∂w2 = 3 (2 + 5)
    assert score(nn.Sequential(layer, chain(torch.tensor([[3.0]]))), 1) == 3 * 2 + 3 * 7


class NormAndSquare(nn.BatchNorm2d):
    """A batch norm with its activation inside."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) ** 2


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x**2


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("track", [True, False])
def test_batch_norms_are_removed_and_nothing_else(affine: bool, track: bool) -> None:
    torch.manual_seed(0)
    convolution, head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 9, 5)
    norms = [
        nn.BatchNorm2d(4, affine=affine, track_running_stats=track),
        NormAndSquare(4, affine=affine, track_running_stats=track),
    ]
    for norm in norms:
        for tensor in [*norm.parameters(), *norm.buffers()]:
            tensor.data.fill_(3)
    without = nn.Sequential(convolution, Square(), nn.Flatten(), head)
    with_norms = nn.Sequential(convolution, *norms, nn.Flatten(), head)
    assert score(with_norms, 3, 5, 5) == pytest.approx(score(without, 3, 5, 5), rel=1e-12)


def test_dropout_is_off_and_the_batch_is_not_read() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    x = torch.randn(2, 3, 2, 2)
    assert SynFlow()(model, x, LABELS) == SynFlow()(model, torch.full_like(x, torch.nan), LABELS + 1)


def test_a_cell_without_any_path_scores_zero(small_space: NasBench201) -> None:
    cell = small_space.parse("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")
    assert score(small_space.build(cell), 1, 8, 8) == 0
    cell = small_space.parse("|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|")
    assert score(small_space.build(cell), 1, 8, 8) > 0


def test_deep_networks_stay_finite() -> None:
    weights = [torch.full((16, 16), 10.0)] * 50
    value = score(chain(*weights), 16)
    assert math.log10(value) == pytest.approx(math.log10(50 * 16) + 50 * math.log10(160), rel=1e-9)  # 10^113


def test_what_overflows_is_returned_as_it_is() -> None:
    value = score(chain(*[torch.full((16, 16), 1e6)] * 50), 16)
    assert not math.isfinite(value)
