"""The ordinary training loop with a pruner around each step."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from espalier.nas.device import autocast
from espalier.nas.training import Training
from espalier.pruning.distillation import Distillation
from espalier.pruning.pruner import Pruner


class SparseTraining(Training):
    """A training whose weights a pruner makes, or keeps, sparse; its state holds the pruner's.

    Args:
        model, *arguments, **options: of `espalier.nas.training.Training`.
        pruner: of this model's weights. None: nothing is pruned, as in fine-tuning after channels were removed.
        distillation: the teacher to learn from, beside the labels. Its network is not part of the state.
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
            outputs = self.model(x)
            loss = self.distillation.loss(self.task.loss(outputs, y), outputs, x)
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
