"""The sandwich rule: Yu & Huang, "Universally Slimmable Networks and Improved Training Techniques", ICCV 2019."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor

from espalier.nas.choices import ElasticChoice
from espalier.nas.gates import Gates
from espalier.nas.task import Classification
from espalier.supernets.spos import SinglePathOneShot


@dataclass(kw_only=True, eq=False)
class Sandwich(SinglePathOneShot):
    """Each step trains the largest path, the smallest, and a few random ones on the same images; gradients add up.

    With in-place distillation (section 3.3 of the paper) only the largest path learns from the labels; all others learn
    from its predictions: L = -sum_c p_c log q_c with p = softmax(z of the largest), a constant. One step costs as much
    as one of each of its paths.

    Args:
        space: the supernet, of elastic choices, whose options have an order.
        random_paths: number of random paths in a step.
        distill: whether the largest path teaches the others.
    """

    name = "sandwich"
    supports = frozenset({ElasticChoice})

    random_paths: PositiveInt = 2
    distill: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._teacher: Tensor | None = None

    def sample_paths(self, generator: torch.Generator) -> Sequence[Gates]:
        """The largest first, then the smallest, then the random ones."""
        self._teacher = None
        largest = {name: options[-1] for name, options in self.region.items()}
        smallest = {name: options[0] for name, options in self.region.items()}
        return [largest, smallest, *(self.weight_gates(generator) for _ in range(self.random_paths))]

    def path_loss(self, task: Classification, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy with the labels for the first path of a step, with its predictions for the others."""
        if self._teacher is not None:
            return F.cross_entropy(logits.float(), self._teacher)
        if self.distill:
            self._teacher = logits.detach().float().softmax(dim=1)
        return task.loss(logits, targets)
