"""What the strategies that learn architecture parameters with a gradient have in common."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nas.choices import InputChoice, LayerChoice
from nas.gates import Gates
from nas.space import SearchSpace
from supernets.alphas import Alphas
from supernets.statistics import frozen_statistics
from supernets.strategy import Step, Strategy

INITIAL_STD = 1e-3
"""Of the first alphas: nearly uniform gates (Liu et al., DARTS)."""
BETAS = (0.5, 0.999)
"""Of Adam for alpha (Liu et al., DARTS)."""


class LearntStrategy(Strategy):
    """A strategy with architecture parameters that follow a gradient before each step of the weights.

    Args:
        space: the supernet.
        alpha_lr: learning rate of Adam for the architecture parameters.
        alpha_weight_decay: their decay.
        alpha_warmup: epochs at the start in which only the weights learn.
    """

    supports = frozenset({LayerChoice, InputChoice})
    learns = True

    def __init__(
        self, space: SearchSpace, *, alpha_lr: float = 3e-4, alpha_weight_decay: float = 1e-3, alpha_warmup: int = 0
    ) -> None:
        super().__init__(space)
        self.alphas = Alphas(space, std=INITIAL_STD)
        self.alpha_warmup = alpha_warmup
        self.optimizer = torch.optim.Adam(
            self.alphas.parameters(), lr=alpha_lr, betas=BETAS, weight_decay=alpha_weight_decay
        )

    @abstractmethod
    def gradient(self, step: Step) -> Sequence[Tensor | None]:
        """The gradient of the validation loss with respect to each alpha."""

    def before_step(self, step: Step) -> None:
        """One step of alpha; the weights and the batch-norm statistics stay as they are."""
        if step.epoch < self.alpha_warmup or not self.region.undecided:
            return
        with frozen_statistics(step.supernet):
            gradient = self.gradient(step)
        for alpha, g in zip(self.alphas.parameters(), gradient, strict=True):
            alpha.grad = torch.zeros_like(alpha) if g is None else g
        self.optimizer.step()

    def mean_gates(self) -> Gates:
        """softmax(alpha) inside the region."""
        with torch.no_grad():
            return self.alphas.gates(self.region, softmax)

    def preferences(self) -> Mapping[str, Tensor]:
        """softmax(alpha) inside the region."""
        with torch.no_grad():
            return {name: self.alphas.weights(self.region, name, softmax) for name in self.alphas.values}

    def end_epoch(self, epoch: int, epochs: int) -> Mapping[str, float]:
        """`entropy` of the gates, 1 for uniform ones and 0 for decided ones, the mean over undecided choices.

        Raises:
            UserError: an alpha is not finite; the choice is named.
        """
        self.alphas.check_finite()
        preferences = self.preferences()
        shares = [
            float(torch.special.entr(preferences[name]).sum()) / math.log(len(self.region[name]))
            for name in self.region.undecided
            if name in preferences
        ]
        return {"entropy": sum(shares) / len(shares)} if shares else {}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "alphas": self.alphas.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.alphas.load_state_dict(state["alphas"])
        self.optimizer.load_state_dict(state["optimizer"])


def softmax(alpha: Tensor) -> Tensor:
    """softmax over the open options."""
    return alpha.softmax(dim=0)
