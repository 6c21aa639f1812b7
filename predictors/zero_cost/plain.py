"""Plain: SNIP without the absolute value."""

from __future__ import annotations

from espalier.predictors.zero_cost.batch_pass import BatchPass
from espalier.predictors.zero_cost.probe import Probe
from espalier.predictors.zero_cost.score import Score


class Plain(Score):
    """Σ w ⊙ g over Conv2d and Linear weights w with gradients g, signs kept.

    Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021. Depends on the batch so much that two
    batches of one network hardly agree.
    """

    name = "plain"
    needs = frozenset({"images", "labels", "loss"})
    batch_norm = "batch"
    reads = frozenset({"gradients"})

    def compute(self, probe: Probe) -> float:
        batch = probe.once(BatchPass)
        return sum(float((batch.weights[layer] * g_l).sum()) for layer, g_l in batch.gradients.items())
