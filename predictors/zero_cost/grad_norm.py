"""Gradient norm: how steep is the loss at the start?"""

from __future__ import annotations

from espalier.predictors.zero_cost.batch_pass import BatchPass
from espalier.predictors.zero_cost.probe import Probe
from espalier.predictors.zero_cost.score import Score


class GradNorm(Score):
    """Σ_l ‖g_l‖₂ over the Conv2d and Linear layers l, g the gradient of the batch's loss by their weights.

    A sum of the layers' norms, not the norm of all gradients together. Abdelfattah et al., "Zero-Cost Proxies for
    Lightweight NAS", ICLR 2021.
    """

    name = "grad_norm"
    needs = frozenset({"images", "labels", "loss"})
    batch_norm = "batch"
    reads = frozenset({"gradients"})

    def compute(self, probe: Probe) -> float:
        g = probe.once(BatchPass).gradients
        return sum(float(g_l.norm()) for g_l in g.values())
