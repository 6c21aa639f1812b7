"""The base of all weight pruners: a few calls around an ordinary training loop, and masks at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import NonNegativeInt
from torch import Tensor

from espalier.nas.arguments import checked_arguments
from espalier.nas.errors import UserError
from espalier.nas.training import Diverged
from espalier.pruning.masks import Masks, apply_masks
from espalier.pruning.weights import Weights


class Pruner(ABC):
    """Makes the weights of a network sparse while any loop trains it.

        loss.backward(); pruner.before_step(); optimizer.step(); pruner.step()

    Until `iterations` steps are done the method shrinks, moves or zeroes weights; then the masks are fixed, and every
    further `step` only re-applies them. With 0 iterations the first `step`, or a `finalize` before it, fixes them.
    Gradients, biases and optimiser states are never changed, unless a method says so.

    The training loop controls the learning rate. As published, sparse training keeps it constant until the masks are
    fixed and then starts its schedule from the beginning, keeping the optimiser's state.

    Args:
        weights: the weights that may be pruned, by name; changed in place.
        iterations: K, the steps until the masks are fixed.

    Raises:
        UserError: `iterations` is negative, or a weight contains NaN or infinite values.
    """

    @checked_arguments
    def __init__(self, weights: Weights, *, iterations: NonNegativeInt) -> None:
        for name in _not_finite(weights):
            raise UserError(name, "contains NaN or infinite values, so its weights cannot be ranked")
        self.weights = weights
        self.iterations = iterations
        self.iteration = 0
        self.masks: Masks | None = None
        self.kept: dict[str, Tensor] | None = None
        """The current choice of the method, once it has made one; equal to `masks` once those are fixed."""

    def before_step(self) -> None:  # noqa: B027 - most methods do nothing here
        """To be called after the backward pass, before the optimiser's step."""

    @torch.no_grad()
    def step(self) -> None:
        """To be called after each step of the optimiser, while the gradients are still there.

        Raises:
            Diverged: see `finalize`.
        """
        if self.masks is not None:
            apply_masks(self.weights, self.masks)
            return
        if self.iteration < self.iterations:
            self.iteration += 1
            self.sparsify()
        if self.iteration >= self.iterations:
            self.finalize()

    @abstractmethod
    def sparsify(self) -> None:
        """What the method does to the weights at iteration `self.iteration` (from 1), without gradients."""

    @abstractmethod
    def select(self) -> dict[str, Tensor]:
        """The masks that the method would fix at this point."""

    @torch.no_grad()
    def finalize(self) -> Masks:
        """Fix the masks, set pruned weights to zero, and return the masks. Further calls return the same masks.

        Raises:
            Diverged: a weight is NaN or infinite, so that weights cannot be ranked.
        """
        if self.masks is None:
            for name in _not_finite(self.weights):
                problem = f"{name} contains values that are not finite at iteration {self.iteration} of pruning"
                raise Diverged(f"{problem}; a smaller learning rate may help")
            self.masks = self.select()
            apply_masks(self.weights, self.masks)
        return self.masks

    def magnitudes(self) -> dict[str, Tensor]:
        """|w| of every weight, the score of most methods."""
        return {name: weight.detach().abs() for name, weight in self.weights.items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything the next step depends on besides the weights: tensors, numbers and strings."""
        masks = None if self.masks is None else dict(self.masks)
        return {"iteration": self.iteration, "masks": masks, "kept": self.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`, on any device.

        Raises:
            UserError: it belongs to another network; the first weight that differs is named.
        """
        self.iteration = state["iteration"]
        self.masks = self._masks_from(state["masks"])
        self.kept = self._masks_from(state["kept"])

    def _masks_from(self, masks: Mapping[str, Tensor] | None) -> dict[str, Tensor] | None:
        """Masks from a checkpoint, each on the device of its weight.

        Raises:
            UserError: see `load_state_dict`.
        """
        if masks is None:
            return None
        for name in sorted(masks.keys() | self.weights.keys()):
            if name not in masks or name not in self.weights or masks[name].shape != self.weights[name].shape:
                problem = f"its masks belong to another network: {name} is missing or has another shape"
                raise UserError("checkpoint", problem, code="mismatch")
        return {name: masks[name].to(weight.device) for name, weight in self.weights.items()}


def _not_finite(weights: Weights) -> list[str]:
    return [name for name, weight in weights.items() if not bool(weight.isfinite().all())]
