"""A small network on digits, in which the methods of pruning differ: 64-256-256-10, Adam, batches of 64."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class Digits:
    """The 8x8 digits in two parts: 1,347 for training and 450 for the accuracy."""

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        x = torch.tensor(digits.data, dtype=torch.float32) / 16
        y = torch.tensor(digits.target)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        self.train = x[order[:1347]], y[order[:1347]]
        self.test = x[order[1347:]], y[order[1347:]]


def mlp(seed: int) -> nn.Module:
    """Fresh weights; 83,000 of them."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))


def train(model: nn.Module, digits: Digits, *, steps: int, seed: int, pruner: Any = None) -> None:
    """Adam at 1e-3, with the calls of a pruner around each step."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, y = digits.train
    for _ in range(steps):
        drawn = torch.randint(len(x), (64,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(x[drawn]), y[drawn]).backward()
        if pruner is not None:
            pruner.before_step()
        optimizer.step()
        if pruner is not None:
            pruner.step()


@torch.no_grad()
def accuracy(model: nn.Module, digits: Digits) -> float:
    """Share of the test images."""
    x, y = digits.test
    return float((model(x).argmax(dim=1) == y).float().mean())
