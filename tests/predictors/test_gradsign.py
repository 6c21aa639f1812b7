"""GradSign against numbers worked out by hand and against its definition, image by image."""

from __future__ import annotations

import copy
import logging
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.predictors.zero_cost.gradsign import GradSign, agreement, one_by_one, sign_sums
from espalier.predictors.zero_cost.network import layer_weights
from user_errors import user_error

Batch = tuple[Tensor, Tensor]


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.zeros_(layer.weight)
    return layer


def smooth_net() -> nn.Module:
    """Double precision and no dead units, so that no gradient is near 0 and identities are exact."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 10)
    ).double()


def normalised_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )


def sums_of(model: nn.Module, x: Tensor, y: Tensor, **options: object) -> dict[str, Tensor]:
    sums = sign_sums(copy.deepcopy(model), x, y, **options)  # type: ignore[arg-type]
    assert sums is not None
    return sums


@pytest.fixture
def double_batch(grey_batch: Batch) -> Batch:
    return grey_batch[0].double(), grey_batch[1]


def test_linear_regression_by_hand() -> None:
    # f = w'x, loss ½(f - y)², w = 0: g_i = -y_i x_i, and sign(0) = 0 in the last row
    x = torch.tensor([[1.0, 2, -1], [2, -1, 1], [-1, 1, 3], [0, 2, 1]])
    y = torch.tensor([1.0, 1, -1, 1])
    sums = sums_of(zero_linear(3, 1), x, y, loss=lambda f, t: ((f[:, 0] - t) ** 2).sum() / 2)
    assert sums["weight"].tolist() == [[-3, 0, 0]]
    assert agreement(sums) == 3


def test_softmax_regression_by_hand() -> None:
    x, y = torch.tensor([[1.0, -2], [3, 1], [-1, -1]]), torch.tensor([0, 1, 0])
    sums = sums_of(zero_linear(2, 3), x, y)
    assert sums["weight"].tolist() == [[1, 3], [-1, -3], [1, -1]]
    assert agreement(sums) == 10
    assert GradSign()(zero_linear(2, 3), x, y) == 10
    delta = torch.full((3, 3), 1 / 3) - F.one_hot(y, 3)  # the gradients at the logits
    assert torch.equal(sums["weight"].float(), delta.sign().T @ x.sign())


def test_one_image_counts_the_gradients_that_are_not_zero(grey_batch: Batch) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 10))
    x, y = grey_batch[0][:1], grey_batch[1][:1]
    gradients = torch.autograd.grad(F.cross_entropy(model(x), y), list(layer_weights(model).values()))
    moved = sum(int(g.count_nonzero()) for g in gradients)
    assert 0 < moved < 6 * 64 + 60  # some units are dead
    assert GradSign()(model, x, y) == moved
    assert GradSign()(model, x.repeat(5, 1, 1, 1), y.repeat(5)) == 5 * moved


def test_order_scale_and_copies_of_the_batch(double_batch: Batch) -> None:
    model, (x, y) = smooth_net(), double_batch
    value = agreement(sums_of(model, x, y))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    assert agreement(sums_of(model, x[order], y[order])) == value
    assert agreement(sums_of(model, x.repeat(2, 1, 1, 1), y.repeat(2))) == 2 * value
    for factor in (8.0, -8.0):
        scaled = sums_of(model, x, y, loss=lambda f, t, c=factor: c * F.cross_entropy(f, t))
        assert agreement(scaled) == value
    assert value < len(x) * sum(p.numel() for p in model.parameters())


class WithUnusedBranch(nn.Module):
    def __init__(self, used: nn.Module) -> None:
        super().__init__()
        self.used = used
        self.unused = nn.Conv2d(1, 100, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


def test_weights_outside_the_forward_pass_add_nothing(grey_batch: Batch) -> None:
    model = normalised_net()
    assert GradSign()(WithUnusedBranch(model), *grey_batch) == GradSign()(model, *grey_batch)
    sums = one_by_one(WithUnusedBranch(model), *grey_batch)
    assert sums is not None
    assert int(sums["unused.weight"].abs().sum()) == 0


def mostly_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Rounding differs between ways to batch, and turns the sign of a few gradients next to 0."""
    differs = torch.cat([(first[name] != second[name]).flatten() for name in second])
    return float(differs.double().mean()) < 0.01


def test_chunks_agree_with_one_backward_pass_for_each_image(grey_batch: Batch) -> None:
    model = normalised_net()
    loop = one_by_one(copy.deepcopy(model), *grey_batch)  # as written in the paper, batch norms untouched
    assert loop is not None
    for chunk in (1, 8):
        sums = sums_of(model, *grey_batch, chunk=chunk)
        assert mostly_equal(sums, loop)
        assert agreement(sums) == pytest.approx(agreement(loop), rel=1e-3)
    assert GradSign()(model, *grey_batch) == pytest.approx(agreement(loop), rel=1e-3)


def test_batch_norm_is_instance_norm(grey_batch: Batch) -> None:
    model = normalised_net()
    instance = copy.deepcopy(model)
    for i in (1, 4):
        instance[i] = nn.InstanceNorm2d(8, affine=True)
    value = GradSign()(model, *grey_batch)
    assert GradSign()(instance, *grey_batch) == pytest.approx(value, rel=1e-3)
    plain = nn.Sequential(*(layer for layer in model if not isinstance(layer, nn.BatchNorm2d)))
    assert GradSign()(plain, *grey_batch) != pytest.approx(value, rel=1e-3)


def test_no_image_touches_the_gradient_of_another(double_batch: Batch) -> None:
    model, (x, y) = normalised_net().double(), double_batch
    together = sums_of(model, x, y)
    alone = [sums_of(model, x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
    assert mostly_equal(together, {name: torch.stack([s[name] for s in alone]).sum(0) for name in together})


def test_a_batch_norm_of_one_value_per_channel_is_named(grey_batch: Batch) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 10)
    )
    with user_error("2", "unsupported", says="(1, 4, 1, 1)"):
        GradSign()(model, *grey_batch)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Linear(4, 10))
    with user_error("2", "unsupported", says="(1, 4)"):
        GradSign()(flat, *grey_batch)


def test_a_mobilenet_on_small_images_is_refused_by_layer() -> None:
    import timm

    model = timm.create_model("mobilenetv3_small_050", num_classes=10)
    with user_error("blocks.4.0.bn2", "unsupported", says="(1, 144, 1, 1)"):
        GradSign()(model, torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))


def test_random_signs_score_the_mean_of_a_random_walk() -> None:
    # E|S| = n C(n, n/2) / 2^n, 9.0094 for n = 128; here g_i = x_i
    n, d = 128, 100_000
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
    sums = sums_of(zero_linear(d, 1), x, torch.zeros(n), loss=lambda f, t: f.sum())
    expected = n * math.comb(n, n // 2) / 2**n
    assert expected == pytest.approx(9.0094, abs=1e-4)
    assert agreement(sums) / d == pytest.approx(expected, rel=0.01)


def test_squares_count_the_pairs_that_agree(double_batch: Batch) -> None:
    model, (x, y) = smooth_net(), double_batch
    sums = sums_of(model, x, y)
    for name, s in sums.items():
        signs = torch.stack([sums_of(model, x[i : i + 1], y[i : i + 1])[name] for i in range(len(x))]).flatten(1)
        assert bool((signs != 0).all())
        agreeing = (signs[:, None] == signs[None, :]).sum((0, 1))
        assert mostly_equal({name: 2 * agreeing}, {name: len(x) ** 2 + s.flatten() ** 2})


class Branching(nn.Module):
    """Decides on the value of a tensor, which `torch.func` cannot follow for many images at once."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) if x.sum() > 0 else self.body(-x)


def test_a_network_that_cannot_be_vectorised_is_run_image_by_image_and_said_so(
    grey_batch: Batch, caplog: pytest.LogCaptureFixture
) -> None:
    model = Branching(normalised_net())
    loop = one_by_one(copy.deepcopy(model), *grey_batch)
    with caplog.at_level(logging.WARNING):
        assert GradSign()(model, *grey_batch) == agreement(loop)
    assert len(caplog.records) == 1
    assert "image by image" in caplog.text
    assert "control flow" in caplog.text


def test_traced_networks_are_vectorised(caplog: pytest.LogCaptureFixture) -> None:
    # Not on 8 x 8 images: there the last maps are 2 x 2, an average pool makes them constant, and behind a batch norm
    # the gradients of a constant are 0 but for rounding, which differs between the two ways.
    space = NasBench201(channels=4, cells=1)
    torch.manual_seed(0)
    network = space.build(space.sample(torch.Generator().manual_seed(1)))
    assert isinstance(network, torch.fx.GraphModule)
    x, y = torch.randn(8, 3, 32, 32), torch.arange(8)
    with caplog.at_level(logging.WARNING):
        value = GradSign()(network, x, y)
    assert not caplog.records
    assert value == pytest.approx(agreement(one_by_one(network.train(), x, y)), rel=1e-3)


def test_an_error_of_the_network_itself_is_raised(grey_batch: Batch) -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        GradSign()(nn.Sequential(nn.Flatten(), nn.Linear(3, 10)), *grey_batch)


def test_nan_is_not_hidden(grey_batch: Batch) -> None:
    model = normalised_net()
    with torch.no_grad():
        layer_weights(model)["0.weight"][0, 0, 0, 0] = torch.nan
    assert math.isnan(GradSign()(model, *grey_batch))
    assert one_by_one(model, *grey_batch) is None
