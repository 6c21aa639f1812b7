"""SPOS: single path one-shot. Guo et al., "Single Path One-Shot NAS with Uniform Sampling", ECCV 2020."""

from __future__ import annotations

import torch

from nas.choices import InputChoice, LayerChoice, ValueChoice
from supernets.strategy import Strategy


class SinglePathOneShot(Strategy):
    """Each step trains the weights of one path a ~ U(A): every choice takes an option uniformly, independently.

    W = argmin_W E_{a ~ U(A)} [ L_train(N(a, W)) ]   (equation 7 of the paper)

    It learns nothing but the weights. Layers off the path get no gradient, and the optimiser leaves them alone: no
    momentum, no decay.
    """

    name = "spos"
    supports = frozenset({LayerChoice, InputChoice, ValueChoice})

    def weight_gates(self, generator: torch.Generator) -> dict[str, int]:
        """A uniform one-hot gate for each choice, drawn again where the space does not contain what was drawn."""
        while True:
            gates = self.region.sample_gates(generator)
            if self.space.contains(self.space.architecture(gates)):
                return gates
