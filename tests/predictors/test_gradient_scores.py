"""The scores of one shared pass against numbers worked out by hand and against plain torch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espalier.predictors.zero_cost.batch_pass import BatchPass, Map
from espalier.predictors.zero_cost.epe_nas import EPENAS, separation
from espalier.predictors.zero_cost.fisher import Fisher, information
from espalier.predictors.zero_cost.grad_norm import GradNorm
from espalier.predictors.zero_cost.grasp import GraSP
from espalier.predictors.zero_cost.jacob_cov import JacobCov, correlations, spread
from espalier.predictors.zero_cost.l2_norm import L2Norm
from espalier.predictors.zero_cost.plain import Plain
from espalier.predictors.zero_cost.probe import Probe
from espalier.predictors.zero_cost.snip import SNIP
from user_errors import user_error

Batch = tuple[Tensor, Tensor]


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(inplace=True),
        nn.Conv2d(3, 4, 3, groups=1),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def gradients(model: nn.Sequential, x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(w, g) of the layers, as one writes it by hand."""
    model.train().zero_grad()
    F.cross_entropy(model(x), y).backward()
    return [(m.weight.detach(), m.weight.grad) for m in model if isinstance(m, nn.Conv2d | nn.Linear)]


def test_norms_and_products_of_weights_and_gradients(model: nn.Sequential, grey_batch: Batch) -> None:
    pairs = gradients(model, *grey_batch)
    assert GradNorm()(model, *grey_batch) == pytest.approx(sum(float(g.norm()) for _, g in pairs), rel=1e-6)
    assert SNIP()(model, *grey_batch) == pytest.approx(sum(float((w * g).abs().sum()) for w, g in pairs), rel=1e-6)
    assert Plain()(model, *grey_batch) == pytest.approx(sum(float((w * g).sum()) for w, g in pairs), rel=1e-5)
    assert L2Norm()(model, *grey_batch) == pytest.approx(sum(float(w.norm()) for w, _ in pairs), rel=1e-6)


def test_layers_of_a_homogeneous_network_have_equal_sums() -> None:
    # Euler: without biases and normalisation, each layer's Σ w ⊙ ∂f/∂w is the output f itself
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7, bias=False), nn.ReLU(), nn.Linear(7, 3, bias=False))
    x = torch.randn(6, 5)
    f = model(x)
    f.sum().backward()
    sums = [float((m.weight * m.weight.grad).sum()) for m in (model[0], model[2])]
    assert sums == pytest.approx([float(f.sum())] * 2, rel=1e-5)


class Quadratic(nn.Linear):
    """Logits (½ wᵀAw, 0) whatever the image, so that the loss is a known function of q = ½ wᵀAw."""

    A = torch.tensor([[2.0, 1.0], [1.0, 3.0]])

    def __init__(self) -> None:
        super().__init__(2, 1, bias=False)
        nn.init.constant_(self.weight, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight[0]
        q = w @ self.A @ w / 2
        return torch.stack([q, torch.zeros(())]).expand(len(x), 2)


def test_grasp_of_a_quadratic_by_hand() -> None:
    # L = log(1 + e^-q), q = ½ wᵀAw: g = -s Aw and H = -s A + s(1-s) Aw(Aw)ᵀ, with s = 1/(1 + e^q)
    model = Quadratic()
    w, a = model.weight.detach()[0], Quadratic.A
    s = float(torch.sigmoid(-w @ a @ w / 2))
    g = -s * (a @ w)
    h = -s * a + s * (1 - s) * torch.outer(a @ w, a @ w)
    x, y = torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)
    assert GraSP()(model, x, y) == pytest.approx(float(-(w @ h @ g)), rel=1e-5)


def test_grasp_is_the_derivative_of_the_squared_gradient(model: nn.Sequential, grey_batch: Batch) -> None:
    # -w·Hg = -½ d/dt ‖g(w + t w)‖² at t = 0
    x, y = grey_batch[0].double(), grey_batch[1]
    smooth = nn.Sequential(*(nn.Tanh() if isinstance(m, nn.ReLU) else m for m in model)).double()

    def square(t: float) -> float:
        with torch.no_grad():
            for m in smooth:
                if isinstance(m, nn.Conv2d | nn.Linear):
                    m.weight.mul_(1 + t)
        total = sum(float(g.square().sum()) for _, g in gradients(smooth, x, y))
        with torch.no_grad():
            for m in smooth:
                if isinstance(m, nn.Conv2d | nn.Linear):
                    m.weight.div_(1 + t)
        return total

    slope = (square(1e-5) - square(-1e-5)) / 2e-5
    assert GraSP()(smooth, x.float(), y) == pytest.approx(-slope / 2, rel=1e-3)


class Hard(nn.Module):
    """Activations of mobile networks."""

    def forward(self, x: Tensor) -> Tensor:
        return F.hardswish(x) * F.hardsigmoid(x)


def test_grasp_differentiates_hard_activations_twice(grey_batch: Batch) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), Hard(), nn.Linear(8, 10))
    assert math.isfinite(GraSP()(model, *grey_batch))  # torch itself has no second derivative of hardsigmoid


class Bags(nn.Module):
    """Looks rows up in its own input, a thing that torch differentiates only once."""

    def forward(self, x: Tensor) -> Tensor:
        return F.embedding_bag(torch.arange(len(x))[:, None], x)


def test_grasp_names_what_has_no_second_derivative(grey_batch: Batch) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), Bags(), nn.Linear(8, 10))
    with user_error("network", "unsupported", says="'_embedding_bag_backward'"):
        GraSP()(model, *grey_batch)


def test_fisher_by_hand() -> None:
    a = torch.tensor([[[1.0], [2]], [[0], [1]]])  # two images, two positions, one channel
    delta = torch.tensor([[[1.0], [-1]], [[2], [3]]])
    assert information([Map(a, delta, fan_in=1)]) == 2.5
    assert information([Map(a, delta, fan_in=18)] * 2) == 2 * 18 * 2.5


def test_fisher_sees_maps_as_they_left_the_layer(model: nn.Sequential, grey_batch: Batch) -> None:
    # the ReLU after the second convolution overwrites its output; without the ReLU in place nothing changes
    kept = nn.Sequential(*(nn.ReLU() if isinstance(m, nn.ReLU) else m for m in model))
    assert Fisher()(model, *grey_batch) == pytest.approx(Fisher()(kept, *grey_batch), rel=1e-6)
    batch = Probe(model, *grey_batch, reads=Fisher.reads).once(BatchPass)
    assert [tuple(m.output.shape) for m in batch.maps] == [(24, 36, 3), (24, 16, 4), (24, 1, 10)]
    assert [m.fan_in for m in batch.maps] == [9, 27, 64]
    assert bool((batch.maps[1].output < 0).any())


def test_fisher_of_the_last_layer_is_known(grey_batch: Batch) -> None:
    # δ of the logits is (softmax - onehot) / n
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    x, y = grey_batch
    z = model(x).detach()
    delta = (z.softmax(1) - F.one_hot(y, 10)) / len(x)
    expected = float((z * delta).square().mean(0).sum()) / 2 * 64
    assert Fisher()(model, x, y) == pytest.approx(expected, rel=1e-5)


def test_spread_of_uncorrelated_half_correlated_and_equal_rows() -> None:
    assert spread(torch.eye(8, dtype=torch.float64)) == pytest.approx(-8.0000000004, abs=1e-10)
    half = torch.tensor([[1.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    assert spread(half) == pytest.approx(-2.37897, abs=1e-5)
    assert spread(torch.ones(8, 8, dtype=torch.float64)) == pytest.approx(-699_921.61, abs=0.01)
    assert math.isnan(spread(torch.full((2, 2), torch.nan)))


def test_correlations_are_of_rows() -> None:
    rows = torch.tensor([[1.0, 2, 3], [2, 4, 6.5], [3, 1, -1]])
    expected = torch.corrcoef(rows.double())
    torch.testing.assert_close(correlations(rows), expected)
    assert tuple(correlations(rows[:1]).shape) == (1, 1)


def test_jacob_cov_of_a_linear_network_has_equal_rows(grey_batch: Batch) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    x, y = grey_batch[0][:8], grey_batch[1][:8]
    assert JacobCov()(model, x, y) == pytest.approx(-699_921.61, rel=1e-3)


def test_separation_by_hand() -> None:
    # class 0: two rows with ρ = 1, class 1: two with ρ = -1, class 2: one row
    rows = torch.tensor([[1.0, 2, 3], [2, 4, 6], [1, 2, 3], [3, 2, 1], [1, 5, 2]])
    y = torch.tensor([0, 0, 1, 1, 2])
    assert separation(rows, y) == pytest.approx((4 + 4 + 1) * math.log(1 + 1e-5), rel=1e-9)


def test_separation_with_many_classes_compares_them() -> None:
    # 101 classes: 100 of one row (s = log(1 + k)) and one of two rows with ρ = 0 (s = (2 log(1 + k) + 2 log k) / 2)
    rows = torch.randn(102, 3, generator=torch.Generator().manual_seed(0))
    rows[100], rows[101] = torch.tensor([1.0, 0, -1]), torch.tensor([1.0, -2, 1])
    y = torch.tensor([*range(101), 100])
    difference = abs(math.log(1 + 1e-5) - (math.log(1 + 1e-5) + math.log(1e-5)))
    assert separation(rows, y) == pytest.approx(2 * 100 * difference / 101, rel=1e-4)


def test_epe_nas_does_not_care_for_the_names_of_classes(model: nn.Sequential, grey_batch: Batch) -> None:
    x, y = grey_batch
    assert EPENAS()(model, x, (y + 3) % 10) == pytest.approx(EPENAS()(model, x, y), rel=1e-9)


def test_networks_without_weights_have_no_gradients(grey_batch: Batch) -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d((1, 10)), nn.Flatten())
    for score in (GradNorm(), SNIP(), Plain(), GraSP(), Fisher()):
        with user_error("network", "unsupported", says="Conv2d"):
            score(model, *grey_batch)
