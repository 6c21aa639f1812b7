"""RigL: Evci et al., "Rigging the Lottery: Making All Tickets Winners", ICML 2020."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from espalier.nas.arguments import checked_arguments
from espalier.nas.errors import UserError
from espalier.pruning.masks import apply_masks, lowest
from espalier.pruning.patterns import Pattern
from espalier.pruning.pruner import Pruner
from espalier.pruning.weights import Weights

PUBLISHED_EVERY = 100
LEAST_EXCHANGES = 10

Share = Annotated[float, Field(gt=0, le=1)]


class RigL(Pruner):
    """Sparse from the first step; now and then the smallest weights leave, and others enter where gradients are large.

    Every ΔT iterations until T_end, each layer drops the share

        f(t) = α / 2 (1 + cos(π t / T_end))

    of the weights it has, those of smallest |w|, and the pattern fills up the places with those of largest |∂L/∂w| of
    all that are out, the dropped among them. Under a `Layerwise` pattern that is algorithm 1, and every layer keeps its
    number of weights (the paper's numbers are those of ERK). Under `NOfM` places are filled in each group, under
    `Globally` wherever the gradient is largest, so that numbers of layers may move.

    A weight enters at 0; one that is dropped and enters at once keeps its value, as in the authors' code. That code
    also resets the momentum of those that enter. Here the optimiser is not touched: its moments of a weight that is
    out follow the dense gradient, so that it starts out in the direction that it would have gone. Gradients are the
    dense ones of the last step, which must still be there when `step` is called.

    The first weights are those that the pattern selects by magnitude, after the first step.

    Args:
        weights, pattern: what is pruned, how many and where.
        iterations: K.
        fraction: α, the share that is exchanged at first.
        every: ΔT, in iterations; null takes 100 as published, or less where that would be under ten exchanges.
        until: T_end as a share of K.

    Raises:
        UserError: an option is out of range, or so many iterations have no exchange at all.
    """

    @checked_arguments
    def __init__(
        self,
        weights: Weights,
        pattern: Pattern,
        *,
        iterations: NonNegativeInt,
        fraction: Share = 0.3,
        every: PositiveInt | None = None,
        until: Share = 0.75,
    ) -> None:
        super().__init__(weights, iterations=iterations)
        self.last = math.floor(until * iterations)
        if every is None:
            every = min(PUBLISHED_EVERY, max(1, self.last // LEAST_EXCHANGES))
        if iterations > 0 and every > self.last:
            problem = f"must be at most {self.last}, the last iteration that may exchange weights, not {every}"
            raise UserError("every", problem, code="out_of_range")
        self.pattern = pattern
        self.fraction = fraction
        self.every = every

    def sparsify(self) -> None:
        t = self.iteration
        if self.kept is None:
            self.kept = self.pattern.select(self.magnitudes())
        elif t % self.every == 0 and t <= self.last:
            self.kept = self._exchange(self.kept, f=self.fraction / 2 * (1 + math.cos(math.pi * t / self.last)))
        apply_masks(self.weights, self.kept)

    def select(self) -> dict[str, Tensor]:
        """The weights that are in."""
        return self.pattern.select(self.magnitudes()) if self.kept is None else self.kept

    def _exchange(self, kept: dict[str, Tensor], f: float) -> dict[str, Tensor]:
        scores = {}
        for name, weight in self.weights.items():
            if weight.grad is None:
                problem = "has no gradient after the optimiser's step, and RigL grows weights by their gradients"
                raise UserError(name, problem, code="missing")
            size = weight.abs().masked_fill(~kept[name], torch.inf)
            dropped = lowest(size, round(f * int(kept[name].sum())))
            scores[name] = weight.grad.abs().masked_fill(kept[name] & ~dropped, torch.inf)
        return self.pattern.select(scores)
