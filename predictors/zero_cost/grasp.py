"""GraSP: does a step along the gradient keep the gradient strong?"""

from __future__ import annotations

from espalier.predictors.zero_cost.batch_pass import BatchPass
from espalier.predictors.zero_cost.probe import Probe
from espalier.predictors.zero_cost.score import Score


class GraSP(Score):
    """Σ -w ⊙ (H g) over Conv2d and Linear weights w, g the gradient and H the Hessian of the loss by all of them.

    Wang et al., "Picking Winning Tickets Before Training by Preserving Gradient Flow", ICLR 2020, as a score of the
    whole network by Abdelfattah et al., ICLR 2021, with their sign. Gradient and Hessian are of one batch. Two batches
    of one network agree only roughly (rank correlation .77 on one benchmark).
    """

    name = "grasp"
    needs = frozenset({"images", "labels", "loss"})
    batch_norm = "batch"
    reads = frozenset({"gradients", "curvature"})

    def compute(self, probe: Probe) -> float:
        batch = probe.once(BatchPass)
        return sum(float(-(batch.weights[layer] * hg_l).sum()) for layer, hg_l in batch.curvature.items())
