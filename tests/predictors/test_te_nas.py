"""TE-NAS's two scores: kernels of linear networks, and regions of networks with known kinks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from espalier.predictors.zero_cost.linear_regions import LinearRegions, count_regions, downscaled, fix_statistics, walks
from espalier.predictors.zero_cost.ntk import IMAGES, NTKCondition, condition, tangent_kernel
from espalier.predictors.zero_cost.relu_codes import code_kernel
from user_errors import user_error


def labels(x: Tensor) -> Tensor:
    return torch.zeros(len(x), dtype=torch.int64)


def kappa(model: nn.Module, x: Tensor) -> float:
    return NTKCondition()(model, x, labels(x))


def test_condition_numbers_by_hand() -> None:
    assert condition(torch.diag(torch.tensor([2.0, 8.0, 3.0], dtype=torch.float64))) == 4
    assert condition(torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)) == pytest.approx(3)
    assert condition(torch.ones(3, 3, dtype=torch.float64)) == math.inf
    assert math.isnan(condition(torch.zeros(3, 3, dtype=torch.float64)))
    assert math.isnan(condition(torch.full((2, 2), torch.nan, dtype=torch.float64)))


def test_a_linear_network_by_hand() -> None:
    # F_i = Σ_c w_c x_i + b_c, so Θ = classes X Xᵀ, whatever the weights, and b is not in it
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])[:, :, None, None]
    assert kappa(nn.Sequential(nn.Flatten(), nn.Linear(2, 5)), x) == pytest.approx(4)
    x = torch.tensor([[1.0, 0.0], [1.0, 1.0]])[:, :, None, None]  # X Xᵀ = [[1, 1], [1, 2]]
    root = math.sqrt(5)
    assert kappa(nn.Sequential(nn.Flatten(), nn.Linear(2, 5)), x) == pytest.approx((3 + root) / (3 - root), rel=1e-6)


def test_the_kernel_is_that_of_the_jacobian_of_the_batch() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, track_running_stats=False), nn.ReLU(), nn.Flatten())
    x = torch.randn(5, 2, 5, 5)
    theta = {name: weight.detach() for name, weight in model.named_parameters() if "weight" in name}
    rows = jacrev(lambda theta: functional_call(model, theta, (x,)).sum(1))(theta)
    j = torch.cat([row.flatten(1) for row in rows.values()], 1).double()
    kernel = tangent_kernel(model(x).sum(1), [weight for name, weight in model.named_parameters() if "weight" in name])
    assert len(theta) == 2  # of the convolution and of the batch norm
    torch.testing.assert_close(kernel, j @ j.T, rtol=1e-5, atol=1e-5)


def test_equal_images_make_the_kernel_singular() -> None:
    x = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    assert 1 < kappa(model, x) < 1e3
    assert kappa(model, torch.cat([x, x[:1]])) == math.inf


def test_the_images_beyond_the_first_are_not_read() -> None:
    x = torch.randn(IMAGES + 3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    assert kappa(model, x) == kappa(model, x[:IMAGES])
    assert kappa(model, x) != kappa(model, x[: IMAGES - 1])


def test_regions_are_different_codes() -> None:
    rows = torch.tensor([[1, 0, 1, 1], [1, 0, 0, 1], [1, 1, 1, 1]])
    assert count_regions(code_kernel(rows)) == 3
    assert count_regions(code_kernel(rows[[0, 1, 0, 2, 1, 0]])) == 3
    assert count_regions(code_kernel(rows[[2, 2]])) == 1


def count(model: nn.Module, x: Tensor) -> float:
    return LinearRegions()(model, x, labels(x))


def test_one_kink_by_hand() -> None:
    # one unit with its kink at 0, whatever its weight: only the first walk, from -1 to 1, goes through it
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 1), nn.ReLU())
    assert count(model, torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1)) == 8 + 1
    assert count(model, torch.tensor([2.0, 1.0]).view(2, 1, 1, 1)) == 8
    # the walks from 1 and from -1 go a quarter of the way and less, so -0.1 and 0.1 are too near for them, too
    assert count(model, torch.tensor([-1.0, 0.9, -0.1, 0.1]).view(4, 1, 1, 1)) == 8 + 1


def test_wider_and_deeper_networks_have_more_regions() -> None:
    x = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def of(width: int, depth: int) -> float:
        layers = [m for i in range(depth) for m in (nn.Conv2d(width if i else 3, width, 3, padding=1), nn.ReLU())]
        return count(nn.Sequential(*layers, nn.Flatten()), x)

    assert of(1, 1) < of(8, 1) < of(8, 6) < 256


def test_walks_start_at_the_images_and_shorten() -> None:
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    points = list(walks(x))
    assert [len(p) for p in points] == [32] * 8
    torch.testing.assert_close(points[0][-1], x[1])
    torch.testing.assert_close(points[2][0], x[2])
    torch.testing.assert_close(points[2][-1], x[2] + (x[0] - x[2]) / 16)


def test_batch_norm_keeps_the_statistics_of_the_images() -> None:
    norm = nn.BatchNorm2d(2, track_running_stats=False)
    x = torch.randn(5, 2, 3, 3, dtype=torch.float64) * 3 + 1
    fix_statistics(norm.double(), x)
    mean, std = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True)
    torch.testing.assert_close(norm(x[:1]), (x[:1] - mean) / (std + norm.eps).sqrt())


def test_images_are_averaged_down_for_networks_that_take_them() -> None:
    x = torch.arange(2 * 16 * 12.0).view(2, 1, 16, 12)
    averaged = downscaled(nn.Conv2d(1, 1, 3), x)
    assert averaged.shape == (2, 1, 8, 8)
    assert float(averaged.mean()) == pytest.approx(float(x.mean()))
    assert downscaled(nn.Conv2d(1, 1, 3), x[:, :, :6, :5]).shape == (2, 1, 6, 5)
    assert downscaled(nn.Sequential(nn.Flatten(), nn.Linear(16 * 12, 2)), x) is x


def test_networks_and_batches_without_regions_are_refused() -> None:
    with user_error("network", "unsupported", says="linear_regions"):
        count(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), torch.randn(3, 1, 8, 8))
    with user_error("images", "too_few"):
        count(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), torch.randn(1, 1, 8, 8))
