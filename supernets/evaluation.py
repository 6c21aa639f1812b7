"""Evaluation of a supernet under different gates on the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from espalier.nas.device import autocast
from espalier.nas.gates import Gates
from espalier.nas.space import SearchSpace
from espalier.nas.task import Batch
from espalier.supernets.batch_norm import frozen_statistics
from espalier.supernets.noise import paired_noise


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a network said of each image; tensors are on the CPU.

    Attributes:
        correct: bool `(images,)`.
        losses: cross-entropy of each image `(images,)`.
    """

    correct: Tensor
    losses: Tensor

    @property
    def n(self) -> int:
        """The number of images."""
        return len(self.correct)

    @property
    def accuracy(self) -> float:
        """The share that is classified correctly."""
        return float(self.correct.double().mean())

    @property
    def loss(self) -> float:
        """The mean cross-entropy."""
        return float(self.losses.double().mean())


Evaluate = Callable[[Sequence[Gates]], list[Evaluation]]
"""Evaluates several gates on the same images in the same order, so that their results are paired."""


class SupernetEvaluator:
    """Evaluates a supernet in training mode: batch norms use the batch and keep their running statistics.

    The running statistics belong to the trained mixture, and would penalise every change of it (Wang et al.,
    "Rethinking Architecture Selection in Differentiable NAS", ICLR 2021).

    Args:
        supernet: on its device.
        batches: the same images in the same order each time, not augmented.
        seed: of randomness in the supernet itself (noise, dropout); each layer's is the same under all gates.
    """

    def __init__(self, supernet: SearchSpace, batches: Iterable[Batch], *, seed: int) -> None:
        self._supernet = supernet
        self._batches = batches
        self._seed = seed

    @torch.no_grad()
    def __call__(self, candidates: Sequence[Gates]) -> list[Evaluation]:
        """An evaluation for each of the gates."""
        correct: list[list[Tensor]] = [[] for _ in candidates]
        losses: list[list[Tensor]] = [[] for _ in candidates]
        was_training = self._supernet.training
        self._supernet.train()
        with frozen_statistics(self._supernet):
            for number, (x, y) in enumerate(self._batches):
                for i, gates in enumerate(candidates):
                    with paired_noise(self._supernet, self._seed + number), autocast(x.device):
                        logits = self._supernet(x, gates).float()
                    correct[i].append(logits.argmax(dim=1) == y)
                    losses[i].append(F.cross_entropy(logits, y, reduction="none"))
        self._supernet.train(was_training)
        return [Evaluation(torch.cat(c).cpu(), torch.cat(x).cpu()) for c, x in zip(correct, losses, strict=True)]
