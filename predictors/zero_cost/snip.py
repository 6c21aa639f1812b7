"""SNIP: how much would the loss move if each weight were scaled?"""

from __future__ import annotations

from espalier.predictors.zero_cost.batch_pass import BatchPass
from espalier.predictors.zero_cost.probe import Probe
from espalier.predictors.zero_cost.score import Score


class SNIP(Score):
    """Σ |w ⊙ g| over Conv2d and Linear weights w with gradients g: |∂L/∂m| of a mask m on every weight, at m = 1.

    Lee et al., "SNIP: Single-shot Network Pruning based on Connection Sensitivity", ICLR 2019, as a score of the whole
    network by Abdelfattah et al., ICLR 2021.
    """

    name = "snip"
    needs = frozenset({"images", "labels", "loss"})
    batch_norm = "batch"
    reads = frozenset({"gradients"})

    def compute(self, probe: Probe) -> float:
        batch = probe.once(BatchPass)
        return sum(float((batch.weights[layer] * g_l).abs().sum()) for layer, g_l in batch.gradients.items())
