"""What a network is for: how its outputs are judged in training and afterwards."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espalier.nas.device import autocast

Batch = tuple[Tensor, Tensor]


class Task(Protocol):
    """What training and evaluation ask of a task; the larger a number of `evaluate`, the better."""

    def loss(self, outputs: Tensor, targets: Tensor, /) -> Tensor:
        """What training makes small, one number for a batch."""
        ...

    def evaluate(self, model: nn.Module, batches: Iterable[Batch], *, full_precision: bool = ...) -> float:
        """How good the model is, in evaluation mode, over all batches."""
        ...


@dataclass(frozen=True)
class Classification:
    """One class for each image.

    Attributes:
        num_classes: length of the logits.
        label_smoothing: share of the target spread over all classes in training.
    """

    num_classes: int
    label_smoothing: float = 0.0

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of logits `(batch, classes)`; targets are class indices or distributions."""
        return F.cross_entropy(logits.float(), targets, label_smoothing=self.label_smoothing)

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The cross-entropy of each image, `(batch,)`, of which `loss` is the mean."""
        return F.cross_entropy(logits.float(), targets, reduction="none", label_smoothing=self.label_smoothing)

    @torch.no_grad()
    def residuals(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The gradient of each image's loss with respect to its logits, softmax(z) - t, `(batch, classes)`.

        t is the target distribution: mixed and smoothed, if the training does so. The loss is cross-entropy.
        """
        t = targets if targets.is_floating_point() else F.one_hot(targets, self.num_classes)
        smooth = self.label_smoothing
        return logits.float().softmax(dim=1) - (1 - smooth) * t - smooth / self.num_classes

    @torch.no_grad()
    def evaluate(self, model: nn.Module, batches: Iterable[Batch], *, full_precision: bool = False) -> float:
        """The share of images whose largest logit is their class, in [0, 1], with the model in evaluation mode.

        Args:
            model: gives logits.
            batches: images and their classes.
            full_precision: without autocast, as an exported network computes.

        Raises:
            ValueError: there is no image to judge by.
        """
        was_training = model.training
        model.eval()
        correct: Tensor | int = 0
        count = 0
        for x, y in batches:
            with nullcontext() if full_precision else autocast(x.device):
                logits = model(x)
            correct = correct + (logits.argmax(dim=1) == y).sum()
            count += len(y)
        model.train(was_training)
        if not count:
            raise ValueError("no images to evaluate on")
        return int(correct) / count
