"""What all pruners of weights share: a few calls around an ordinary training loop, and masks at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from pruning.masks import Masks, apply_masks
from pruning.weights import Weights


class Pruner(ABC):
    """Makes the weights of a network sparse while any loop trains it.

        loss.backward(); pruner.before_step(); optimizer.step(); pruner.step()

    Until `iterations` steps are done the method shrinks, moves or zeroes weights; then the masks are fixed, and every
    further `step` only holds them. Gradients, biases and optimiser states are never touched, except where a method
    says so.

    Args:
        weights: those that may be pruned; changed in place. iterations: K, the steps until the masks are fixed.
    """

    def __init__(self, weights: Weights, *, iterations: int) -> None:
        if iterations < 0:
            raise ValueError(f"iterations must not be negative, not {iterations}")
        self.weights = weights
        self.iterations = iterations
        self.iteration = 0
        self.masks: Masks | None = None

    def before_step(self) -> None:  # noqa: B027 - most methods have nothing to do here
        """Called when gradients are there, before the optimiser uses them."""

    @torch.no_grad()
    def step(self) -> None:
        """Called after each step of the optimiser."""
        if self.masks is not None:
            apply_masks(self.weights, self.masks)
            return
        self.iteration += 1
        self.sparsify()
        if self.iteration >= self.iterations:
            self.finalize()

    @abstractmethod
    def sparsify(self) -> None:
        """What the method does to the weights at iteration `self.iteration` (from 1), without gradients."""

    @abstractmethod
    def select(self) -> dict[str, Tensor]:
        """The masks that the method would fix now."""

    @torch.no_grad()
    def finalize(self) -> Masks:
        """Fix the masks, set what they do not keep to zero, and return them. Only the first call decides."""
        if self.masks is None:
            self.masks = self.select()
            apply_masks(self.weights, self.masks)
        return self.masks

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on, beside the weights: tensors, numbers and strings."""
        return {"iteration": self.iteration, "masks": None if self.masks is None else dict(self.masks)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.iteration = state["iteration"]
        self.masks = state["masks"]
