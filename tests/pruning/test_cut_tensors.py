"""Structured pruning of networks that cut their tensors: chunks, splits, gated units, whatever the dimension."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espalier.pruning.structured import Group, Target, groups_of, mean_gradients, shrink

SHAPE = (3, 8, 8)


def product(parts: Any) -> Tensor:
    value, gate = parts
    return value * torch.sigmoid(gate)


class Tokens(nn.Module):
    """A gated hidden layer for tokens `(batch, tokens, channels)`; `gated` goes from 64 channels to 32."""

    def __init__(self, gated: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.gated = gated
        self.stem, self.wide, self.back = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 64), nn.Linear(32, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = x + self.back(self.gated(self.wide(x)))
        return self.head(x.mean(1))


class Images(nn.Module):
    """A gated convolution; `gated` goes from 32 channels to 16."""

    def __init__(self, gated: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.gated = gated
        self.stem, self.wide, self.back = nn.Conv2d(3, 16, 3, 2), nn.Conv2d(16, 32, 1), nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.back(self.gated(self.wide(F.relu(self.stem(x)))))
        return self.head(x.mean((-2, -1)))


def split_by_width(x: Tensor, dim: int) -> Tensor:
    """The sizes come from the tensor, so they follow its width."""
    half = x.shape[dim] // 2
    return product(x.split([half, half], dim))


RIGHT: dict[str, Callable[[], nn.Module]] = {
    "tokens, chunk -1": lambda: Tokens(lambda x: product(x.chunk(2, dim=-1))),
    "tokens, chunk 2": lambda: Tokens(lambda x: product(torch.chunk(x, 2, 2))),
    "tokens, tensor_split": lambda: Tokens(lambda x: product(x.tensor_split(2, dim=-1))),
    "tokens, glu": lambda: Tokens(partial(F.glu, dim=-1)),
    "tokens, module": lambda: Tokens(nn.GLU()),
    "tokens, split": lambda: Tokens(partial(split_by_width, dim=-1)),
    "images, chunk -3": lambda: Images(lambda x: product(x.chunk(2, dim=-3))),
    "images, chunk 1": lambda: Images(lambda x: product(x.chunk(2, 1))),
    "images, glu": lambda: Images(nn.GLU(dim=1)),
    "images, split": lambda: Images(partial(split_by_width, dim=-3)),
    "images, one chunk": lambda: Images(lambda x: x.chunk(2, 1)[1]),
    "images, two calls": lambda: Images(lambda x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1].mean((2, 3), keepdim=True)),
    "images, stacked": lambda: Images(lambda x: torch.stack(x.chunk(2, -3)).sum(0)),
}
DENSE: dict[str, Callable[[], nn.Module]] = {
    "tokens, numbers": lambda: Tokens(lambda x: product(x.split([32, 32], dim=-1))),
    "tokens, one number": lambda: Tokens(lambda x: product(x.split(32, -1))),
    "tokens, slices": lambda: Tokens(lambda x: x[..., :32] * torch.sigmoid(x[..., 32:])),
    "tokens, narrow": lambda: Tokens(lambda x: product((x.narrow(-1, 0, 32), x.narrow(-1, 32, 32)))),
    "images, flip": lambda: Images(lambda x: x.flip(1)[:, :16]),
    "images, every second": lambda: Images(lambda x: x.index_select(1, torch.arange(0, 32, 2))),
}
"""Networks with fixed numbers in their code: the cut layer stays dense."""


def group(model: nn.Module, name: str) -> Group:
    return next(found for found in groups_of(model, SHAPE) if found.name == name)


@pytest.mark.parametrize("name", RIGHT)
def test_a_cut_layer_shrinks_to_the_masked_network(name: str) -> None:
    torch.manual_seed(0)
    model = RIGHT[name]().eval()
    assert group(model, "wide").dense_because is None
    small = shrink(model, SHAPE, Target("params", share=0.6), include=("wide",), round_to=1)
    assert small.difference < 1e-5
    assert small.structure["wide"] != {}
    assert small.model.wide.weight.shape[0] < model.wide.weight.shape[0]


@pytest.mark.parametrize("name", DENSE)
def test_a_layer_that_cannot_be_cut_elsewhere_stays_dense_with_the_reason(name: str) -> None:
    torch.manual_seed(0)
    model = DENSE[name]().eval()
    assert group(model, "wide").dense_because is not None
    small = shrink(model, SHAPE, Target("params", share=0.9), round_to=1)
    assert small.difference < 1e-5
    assert small.model.wide.weight.shape[0] == model.wide.weight.shape[0]


NORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight norm": nn.utils.parametrizations.weight_norm,
    "spectral norm": nn.utils.parametrizations.spectral_norm,
    "old weight norm": nn.utils.weight_norm,
    "old spectral norm": nn.utils.spectral_norm,
    "frozen": lambda layer: layer.requires_grad_(False),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("norm", NORMS)
def test_computed_and_frozen_weights_have_gradients_and_shrink(norm: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), NORMS[norm](nn.Conv2d(16, 16, 1)), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = torch.randn(4, *SHAPE), torch.arange(4)
    gradients = mean_gradients(model, lambda network, b: F.cross_entropy(network(b[0]), b[1]), [batch])
    assert all(gradient.abs().sum() > 0 for gradient in gradients.values())
    small = shrink(model, SHAPE, Target("params", share=0.85))
    assert small.difference < 1e-5
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert small.model[2].bias.requires_grad is (norm != "frozen")
