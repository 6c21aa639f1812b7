"""MeCo of channels whose correlations are known."""

from __future__ import annotations

import pytest
import torch
from scipy.linalg import hadamard
from torch import Tensor, nn

from espalier.predictors.zero_cost.meco import MeCo, MeCoOpt, smallest_eigenvalue
from espalier.predictors.zero_cost.score import Score
from user_errors import user_error

ORTHOGONAL = torch.from_numpy(hadamard(32)[1:]).float()  # 31 rows, centred, without any correlation


class Puts(nn.Module):
    """A layer that puts out one map `(c, h, w)`, whatever comes in."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> Tensor:
        return self.output[None].clone()


class Clears(nn.Module):
    """Overwrites what comes in with zeros."""

    def forward(self, x: Tensor) -> Tensor:
        return x.zero_()


def score(score: Score, *layers: nn.Module, seed: int = 0) -> float:
    model = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(2))
    x = torch.zeros(3, 1, 4, 4)
    model(x)  # for the shape of the lazy layer
    return score(model, x, torch.zeros(3, dtype=torch.int64), seed=seed)


def test_two_channels_with_correlation_r_have_1_minus_r() -> None:
    a, b, c = ORTHOGONAL[:3]
    assert smallest_eigenvalue(torch.stack([a, b])) == pytest.approx(1, abs=1e-12)
    assert smallest_eigenvalue(torch.stack([a + b, b + c])) == pytest.approx(0.5, abs=1e-12)
    assert smallest_eigenvalue(torch.stack([a + b + 7, -3 * (b + c)])) == pytest.approx(0.5, abs=1e-12)
    assert smallest_eigenvalue(torch.stack([a, b, a + b])) == pytest.approx(0, abs=1e-12)


def test_constant_channels_and_too_few_positions_have_0() -> None:
    a, b = ORTHOGONAL[:2]
    assert smallest_eigenvalue(torch.stack([a, b, torch.ones(32)])) == pytest.approx(0, abs=1e-12)
    assert smallest_eigenvalue(torch.ones(1, 32)) == 0
    z = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)).double()
    assert smallest_eigenvalue(z) > 1e-3
    assert smallest_eigenvalue(z[:, :4]) == 0
    assert float(torch.linalg.eigvalsh(torch.corrcoef(z[:, :4]))[0]) == pytest.approx(0, abs=1e-12)


def test_every_layer_counts_once_and_containers_do_not() -> None:
    assert score(MeCo(), nn.Identity()) == pytest.approx(1)  # the random image: one channel, not constant
    assert score(MeCo(), nn.Sequential(nn.Sequential(nn.Identity()), nn.Identity())) == pytest.approx(2)
    shared = nn.Identity()
    assert score(MeCo(), shared, shared, shared) == pytest.approx(3)
    assert score(MeCo(), Puts(ORTHOGONAL[:16].reshape(16, 4, 8)), nn.Identity()) == pytest.approx(2)


def test_maps_are_read_before_they_are_overwritten() -> None:
    assert score(MeCo(), Puts(ORTHOGONAL[:16].reshape(16, 4, 8)), Clears()) == pytest.approx(1)


@pytest.mark.parametrize(("c", "expected"), [(16, 2.0), (12, 1.5), (8, 1.0), (3, 1.0)])
def test_eight_channels_stand_for_all(c: int, expected: float) -> None:
    assert score(MeCoOpt(), Puts(ORTHOGONAL[:c].reshape(c, 4, 8))) == pytest.approx(expected)


def test_the_eight_channels_are_drawn_at_random() -> None:
    twice = torch.cat([ORTHOGONAL[:15], ORTHOGONAL[:1]]).reshape(16, 4, 8)  # λ_min is 0 where both copies are drawn
    values = {round(score(MeCoOpt(), Puts(twice), seed=seed), 9) for seed in range(20)}
    assert values == {0.0, 2.0}


def test_a_batch_norm_of_single_values_is_refused() -> None:
    norm = nn.BatchNorm2d(1)
    model = nn.Sequential(nn.Conv2d(1, 1, 4), norm, nn.Flatten(), nn.Linear(1, 2))
    with user_error("network", "unsupported", says="per channel"):
        MeCo()(model, torch.zeros(3, 1, 4, 4), torch.zeros(3, dtype=torch.int64))


def test_networks_without_maps_are_refused() -> None:
    with user_error("network", "unsupported", says="map"):
        score(MeCo())
