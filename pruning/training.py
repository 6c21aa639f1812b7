"""The ordinary training loop with a pruner around each step."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from espalier.nas.device import autocast
from espalier.nas.task import batch_loss
from espalier.nas.training import Training
from espalier.pruning.distillation import Distillation
from espalier.pruning.pruner import Pruner


class SparseTraining(Training):
    """Training with a pruner that makes the weights sparse or keeps them so; its state includes the pruner's.

    Args:
        model: the network to train.
        *arguments: of `espalier.nas.training.Training`.
        pruner: of this model's weights; None prunes nothing, as in fine-tuning after channels were removed.
        distillation: a teacher to learn from, besides the labels. Its network is not part of the state.
        **options: of `espalier.nas.training.Training`.
    """

    def __init__(
        self,
        model: nn.Module,
        *arguments: Any,
        pruner: Pruner | None = None,
        distillation: Distillation | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, *arguments, **options)
        self.pruner = pruner
        self.distillation = distillation

    def backward(self, x: Tensor, y: Tensor) -> Tensor:
        if self.distillation is None:
            return super().backward(x, y)
        with autocast(x.device):
            loss, outputs = batch_loss(self.task, self.model, (x, y))
            loss = self.distillation.loss(loss, self.model(x) if outputs is None else outputs, x)
        loss.backward()
        return loss.detach()

    def before_update(self) -> None:
        if self.pruner is not None:
            self.pruner.before_step()

    def after_update(self) -> None:
        if self.pruner is not None:
            self.pruner.step()

    def state_dict(self) -> dict[str, Any]:
        pruner = {} if self.pruner is None else {"pruner": self.pruner.state_dict()}
        return super().state_dict() | pruner

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if self.pruner is not None:
            self.pruner.load_state_dict(state["pruner"])
