"""SPOS: single path one-shot. Guo et al., "Single Path One-Shot NAS with Uniform Sampling", ECCV 2020."""

from __future__ import annotations

import torch

from espalier.nas.choices import InputChoice, LayerChoice, ValueChoice
from espalier.supernets.constraints import rejection_sample, satisfies_constraints
from espalier.supernets.strategy import Strategy


class SinglePathOneShot(Strategy):
    """Each step trains the weights of one path a ~ U(A): every choice takes an option uniformly, independently.

    W = argmin_W E_{a ~ U(A)} [ L_train(N(a, W)) ]   (equation 7 of the paper)

    It learns nothing but the weights. Layers off the path get no gradient, and the optimiser leaves them alone: no
    momentum, no decay.
    """

    name = "spos"
    supports = frozenset({LayerChoice, InputChoice, ValueChoice})

    def weight_gates(self, generator: torch.Generator) -> dict[str, int]:
        """A uniform one-hot gate for each choice, drawn again where the space does not contain what was drawn.

        Raises:
            UserError: it contains nothing, or hardly anything, of the region.
        """
        return rejection_sample(
            lambda: self.region.sample_gates(generator),
            lambda gates: satisfies_constraints(self.space, gates),
            where="supernet.strategy",
            problem=f"{self.name} finds no path through the options that are open",
        )
