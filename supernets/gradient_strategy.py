"""The common part of strategies that learn architecture parameters."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor

from espalier.nas.architecture import Architecture
from espalier.nas.choices import ElasticChoice, InputChoice, LayerChoice
from espalier.nas.cost.model import CostModel
from espalier.nas.errors import UserError
from espalier.nas.gates import Gates
from espalier.supernets.alphas import Alphas
from espalier.supernets.batch_norm import frozen_statistics
from espalier.supernets.costs import MACS, costs_from
from espalier.supernets.entropy import mean_entropy
from espalier.supernets.selection.argmax import argmax
from espalier.supernets.strategy import Step, Strategy

INITIAL_STD = 1e-3
"""Standard deviation of the initial alphas: nearly uniform gates (Liu et al., DARTS)."""
BETAS = (0.5, 0.999)
"""Betas of Adam for alpha (Liu et al., DARTS)."""


class Stateful(Protocol):
    """Anything with a state for checkpoints, such as an optimiser."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


class AlphaStrategy(Strategy):
    """A strategy with a vector alpha for each choice, whose softmax is the probability of each option.

    A subclass sets the `optimizer` of the alphas.
    """

    supports = frozenset({LayerChoice, InputChoice, ElasticChoice})
    learns = True
    optimizer: Stateful

    def __post_init__(self) -> None:
        super().__post_init__()
        self.alphas = Alphas(self.space, std=INITIAL_STD)

    def weigh(self, alpha: Tensor) -> Tensor:
        """The mean weights of the open options, given their alphas."""
        return softmax(alpha)

    def likelihood(self, alpha: Tensor) -> Tensor:
        """The probability of each open option, given their alphas."""
        return softmax(alpha)

    def mean_gates(self) -> Gates:
        """The gates `weigh(alpha)` inside the region."""
        with torch.no_grad():
            return self.alphas.gates(self.region, self.weigh)

    def preferences(self) -> Mapping[str, Tensor]:
        """The probabilities `likelihood(alpha)` inside the region."""
        with torch.no_grad():
            return self.probabilities()

    def probabilities(self) -> dict[str, Tensor]:
        """As `preferences`, differentiable in alpha."""
        return {name: self.alphas.weights(self.region, name, self.likelihood) for name in self.alphas.values}

    def preferred(self) -> Architecture:
        """The largest option of every choice; edges are compared by the weights of the trained mixture."""
        with torch.no_grad():
            weights = {name: self.alphas.weights(self.region, name, self.weigh) for name in self.alphas.values}
        return argmax(self.space, weights, self.region)

    def end_epoch(self, epoch: int, epochs: int) -> Mapping[str, float]:
        """The mean `entropy` of the preferences.

        Raises:
            UserError: an alpha is not finite; the choice is named.
        """
        self.alphas.check_finite()
        entropy = mean_entropy(self.preferences(), self.region)
        return {} if entropy is None else {"entropy": entropy}

    def state_dict(self) -> dict[str, Any]:
        """The region, the alphas, and the state of their optimiser."""
        return {**super().state_dict(), "alphas": self.alphas.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`.

        Raises:
            UserError: it is of another space; the choice is named.
        """
        super().load_state_dict(state)
        self.alphas.load_state_dict(state["alphas"])
        self.optimizer.load_state_dict(state["optimizer"])


@dataclass(kw_only=True, eq=False)
class GradientStrategy(AlphaStrategy):
    """A strategy whose alphas follow the gradient of the validation loss, by Adam, before each step of the weights.

    With a cost they follow L_val + mu E[cost] / max cost, where E is over softmax(alpha), or whatever else
    `likelihood` makes of alpha, and the maximum over all architectures.

    Args:
        space: the supernet.
        alpha_lr: learning rate of Adam for the architecture parameters.
        alpha_weight_decay: their weight decay.
        alpha_warmup: epochs at the start in which only the weights learn.
        cost_weight: mu. With entangled weights, ordinary weight decay alone favours the larger option, so that alpha
            drifts towards it unless cost is penalised.
        cost: what the cost is: `macs`, or a file with a table of costs, such as latencies (see
            `espalier.supernets.costs`).
        any_device: accept a table measured on another device than the one that latency is measured on.

    Raises:
        UserError: `cost` is given but `cost_weight` is 0, the table does not match the space, or the MACs of the space
            cannot be counted layer by layer.
    """

    alpha_lr: PositiveFloat = 3e-4
    alpha_weight_decay: NonNegativeFloat = 1e-3
    alpha_warmup: NonNegativeInt = 0
    cost_weight: NonNegativeFloat = 0.0
    cost: str = MACS
    any_device: bool = False
    optimizer: torch.optim.Adam = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cost != MACS and not self.cost_weight:
            raise UserError("supernet.strategy.cost", "has no effect while cost_weight is 0", code="conflict")
        self._costs: CostModel | None = costs_from(self.cost, self.space) if self.cost_weight else None
        self.optimizer = torch.optim.Adam(
            self.alphas.parameters(), lr=self.alpha_lr, betas=BETAS, weight_decay=self.optimizer_decay
        )

    @property
    def optimizer_decay(self) -> float:
        """The weight decay that Adam applies to alpha."""
        return self.alpha_weight_decay

    def check_schedule(self, epochs: int, steps: int) -> None:
        """Raises UserError if alpha would never take a step."""
        check_warmup(self.alpha_warmup, epochs)

    @property
    def uses_cost(self) -> bool:
        """Whether `cost_weight` is not 0."""
        return self._costs is not None

    @abstractmethod
    def gradient(self, step: Step) -> Sequence[Tensor | None]:
        """The gradient of the validation loss with respect to each alpha."""

    def before_step(self, step: Step) -> None:
        """One step of alpha; weights, batch-norm statistics and the alphas of decided choices do not change."""
        learning = self.alphas.undecided(self.region)
        if step.epoch < self.alpha_warmup or not learning:
            return
        with frozen_statistics(step.supernet):
            gradient = self.gradient(step)
        price = self._price_gradient()
        for (name, alpha), g, dearer in zip(self.alphas.values.items(), gradient, price, strict=True):
            alpha.grad = None  # Adam skips it; with a gradient of 0 it would still apply weight decay
            if name in learning:
                alpha.grad = dearer if g is None else g + dearer
        self.optimizer.step()

    def _price_gradient(self) -> Sequence[Tensor]:
        """Mu d(E[cost] / max cost)/dalpha, for each alpha."""
        alphas = self.alphas.parameters()
        if self._costs is None:
            return [torch.zeros_like(alpha) for alpha in alphas]
        price = self.cost_weight * self._costs.expected(self.probabilities()) / self._costs.most_expensive(self.region)
        return torch.autograd.grad(price, alphas, allow_unused=True, materialize_grads=True)

    def end_epoch(self, epoch: int, epochs: int) -> Mapping[str, float]:
        """Adds the expected cost, such as `expected_macs`, where it is part of the loss."""
        row = super().end_epoch(epoch, epochs)
        if self._costs is None:
            return row
        return {**row, f"expected_{self._costs.unit}": float(self._costs.expected(self.preferences()))}


def check_warmup(alpha_warmup: int, epochs: int) -> None:
    """Raises UserError if the warm-up leaves no epoch for the architecture parameters."""
    if alpha_warmup >= epochs:
        problem = f"{alpha_warmup} of {epochs} epochs leave none for the architecture parameters to learn in"
        raise UserError("supernet.strategy.alpha_warmup", problem, code="conflict")


def softmax(alpha: Tensor) -> Tensor:
    """Softmax over the open options."""
    return alpha.softmax(dim=0)
