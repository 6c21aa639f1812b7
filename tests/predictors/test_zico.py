"""ZiCo against sums worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espalier.predictors.zero_cost.zico import ZiCo, zico
from user_errors import user_error

Batch = tuple[Tensor, Tensor]
G = torch.tensor([[1.0, -2.0], [3.0, 2.0]])  # mean |g| = (2, 2), deviations (1, 2): Σ 2/1 + 2/2 = 3


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(108, 10))


def test_two_mini_batches_by_hand() -> None:
    assert zico([G]) == pytest.approx(math.log(3), abs=1e-12)
    assert zico([G * 1e-30]) == pytest.approx(math.log(3), abs=1e-6)  # its variance is no float32
    assert zico([G, G.reshape(2, 1, 2), G[:, :1]]) == pytest.approx(2 * math.log(3) + math.log(2), abs=1e-12)


def test_what_does_not_vary_is_left_out() -> None:
    constant = torch.tensor([[1.0, 5.0], [1.0, 2.0]])  # 1/0 left out; 3.5/1.5
    assert zico([constant]) == pytest.approx(math.log(3.5 / 1.5), abs=1e-12)
    assert zico([constant[:, :1], G, torch.zeros(2, 4)]) == pytest.approx(math.log(3), abs=1e-12)


def test_the_mini_batches_are_the_halves(model: nn.Sequential, grey_batch: Batch) -> None:
    x, y = grey_batch
    expected = ZiCo()(model, x, y)
    halves: list[list[Tensor]] = []
    for part in (slice(None, 12), slice(12, None)):
        model.zero_grad()
        F.cross_entropy(model(x[part]), y[part]).backward()
        halves.append([model[i].weight.grad.clone() for i in (0, 4)])
    layers = [(a.abs() + b.abs()) / (a - b).abs() for a, b in zip(*halves, strict=True)]
    assert expected == pytest.approx(sum(math.log(layer.sum()) for layer in layers), rel=1e-5)


def test_equal_halves_and_unused_layers_score_nothing(model: nn.Sequential, grey_batch: Batch) -> None:
    x, y = grey_batch
    assert ZiCo()(model, torch.cat([x, x]), torch.cat([y, y])) == 0.0
    model[3].unused = nn.Linear(2, 2)
    before = ZiCo()(model, x, y)
    del model[3].unused
    assert ZiCo()(model, x, y) == before


def test_one_image_is_refused(model: nn.Sequential, grey_batch: Batch) -> None:
    x, y = grey_batch
    with user_error("images", "too_few"):
        ZiCo()(model, x[:1], y[:1])
