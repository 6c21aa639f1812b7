"""VKDNW against spectra worked out by hand and Jacobians by torch.func."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from espalier.predictors.zero_cost import vkdnw
from espalier.predictors.zero_cost.logit_jacobian import logits_and_jacobian
from espalier.predictors.zero_cost.vkdnw import VKDNW, decile_entropy, fisher_eigenvalues
from user_errors import user_error


def test_equal_eigenvalues_have_the_largest_entropy() -> None:
    assert decile_entropy(torch.full((20,), 0.3, dtype=torch.float64)) == pytest.approx(math.log(9))


def test_entropy_of_deciles_by_hand() -> None:
    eigenvalues = torch.tensor([9.0, 0, 1, 2, 3, 100, 4, 5, 6, 7, 8], dtype=torch.float64)  # deciles 1 ... 9
    expected = -sum(k / 45 * math.log(k / 45) for k in range(1, 10))
    assert decile_entropy(eigenvalues) == pytest.approx(expected)
    assert decile_entropy(eigenvalues * 1e-12) == pytest.approx(expected)
    assert decile_entropy(torch.tensor([0.0] * 9 + [5.0, 5.0], dtype=torch.float64)) == pytest.approx(0)
    assert math.isnan(decile_entropy(torch.zeros(11, dtype=torch.float64)))


def test_fisher_information_by_hand() -> None:
    # p = 1/2, 1/2: diag(p) - ppᵀ = [[1, -1], [-1, 1]] / 4, and J = (1, -1)ᵀ gives 1
    assert fisher_eigenvalues(torch.zeros(1, 2), torch.tensor([[[1.0], [-1.0]]])).tolist() == pytest.approx([1])
    # moving all logits alike does nothing
    assert fisher_eigenvalues(torch.zeros(1, 2), torch.ones(1, 2, 1)).tolist() == pytest.approx([0])


def test_fisher_information_is_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    f, j = torch.randn(6, 4, generator=generator), torch.randn(6, 4, 3, generator=generator)
    p = f.double().softmax(1)
    middle = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    expected = torch.linalg.eigvalsh((j.double().transpose(1, 2) @ middle @ j.double()).mean(0))
    torch.testing.assert_close(fisher_eigenvalues(f, j), expected)
    assert fisher_eigenvalues(f * torch.inf, j).isnan().all()


class Net(nn.Module):
    """Groups, strides, a layer used twice, writing in place, biases."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.twice = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu_()
        x = self.norm(self.twice(x)).relu_()
        return self.last((x + self.twice(x).relu_()).mean((2, 3)))


def test_the_jacobian_is_that_of_each_image_alone() -> None:
    torch.manual_seed(0)
    model, x = Net().double(), torch.randn(5, 2, 7, 7, dtype=torch.float64)
    layers = ["first", "twice", "last"]
    weights = {f"{name}.weight": model.get_submodule(name).weight.detach() for name in layers}
    torch.manual_seed(1)
    drawn = [int(torch.randint(weight.numel(), ())) for weight in weights.values()]

    def rows(image: Tensor) -> Tensor:
        model.norm.track_running_stats, model.norm.running_mean, model.norm.running_var = False, None, None
        by_weight = jacrev(lambda w: functional_call(model, w, (image[None],))[0])(weights)
        return torch.stack([j.flatten(1)[:, k] for j, k in zip(by_weight.values(), drawn, strict=True)], 1)

    expected, expected_f = torch.stack([rows(image) for image in x]), torch.cat([model(image[None]) for image in x])
    torch.manual_seed(1)
    f, jacobian = logits_and_jacobian(model, layers, x)
    torch.testing.assert_close(f, expected_f.detach())
    torch.testing.assert_close(jacobian, expected, check_dtype=False)
    assert (jacobian.abs().amax((0, 1)) > 0).all()


def test_the_score_is_the_number_of_layers_and_an_entropy() -> None:
    x, y = torch.full((6, 2, 8, 8), torch.nan), torch.zeros(6, dtype=torch.int64)  # the images are not read
    entropy = VKDNW()(Net(), x, y) - 3
    assert 0 < entropy < math.log(9)


def test_layers_beyond_the_limit_are_only_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.zeros(6, 2, 8, 8), torch.zeros(6, dtype=torch.int64)
    whole = VKDNW()(Net(), x, y)
    monkeypatch.setattr(vkdnw, "LAYERS", 1)
    assert VKDNW()(Net(), x, y) == pytest.approx(3 + math.log(9))  # one eigenvalue, nine equal deciles
    assert whole < 3 + math.log(9)


def test_networks_that_no_weight_moves_have_no_value() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.layer(x.flatten(1))
            return torch.zeros(len(x), 2)

    assert math.isnan(VKDNW()(Constant(), torch.zeros(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64)))


def test_single_values_have_no_statistics() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    with user_error("network", "unsupported", says="(4, 2, 1, 1)"):
        VKDNW()(model, torch.zeros(4, 1, 3, 3), torch.zeros(4, dtype=torch.int64))
