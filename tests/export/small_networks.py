"""Small networks to export."""

from __future__ import annotations

import torch
from torch import fx, nn

from espalier.nas.spaces.nasbench201 import NasBench201

SHAPE = (3, 8, 8)


def small_network() -> fx.GraphModule:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    )
    return fx.symbolic_trace(layers).eval()


def cell_network(cell: str) -> fx.GraphModule:
    torch.manual_seed(0)
    space = NasBench201(SHAPE, 5, channels=4, cells=1)
    return space.build(space.parse(cell)).eval()
