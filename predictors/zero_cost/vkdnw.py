"""VKDNW: are all weights about equally easy to estimate from the data?"""

from __future__ import annotations

import torch
from torch import Tensor

from espalier.predictors.zero_cost.initialisation import kaiming_
from espalier.predictors.zero_cost.logit_jacobian import logits_and_jacobian
from espalier.predictors.zero_cost.network import layer_weights
from espalier.predictors.zero_cost.probe import Probe
from espalier.predictors.zero_cost.score import Score

LAYERS = 128  # of the paper: the first so many layers have a weight in the Fisher information


class VKDNW(Score):
    """ℵ + H: the number of Conv2d and Linear layers, and the entropy of the deciles of the Fisher information.

    H = -Σ_k q_k log q_k, q = λ / Σλ, λ_1 ... λ_9 the deciles of the eigenvalues of
    F = mean_n J_nᵀ (diag(p_n) - p_n p_nᵀ) J_n, where p_n is the softmax of image n's logits and J_n their Jacobian by
    one weight of each layer. H lies in [0, log 9], so networks are ordered by depth first. Týbl & Neumann,
    "Training-free Neural Architecture Search through Variance of Knowledge of Deep Network Weights", CVPR 2025
    (VKDNW_single).

    Fresh weights N(0, 2/fan_in) and images N(0, 1) of the batch's shape; batch norm by the statistics of each image,
    so that no image touches another. The weight of a layer is drawn at random (the authors take the first). F has at
    most rank n (classes - 1): where that is less than the number of layers, lower deciles are 0. nan where all are.
    """

    name = "vkdnw"
    needs = frozenset({"activations"})
    batch_norm = "each image"

    def compute(self, probe: Probe) -> float:
        model = probe.network()
        kaiming_(model, "fan_in")
        layers = [name.removesuffix("weight").removesuffix(".") for name in layer_weights(model)]
        f, jacobian = logits_and_jacobian(model, layers[:LAYERS], torch.randn_like(probe.x))
        return len(layers) + decile_entropy(fisher_eigenvalues(f, jacobian))


def decile_entropy(eigenvalues: Tensor) -> float:
    """H of eigenvalues `(p,)`, float64; nan where the deciles are all 0 or not finite."""
    deciles = eigenvalues.quantile(torch.arange(1, 10, dtype=torch.float64, device=eigenvalues.device) / 10)
    return float(torch.special.entr(deciles / deciles.sum()).sum())


def fisher_eigenvalues(f: Tensor, jacobian: Tensor) -> Tensor:
    """The eigenvalues `(p,)`, float64, of F = mean_n J_nᵀ (diag(p_n) - p_n p_nᵀ) J_n; nan where F is not finite.

    Args:
        f: logits `(n, classes)`.
        jacobian: J `(n, classes, p)`.
    """
    p = f.double().softmax(1)[:, :, None]
    j = jacobian.double()
    a = (p.sqrt() * (j - (p * j).sum(1, keepdim=True))).flatten(0, 1)  # diag(p) - ppᵀ = (1 - p1ᵀ) diag(p) (1 - 1pᵀ)
    fisher = a.T @ a / len(f)
    if not bool(fisher.isfinite().all()):
        return torch.full_like(fisher[0], torch.nan)
    return torch.linalg.eigvalsh(fisher).clamp(min=0)
