"""A space in which every option has a known loss: the choice is a bandit's, and training has nothing to learn."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from espalier.nas.choices import LayerChoice
from espalier.nas.gates import Gates
from espalier.nas.space import SearchSpace
from espalier.nas.task import Classification
from espalier.supernets.strategy import Step, Strategy


class Bandit(SearchSpace):
    """Blocks that each add a constant score to the right class 0 out of two.

    Args:
        losses: of each option; where there is one block, the cross-entropy if it is taken.
        blocks: the scores of several are averaged.
    """

    def __init__(self, losses: Sequence[float], blocks: int = 1) -> None:
        super().__init__()
        self.input_shape = (1, 1, 1)
        self.num_classes = 2
        scores = [-math.log(math.expm1(loss)) for loss in losses]
        self.blocks = nn.ModuleList(
            LayerChoice(f"block_{i}", {f"op_{j}": Constant(score / blocks) for j, score in enumerate(scores)})
            for i in range(blocks)
        )

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        score = sum((block(x, gates) for block in self.blocks), start=torch.zeros_like(x))
        return torch.cat([score, torch.zeros_like(score)], dim=1).flatten(1)


class Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x) + self.value


def steps(space: SearchSpace, strategy: Strategy, count: int, *, seed: int = 0, every: int = 1) -> None:
    """`count` architecture steps, without steps of the weights."""
    generator = torch.Generator().manual_seed(seed)
    batch = (torch.zeros(2, *space.input_shape), torch.zeros(2, dtype=torch.int64))
    step = Step(
        supernet=space,
        task=Classification(2),
        optimizer=torch.optim.SGD(space.parameters(), lr=0.0),
        train=batch,
        validation=lambda: batch,
        generator=generator,
        epoch=1,
        epochs=2,
        index=every - 1,
        steps=every,
    )
    for _ in range(count):
        strategy.after_step(step)
