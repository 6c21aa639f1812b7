"""NASWOT against kernels worked out by hand; every way to run a ReLU."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espalier.predictors.zero_cost.naswot import NASWOT
from espalier.predictors.zero_cost.relu_codes import code_kernel
from user_errors import user_error

# two images, ten units, and three of them on different sides of 0
TWO = torch.tensor([[1.0, -1, 1, -1, 1, -1, 1, -1, 1, -1], [1, -1, 1, -1, 1, -1, 1, 1, -1, 1]])
LOG_51 = math.log(10 * 10 - 7 * 7)


class Calls(nn.Module):
    """A network that is one function of its input."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def score(model: nn.Module, x: Tensor) -> float:
    return NASWOT()(model, x, torch.zeros(len(x), dtype=torch.int64))


def test_two_images_by_hand() -> None:
    assert code_kernel(TWO).tolist() == [[10, 7], [7, 10]]
    assert score(nn.ReLU(), TWO) == pytest.approx(3.931826, abs=1e-6)


def test_the_kernel_is_the_formula() -> None:
    z = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    c = (z.flatten(1) > 0).double()
    assert torch.equal(code_kernel(z), c @ c.T + (1 - c) @ (1 - c).T)


def test_only_the_sides_matter() -> None:
    assert score(nn.ReLU(), TWO * torch.linspace(0.1, 9, 10)) == score(nn.ReLU(), TWO)
    assert score(nn.ReLU(), TWO + 0.5) == score(nn.ReLU(), TWO)
    assert score(nn.ReLU(), TWO + 1.5) == -math.inf  # all on one side


def test_equal_images_score_minus_infinity() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 3, 8, 8, generator=generator)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
    assert math.isfinite(score(model, x))
    assert score(model, torch.cat([x, x[3:4]])) == -math.inf


@pytest.mark.parametrize(
    "relu",
    [
        nn.ReLU(),
        nn.ReLU(inplace=True),
        nn.ReLU6(),
        nn.LeakyReLU(),
        nn.PReLU(),
        Calls(F.relu),
        Calls(torch.relu),
        Calls(torch.Tensor.relu),
        Calls(lambda x: x.clone().relu_()),
        Calls(F.relu6),
        Calls(lambda x: F.leaky_relu(x, 0.2)),
    ],
)
def test_every_way_to_run_a_relu_is_seen(relu: nn.Module) -> None:
    assert score(relu, TWO) == pytest.approx(LOG_51, abs=1e-12)


@pytest.mark.parametrize("other", [nn.GELU(), nn.Hardswish(), nn.Hardtanh(), nn.Sigmoid(), nn.Identity()])
def test_other_activations_are_not_relus(other: nn.Module) -> None:
    with user_error("network", "unsupported", says="naswot"):
        score(other, TWO)


def test_a_shared_relu_counts_every_time_it_runs() -> None:
    relu = nn.ReLU()
    flip = Calls(lambda x: -x - 0.5)  # so that the second code is the first one's complement, with the same kernel
    once, twice = nn.Sequential(relu), nn.Sequential(Calls(lambda x: relu(x) + x), flip, relu)
    assert score(once, TWO) == pytest.approx(LOG_51, abs=1e-12)
    assert score(twice, TWO) == pytest.approx(LOG_51 + 2 * math.log(2), abs=1e-12)


def test_batch_norm_uses_the_statistics_of_the_batch() -> None:
    x = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten())
    centred = x - x.mean((0, 2, 3), keepdim=True)
    assert score(model, x + 100) == pytest.approx(score(nn.Sequential(nn.ReLU(), nn.Flatten()), centred), abs=1e-9)


def test_a_relu_of_something_else_than_the_images_is_refused() -> None:
    with user_error("network", "unsupported", says="(1, 20)"):
        score(Calls(lambda x: F.relu(x.reshape(1, 20))), TWO)
