"""SPOS: single path one-shot. Guo et al., "Single Path One-Shot NAS with Uniform Sampling", ECCV 2020."""

from __future__ import annotations

from typing import Any

import torch

from nas.choices import Choice, InputChoice, LayerChoice, ValueChoice
from nas.space import SearchSpace


class SinglePathOneShot:
    """Each step trains the weights of one path a ~ U(A): every choice takes an option uniformly, independently.

    W = argmin_W E_{a ~ U(A)} [ L_train(N(a, W)) ]   (equation 7 of the paper)

    It learns nothing but the weights, so its state is empty. Layers off the path get no gradient, and the optimiser
    leaves them alone: no momentum, no decay.
    """

    name = "spos"
    supports: frozenset[type[Choice]] = frozenset({LayerChoice, InputChoice, ValueChoice})

    def __init__(self, space: SearchSpace) -> None:
        self._sizes = {choice.name: len(choice.options) for choice in space.choices().values()}

    def weight_gates(self, generator: torch.Generator) -> dict[str, int]:
        """A uniform one-hot gate for each choice."""
        draws = torch.rand(len(self._sizes), generator=generator, dtype=torch.float64).tolist()
        return {name: int(u * size) for u, (name, size) in zip(draws, self._sizes.items(), strict=True)}

    def state_dict(self) -> dict[str, Any]:
        """Empty."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to take up."""
