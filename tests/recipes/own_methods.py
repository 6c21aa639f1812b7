"""A file with a method of each role, as a user writes it."""

OWN = '''\
from __future__ import annotations

import torch
from torch import nn

from espalier.export.devices.local import LocalDevice
from espalier.nas.choices import LayerChoice
from espalier.nas.data import Images
from espalier.nas.measurement import Estimate
from espalier.nas.space import SearchSpace
from espalier.predictors.zero_cost.score import Score
from espalier.pruning.magnitude import OneShotMagnitude
from espalier.supernets.spos import SinglePathOneShot


class Chain(SearchSpace):
    """Blocks in a row, each a 1x1 or a 3x3 convolution, or nothing."""

    def __init__(self, input_shape, num_classes, *, channels: int = 8, depth: int = 3):
        super().__init__()
        self.input_shape, self.num_classes = input_shape, num_classes
        self.stem = nn.Conv2d(input_shape[0], channels, 3, padding=1)
        self.blocks = nn.ModuleList(
            LayerChoice(
                f"block_{i}",
                {
                    "skip": nn.Identity(),
                    "conv1": nn.Sequential(nn.ReLU(), nn.Conv2d(channels, channels, 1)),
                    "conv3": nn.Sequential(nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)),
                },
            )
            for i in range(depth)
        )
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x, gates):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x, gates)
        return self.head(x.mean((2, 3)))


class Uniform(SinglePathOneShot):
    name = "uniform"

    def __init__(self, space, *, repeats: int = 1):
        super().__init__(space)


class Size(Score):
    """The number of parameters to a power."""

    name = "size"
    needs = frozenset()
    batch_norm = "unused"

    def __init__(self, *, power: float = 1.0):
        self.power = power

    def compute(self, probe):
        return float(probe.parameters) ** self.power


class Depth:
    """A predictor: how many blocks are not skipped."""

    unit, higher_is_better = "blocks", True

    def __init__(self, space, *, factor: float = 1.0):
        self.name, self.factor = "depth", factor

    def __call__(self, architecture):
        return Estimate(self.name, self.factor * sum(o != "skip" for o in architecture.values()), "blocks", True)


class Half(OneShotMagnitude):
    def __init__(self, weights, pattern, *, iterations: int, strength: float = 1.0):
        super().__init__(weights, pattern, iterations=iterations)


class Norms:
    additive = False

    def __init__(self, *, power: float = 2.0, gradients):
        self.power, self.gradients = power, gradients

    def __call__(self, model, units):
        assert self.gradients
        return torch.arange(units.width, dtype=torch.float64) ** self.power


def stripes(*, count: int = 240):
    """Images of three classes, each brighter than the one before."""
    labels = torch.arange(count) % 3
    noise = torch.randint(0, 60, (count, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    return Images((noise + 60 * labels[:, None, None, None]).to(torch.uint8), labels, ("a", "b", "c"), "stripes")


class Board(LocalDevice):
    def __init__(self, *, slot: int = 1):
        super().__init__()
        self.name = f"board {slot}"


not_a_method = 3
'''
