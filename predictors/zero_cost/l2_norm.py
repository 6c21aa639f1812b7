"""L2 norm: how large are the weights?"""

from __future__ import annotations

from espalier.predictors.zero_cost.probe import Probe
from espalier.predictors.zero_cost.score import Score


class L2Norm(Score):
    """Σ_l ‖w_l‖₂ over the Conv2d and Linear layers l.

    Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021. Runs nothing: it counts layers and their
    widths through the scale of the initialisation.
    """

    name = "l2_norm"
    needs = frozenset()
    batch_norm = "unused"

    def compute(self, probe: Probe) -> float:
        return sum(float(w_l.norm()) for w_l in probe.weights.values())
