"""Zen: how far does the feature map move when the input moves a little?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from espalier.predictors.zero_cost.feature_maps import feature_map
from espalier.predictors.zero_cost.initialisation import gaussian_
from espalier.predictors.zero_cost.probe import Probe
from espalier.predictors.zero_cost.score import Score

IMAGES = 16
ALPHA = 1e-2  # of the paper


class Zen(Score):
    """log E ‖F(x) - F(x + α x')‖₁ + Σ_BN log √(mean_c σ²_c), with x, x' and all weights drawn from N(0, 1), α = 0.01.

    F is the feature map before global pooling, its norm summed over channels and positions and averaged over 16 random
    images of the batch's shape. The second sum, over BatchNorm2d layers, gives back the scale that batch norm takes
    away; batch norm's γ is 1, all biases 0. Lin et al., "Zen-NAS: A Zero-Shot NAS for High-Performance Image
    Recognition", ICCV 2021.

    As in the authors' code, σ² is the running variance after the two forward passes. At the usual momentum of 0.1 that
    is 0.81 + 0.19 of the batch's variance: widening a convolution before a batch norm by c adds log c only with
    momentum 1. The paper averages 32 draws; this is one, to be averaged by repeats.
    """

    name = "zen"
    needs = frozenset({"activations"})
    batch_norm = "batch"

    def compute(self, probe: Probe) -> float:
        model = probe.network()
        gaussian_(model)
        return zen(model, probe.x.shape[1:])


@torch.no_grad()
def zen(model: nn.Module, image: torch.Size) -> float:
    """The score of a network in training mode with the weights it has, for images of shape `(channels, h, w)`.

    Raises:
        ScoreError: there is no feature map.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    device = next(model.parameters()).device
    for norm in norms:
        _track(norm, device)
    x, x_ = torch.randn(IMAGES, *image, device=device), torch.randn(IMAGES, *image, device=device)
    difference = feature_map(model, x) - feature_map(model, x + ALPHA * x_)
    phi = difference.abs().sum((1, 2, 3)).double().mean().log()
    return float(phi + sum(_log_scale(norm) for norm in norms))


def _log_scale(norm: nn.BatchNorm2d) -> Tensor:
    assert norm.running_var is not None
    return norm.running_var.double().mean().log() / 2


def _track(norm: nn.BatchNorm2d, device: torch.device) -> None:
    # Fresh statistics, also where the network keeps none: in training mode they are written, not read.
    norm.track_running_stats = True
    norm.running_mean = torch.zeros(norm.num_features, device=device)
    norm.running_var = torch.ones(norm.num_features, device=device)
    norm.num_batches_tracked = torch.zeros((), dtype=torch.int64, device=device)
