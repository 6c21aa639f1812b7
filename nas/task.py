"""Tasks: the loss of a training, and the metric of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espalier.nas.device import autocast
from espalier.nas.errors import UserError
from espalier.nas.network_inputs import prediction

Batch = tuple[Tensor, Tensor]
Step = Callable[[nn.Module, Batch], Any]
"""A step of the user's: the loss of a network on a batch, or the loss and the predictions."""


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


def batch_loss(task: Task, network: nn.Module, batch: Batch) -> tuple[Tensor, Any]:
    """The loss of a network on a batch, and its outputs; by the task's own step if it has one.

    Args:
        task: defines the loss.
        network: in training or evaluation mode.
        batch: inputs and targets.

    Raises:
        UserError: the step of the user's returns something else.
    """
    step: Step | None = getattr(task, "step", None)
    if step is None:
        outputs = network(batch[0])
        return task.loss(outputs, batch[1]), outputs
    found = step(network, batch)
    loss, outputs = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    if not isinstance(loss, Tensor) or loss.ndim or not loss.is_floating_point():
        kind = f"a tensor {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        problem = f"returns {kind} as the loss, must return a scalar tensor, or one and the predictions"
        raise UserError("train.step", problem, code="user_code")
    return loss, outputs


@dataclass(frozen=True)
class Classification:
    """Classification of images into one class each.

    Networks may return several tensors, of which one is the prediction (see `prediction`).

    Attributes:
        num_classes: length of the logits.
        label_smoothing: share of each target that training spreads over all classes.
        output: name or place of the prediction; None takes `logits`, `out` or the first tensor.
        step: computes the loss, and may compute the predictions, in place of the network and the cross-entropy.
    """

    num_classes: int
    label_smoothing: float = 0.0
    output: str | None = None
    step: Step | None = None

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """Mean cross-entropy of logits `(batch, classes)`; targets are class indices or distributions."""
        logits = prediction(outputs, self.output)
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

    def predictions(self, network: nn.Module, batch: Batch) -> Tensor:
        """The logits `(batch, classes)` of a network, or the predictions of the user's own step."""
        if self.step is not None:
            _, found = batch_loss(self, network, batch)
            if found is not None:
                return prediction(found, self.output)
        return prediction(network(batch[0]), self.output)

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
                logits = self.predictions(model, (x, y))
            correct = correct + (logits.argmax(dim=1) == y).sum()
            count += len(y)
        model.train(was_training)
        if not count:
            raise ValueError("no images to evaluate on")
        return int(correct) / count
