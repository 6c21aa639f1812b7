"""GReg-1: Wang et al., "Neural Pruning via Growing Regularization", ICLR 2021; SRP uses it for super-resolution."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from espalier.nas.arguments import checked_arguments
from espalier.pruning.patterns import Pattern
from espalier.pruning.pruner import Pruner
from espalier.pruning.weights import Weights


class GrowingRegularisation(Pruner):
    """The weights to prune are chosen once, at the start, and pushed towards zero by an L2 penalty that grows in steps.

        L + λ/2 Σ_{w in P} w²,   λ ← λ + δλ up to its limit, where the network settles

    Then P is set to zero. `before_step` adds λw to the gradients of P only; an adaptive optimiser divides that
    by its own moments, as in the authors' code. Zhang et al., "Learning Efficient Image Super-Resolution Networks
    via Structure-Regularized Pruning" (SRP), ICLR 2022, grow to .5 by 1e-4 in 100,000 iterations and train for
    43,150 more at the limit: the defaults here, as shares.

    Args:
        weights: the weights to prune, by name; changed in place.
        pattern: how many of them are pruned, and where.
        iterations: K, for growth and settling together.
        limit: the largest λ.
        increments: limit / δλ, the number of steps to the limit; at most one in each iteration.
        settle: the share of K spent at the limit.

    Raises:
        UserError: an option is out of range.
    """

    @checked_arguments
    def __init__(
        self,
        weights: Weights,
        pattern: Pattern,
        *,
        iterations: NonNegativeInt,
        limit: PositiveFloat = 0.5,
        increments: PositiveInt = 5000,
        settle: Annotated[float, Field(ge=0, lt=1)] = 0.3,
    ) -> None:
        super().__init__(weights, iterations=iterations)
        self.pattern = pattern
        self.limit = limit
        self.increments = increments
        self.growth = max(1, round((1 - settle) * iterations))

    def strength(self, iteration: int) -> float:
        """λ at an iteration, counted from 1: the first increment comes with the first of them."""
        return self.limit * min(1.0, math.ceil(iteration * self.increments / self.growth) / self.increments)

    @torch.no_grad()
    def before_step(self) -> None:
        """Add λw to the gradients of P. A weight without a gradient does not affect the loss and is left alone."""
        if self.masks is not None or self.iteration >= self.iterations:
            return
        kept = self._chosen()
        strength = self.strength(self.iteration + 1)
        for name, weight in self.weights.items():
            if weight.grad is not None:
                weight.grad.addcmul_(weight, ~kept[name], value=strength)

    def sparsify(self) -> None:
        """Only choose P, if `before_step` has not done so yet."""
        self._chosen()

    def select(self) -> dict[str, Tensor]:
        return self._chosen()

    def _chosen(self) -> dict[str, Tensor]:
        if self.kept is None:
            self.kept = self.pattern.select(self.magnitudes())
        return self.kept
