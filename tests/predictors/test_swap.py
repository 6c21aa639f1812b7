"""SWAP against patterns counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from espalier.predictors.zero_cost.swap import SWAP, PatternCounter, RegularisedSWAP
from user_errors import user_error

ROWS = torch.tensor([[1.0, -1, 1, 1], [1, -1, -1, 1], [1, 1, 1, 1]])  # three images of four units


@pytest.fixture
def model() -> nn.Sequential:
    """Its only ReLU sees the image itself, so that the weights do not matter; 1530 parameters."""
    return nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(50, 30))


def count(*maps: Tensor) -> int:
    with PatternCounter(len(maps[0]), torch.device("cpu")) as patterns:
        for z in maps:
            z.relu()
    return patterns.count


def unique_columns(z: Tensor) -> int:
    return np.unique((z.flatten(1) > 0).numpy(), axis=1).shape[1]


def test_different_columns_are_counted() -> None:
    assert count(ROWS[:, :, None, None]) == 3
    assert count(ROWS.reshape(3, 1, 2, 2)) == 3
    assert count(torch.cat([ROWS, -ROWS], 1)[:, :, None, None]) == 6
    assert count(torch.zeros(3, 4, 1, 1)) == 1


def test_patterns_of_several_relus_count_once() -> None:
    z = ROWS[:, :, None, None]
    assert count(z, z) == 3
    assert count(z[:, :2], z[:, 2:]) == 3
    assert count(z, -z) == 6


def test_sixteen_images_are_counted_exactly() -> None:
    z = torch.randn(16, 8, 30, 30, generator=torch.Generator().manual_seed(0))
    assert 6000 < unique_columns(z) < 7200
    assert count(z) == unique_columns(z)


def test_only_relus_of_maps_count() -> None:
    assert count(ROWS[:, :, None, None], torch.randn(3, 90)) == 3


def test_the_score_reads_the_first_sixteen_images(model: nn.Sequential) -> None:
    x = torch.randn(20, 2, 5, 5, generator=torch.Generator().manual_seed(0)) + 1.5
    y = torch.zeros(20, dtype=torch.int64)
    expected = unique_columns(x[:16])
    assert expected < unique_columns(x) <= 50
    assert SWAP()(model, x, y) == expected
    assert SWAP()(model, x[:16], y[:16]) == expected
    assert SWAP()(model, x[:2], y[:2]) == unique_columns(x[:2])


def test_the_weights_are_drawn_afresh() -> None:
    model = nn.Sequential(nn.Conv2d(1, 6, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(54, 2))
    nn.init.zeros_(model[0].weight)
    x, y = torch.randn(8, 1, 5, 5, generator=torch.Generator().manual_seed(0)), torch.zeros(8, dtype=torch.int64)
    assert SWAP()(model, x, y) > 20
    assert len({SWAP()(model, x, y, seed=seed) for seed in range(4)}) > 1


def test_the_regularisation_is_a_bell_over_the_size(model: nn.Sequential) -> None:
    x = torch.randn(5, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(5, dtype=torch.int64)
    patterns = unique_columns(x)
    assert RegularisedSWAP(mu=1.53, sigma=1)(model, x, y) == patterns
    assert RegularisedSWAP(mu=3.53, sigma=8)(model, x, y) == pytest.approx(patterns * math.exp(-0.5))
    assert RegularisedSWAP(mu=0.53, sigma=0.5)(model, x, y) == pytest.approx(patterns * math.exp(-2))


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan])
def test_a_width_that_is_not_positive_is_refused(sigma: float) -> None:
    with user_error("sigma", "out_of_range"):
        RegularisedSWAP(sigma=sigma)


def test_networks_without_relus_of_maps_are_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(4, 2))
    with user_error("network", "unsupported", says="swap"):
        SWAP()(model, torch.randn(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64))
