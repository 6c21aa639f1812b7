"""Spaces with all kinds of choice, small enough to enumerate."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from espalier.nas.choices import InputChoice, LayerChoice, ValueChoice
from espalier.nas.gates import Gates
from espalier.nas.space import SearchSpace


class ToySpace(SearchSpace):
    """Stem, a layer choice, one of three tensors to read, a choice of depth, head: 3 x 3 x 2 architectures."""

    def __init__(self, input_shape: tuple[int, int, int] = (1, 8, 8), num_classes: int = 10) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.num_classes = num_classes
        self.stem = nn.Conv2d(input_shape[0], 4, 3, padding=1)
        self.layer = LayerChoice(
            "layer", {"conv": nn.Conv2d(4, 4, 3, padding=1), "pool": nn.AvgPool2d(3, 1, 1), "none": None}
        )
        self.inputs = InputChoice("inputs", 3, chosen=2)
        self.depth = ValueChoice("depth", (1, 2))
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)) for _ in range(2))
        self.head = nn.Linear(4, num_classes)

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        x = self.stem(x)
        y = self.layer(x, gates)
        y = torch.zeros_like(x) if y is None else y
        z = self.inputs([x, y, x + y], gates)
        for block in self.blocks[: int(self.depth(gates))]:
            z = block(z)
        return self.head(z.mean((2, 3)))


class ToyCell(SearchSpace):
    """One node that keeps two of three edges, each with an operation of its own, as in DARTS: 3^3 x 3 architectures."""

    def __init__(self, input_shape: tuple[int, int, int] = (1, 8, 8), num_classes: int = 10) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.num_classes = num_classes
        self.stem = nn.Conv2d(input_shape[0], 4, 3, padding=1)
        self.edges = nn.ModuleList(
            LayerChoice(
                f"edge_{i}",
                {
                    "none": None,
                    "skip": nn.Identity(),
                    "conv": nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)),
                },
            )
            for i in range(3)
        )
        self.node = InputChoice("node", 3, chosen=2, edges=[f"edge_{i}" for i in range(3)])
        self.head = nn.Linear(4, num_classes)

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        x = self.stem(x)
        y = self.node([edge(x, gates) for edge in self.edges], gates)
        return self.head((torch.zeros_like(x) if y is None else y).mean((2, 3)))
