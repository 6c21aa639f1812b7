"""Jacobian covariance: does the untrained network react differently to different images?"""

from __future__ import annotations

import torch
from torch import Tensor

from espalier.predictors.zero_cost.batch_pass import BatchPass
from espalier.predictors.zero_cost.probe import Probe
from espalier.predictors.zero_cost.score import Score

K = 1e-5  # of the paper: keeps log and 1/λ finite at λ = 0


class JacobCov(Score):
    """-Σ_i (log(λ_i + k) + 1 / (λ_i + k)), λ the eigenvalues of the correlation matrix of the rows J_i, k = 1e-5.

    J_i is the gradient of image i's summed logits by the image. At most about -n, for n images with uncorrelated
    gradients. Mellor et al., "Neural Architecture Search without Training", first version, 2020; Abdelfattah et al.,
    ICLR 2021.
    """

    name = "jacob_cov"
    needs = frozenset({"images"})
    batch_norm = "batch"
    reads = frozenset({"jacobian"})

    def compute(self, probe: Probe) -> float:
        return spread(correlations(probe.once(BatchPass).jacobian))


def correlations(rows: Tensor) -> Tensor:
    """Pearson's correlations `(n, n)`, float64, of rows `(n, d)`; nan for a constant row."""
    return torch.corrcoef(rows.double()) if len(rows) > 1 else torch.ones(1, 1, dtype=torch.float64)


def spread(correlation: Tensor) -> float:
    """-Σ (log(λ + k) + 1 / (λ + k)) of a correlation matrix `(n, n)`; nan if one of its entries is."""
    if bool(correlation.isnan().any()):
        return float("nan")
    eigenvalues = torch.linalg.eigvalsh(correlation).clamp(min=0) + K
    return float(-(eigenvalues.log() + 1 / eigenvalues).sum())
