"""Magnitude pruning: in one shot, or gradually with a cubic schedule."""

from __future__ import annotations

import math

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from espalier.nas.arguments import checked_arguments
from espalier.pruning.masks import apply_masks
from espalier.pruning.patterns import Pattern
from espalier.pruning.pruner import Pruner
from espalier.pruning.weights import Weights


class OneShotMagnitude(Pruner):
    """Dense training for K iterations, then the smallest weights are removed at once; fine-tuning follows.

    Han et al., "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS 2015.

    Args:
        weights: the weights to prune, by name; changed in place.
        pattern: how many of them are pruned, and where.
        iterations: K; 0 prunes the given network immediately.
    """

    @checked_arguments
    def __init__(self, weights: Weights, pattern: Pattern, *, iterations: NonNegativeInt) -> None:
        super().__init__(weights, iterations=iterations)
        self.pattern = pattern

    def sparsify(self) -> None:
        """Nothing: the weights are just trained."""

    def select(self) -> dict[str, Tensor]:
        return self.pattern.select(self.magnitudes())


class GradualMagnitude(Pruner):
    """The smallest weights are removed gradually, fast at first and slower towards the end.

        s_t = s_f + (s_i - s_f) (1 - t / n)^3,  s_i = 0

    Zhu & Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression", 2017, equation 1.
    Removed weights stay zero: their gradients are ignored.

    Args:
        weights: the weights to prune, by name; changed in place.
        pattern: how many of them are pruned, and where.
        iterations: n, at which s_f is reached.
        updates: how many times weights are removed, evenly spaced; at most once in each iteration.

    Raises:
        UserError: an option is out of range.
    """

    @checked_arguments
    def __init__(
        self, weights: Weights, pattern: Pattern, *, iterations: NonNegativeInt, updates: PositiveInt = 100
    ) -> None:
        super().__init__(weights, iterations=iterations)
        self.pattern = pattern
        self.updates = updates

    def sparsify(self) -> None:
        t, n = self.iteration, self.iterations
        if math.floor(t * self.updates / n) > math.floor((t - 1) * self.updates / n):
            self.kept = self._remaining(share=1 - (1 - t / n) ** 3)
        if self.kept is not None:
            apply_masks(self.weights, self.kept)

    def select(self) -> dict[str, Tensor]:
        """The final masks, by the current weights."""
        return self._remaining(share=1.0)

    def _remaining(self, share: float) -> dict[str, Tensor]:
        scores = self.magnitudes()
        if self.kept is not None:  # below all other scores, so that removed weights stay removed
            scores = {name: torch.where(kept, scores[name], -1) for name, kept in self.kept.items()}
        return self.pattern.select(scores, share)
