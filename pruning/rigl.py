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
    """Sparse from the first step; at intervals the smallest weights are dropped, others grow where gradients are large.

    Every ΔT iterations until T_end, each layer drops the share

        f(t) = α / 2 (1 + cos(π t / T_end))

    of its active weights, those of smallest |w|, and the pattern grows the inactive weights (including those just
    dropped) of largest |∂L/∂w|. With a `Layerwise` pattern that is algorithm 1, and every layer keeps its number of
    weights (the paper allocates by ERK). With `NOfM` weights grow within each group, with `Globally` wherever the
    gradient is largest, so that the numbers of weights per layer may change.

    A grown weight starts at 0; one that is dropped and grown at once keeps its value, as in the authors' code. That
    code also resets the momentum of grown weights. Here the optimiser is left alone: its moments of an inactive weight
    follow the dense gradient, so that a grown weight starts in the direction it would have taken. Gradients are the
    dense ones of the last step, which must still exist when `step` is called.

    The pattern selects the first active weights by magnitude, after the first step.

    Args:
        weights: the weights to prune, by name; changed in place.
        pattern: how many of them are pruned, and where.
        iterations: K.
        fraction: α, the share exchanged at first.
        every: ΔT, in iterations; None takes 100 as published, or less where that gave fewer than ten exchanges.
        until: T_end as a share of K.

    Raises:
        UserError: an option is out of range, or there are too few iterations for a single exchange.
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
        """The active weights."""
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
