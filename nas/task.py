"""Tasks: the loss of a training, and the metric of an evaluation."""

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
    """What training and evaluation need from a task."""

    def loss(self, outputs: Tensor, targets: Tensor, /) -> Tensor:
        """The loss of a batch, a scalar to be minimised.

        Args:
            outputs: what the network returned.
            targets: of the same batch.
        """
        ...

    def evaluate(self, model: nn.Module, batches: Iterable[Batch], *, full_precision: bool = ...) -> float:
        """The metric of the model in evaluation mode, over all batches; larger is better.

        Args:
            model: the network; its mode is restored afterwards.
            batches: inputs and targets.
            full_precision: without autocast, as an exported network computes.
        """
        ...


@dataclass(frozen=True)
class Classification:
    """Classification of images into one class each.

    Attributes:
        num_classes: length of the logits.
        label_smoothing: share of each target that training spreads over all classes.
    """

    num_classes: int
    label_smoothing: float = 0.0

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of logits `(batch, classes)`; targets are class indices or distributions."""
        return F.cross_entropy(logits.float(), targets, label_smoothing=self.label_smoothing)

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The cross-entropy of each image, `(batch,)`; `loss` is its mean."""
        return F.cross_entropy(logits.float(), targets, reduction="none", label_smoothing=self.label_smoothing)

    @torch.no_grad()
    def residuals(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The gradient of each image's loss with respect to its logits, softmax(z) - t, `(batch, classes)`.

        t is the target distribution, mixed and smoothed as in the training.
        """
        t = targets if targets.is_floating_point() else F.one_hot(targets, self.num_classes)
        smooth = self.label_smoothing
        return logits.float().softmax(dim=1) - (1 - smooth) * t - smooth / self.num_classes

    @torch.no_grad()
    def evaluate(self, model: nn.Module, batches: Iterable[Batch], *, full_precision: bool = False) -> float:
        """The accuracy in [0, 1]: the share of images whose largest logit is that of their class.

        Args:
            model: returns logits; evaluated in evaluation mode.
            batches: images and their classes.
            full_precision: without autocast, as an exported network computes.

        Raises:
            ValueError: there are no images.
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
