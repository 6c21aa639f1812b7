"""NASWOT: do the ReLUs tell the images apart?"""

from __future__ import annotations

import torch
from torch import Tensor

from espalier.predictors.zero_cost.batch_pass import BatchPass
from espalier.predictors.zero_cost.network import ScoreError
from espalier.predictors.zero_cost.probe import Probe
from espalier.predictors.zero_cost.score import Score


class NASWOT(Score):
    """log |det K|, K = Σ_relu C Cᵀ + (1-C)(1-C)ᵀ, C the binary codes 1[z > 0] of the images at a ReLU's input z.

    K_ij counts the units where images i and j are on the same side; two images with equal codes make K singular and
    the score -inf. Mellor et al., "Neural Architecture Search without Training", ICML 2021.
    """

    name = "naswot"
    needs = frozenset({"images", "activations"})
    batch_norm = "batch"
    reads = frozenset({"codes"})

    def compute(self, probe: Probe) -> float:
        kernel = probe.once(BatchPass).kernel
        if kernel is None:
            raise ScoreError("network", "naswot needs ReLUs, and the network has none")
        return log_determinant(kernel)


def log_determinant(kernel: Tensor) -> float:
    """Log |det K| of a kernel of codes `(n, n)`."""
    equal = kernel == kernel.diagonal()
    if int(equal.sum()) > len(kernel):  # two equal codes; rounding could hide that the determinant is 0
        return float("-inf")
    return float(torch.linalg.slogdet(kernel).logabsdet)
