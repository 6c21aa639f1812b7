"""ISS-P: Wang et al., "Iterative Soft Shrinkage Learning for Efficient Image Super-Resolution", ICCV 2023."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from espalier.nas.arguments import checked_arguments
from espalier.pruning.patterns import Pattern
from espalier.pruning.pruner import Pruner
from espalier.pruning.weights import Weights


class SoftShrink(Pruner):
    """The least important weights are chosen again after each step, and shrunk a little.

        S(θ) = θ where |θ| ≥ τ, αθ elsewhere;   Θ ← S(Θ - γ∇J(Θ))

    τ is the threshold with exactly the pattern's number of weights below it: for a layer of n weights at the ratio r,
    ceil(r n). A weight in the lower part still receives its gradient and may grow out of it. One that stays there is
    not driven to zero but held near αu / (1 - α), where u is its step of the optimiser: 19 u at α = .95. After K
    iterations the masks are fixed, and what was left of the pruned weights is lost. With Adam u is up to the learning
    rate: at 2e-4, as published, the band ends at .0038, at 1e-3 it reaches the size of ordinary weights. The network
    may be trained or fresh at the start. From fresh weights the phase must be long: in
    `benchmarks/sparse_super_resolution.py` 85 % of the weights that are kept after 1,450 iterations are those that were
    largest at the start.

    The paper shrinks before the gradient is computed; here, as in its published code, after the step, which differs
    only in the first iteration. The length of the phase, which that code derives from a counter (100,021 iterations),
    is `iterations`. Its `IST-fast`, which never shrinks, and its cap of 99.5 % on a layer's zeros (see `zeros_at`) have
    no counterpart here.

    Args:
        weights: the weights to prune, by name; shrunk in place.
        pattern: how many of them are pruned, and where.
        iterations: K.
        alpha: α; 1 is dense training with one-shot pruning at the end, 0 is `HardThreshold`.
        reselect_every: iterations between two choices of the lower part. Few weights move in or out in one iteration
            (1 in 10,000 to 100,000), so that 10 is nearly as good; use 1 where the choice is cheap.

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
        alpha: Annotated[float, Field(ge=0, le=1)] = 0.95,
        reselect_every: PositiveInt = 1,
    ) -> None:
        super().__init__(weights, iterations=iterations)
        self.pattern = pattern
        self.alpha = alpha
        self.reselect_every = reselect_every

    def sparsify(self) -> None:
        if self.kept is None or (self.iteration - 1) % self.reselect_every == 0:
            self.kept = self.select()
        for name, kept in self.kept.items():
            shrink(self.weights[name], kept, self.alpha)

    def select(self) -> dict[str, Tensor]:
        """The current lower part; shrinking does not change it."""
        return self.pattern.select(self.magnitudes())


class HardThreshold(SoftShrink):
    """Iterative hard thresholding (IHT): the lower part is set to zero after each step, and may come back.

    `SoftShrink` with α = 0. Blumensath & Davies, "Iterative Hard Thresholding for Compressed Sensing", 2009.

    Args:
        weights: as in `SoftShrink`.
        pattern: as in `SoftShrink`.
        iterations: as in `SoftShrink`.
        reselect_every: as in `SoftShrink`.
    """

    @checked_arguments
    def __init__(
        self, weights: Weights, pattern: Pattern, *, iterations: NonNegativeInt, reselect_every: PositiveInt = 1
    ) -> None:
        super().__init__(weights, pattern, iterations=iterations, alpha=0.0, reselect_every=reselect_every)


@torch.no_grad()
def shrink(weight: Tensor, kept: Tensor, alpha: float) -> None:
    """Multiply the weights that are not `kept` by α in place: w ← w - (1 - α) w P. Kept weights stay bit for bit."""
    weight.addcmul_(weight, ~kept, value=alpha - 1)
