"""MeCo: how far from each other are the channels of a layer?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from espalier.predictors.zero_cost.network import ScoreError, logits
from espalier.predictors.zero_cost.probe import Probe
from espalier.predictors.zero_cost.score import Score

CHANNELS = 8


class MeCo(Score):
    """Σ_l λ_min(P_l), P_l Pearson's correlations of the channels of layer l's map `(c, h·w)` for one random image.

    λ_min is 1 for channels without any correlation, and 0 where one is a sum of others, is constant, or where a map
    has no more positions than channels. The image is drawn from N(0, 1), in the shape of the batch's. Jiang et al.,
    "MeCo: Zero-Shot NAS with One Data and Single Forward Pass via Minimum Eigenvalue of Correlation", NeurIPS 2023.

    Layers are the modules without submodules that put out a map, each time they run, also those that do nothing. (The
    authors' code adds the modules made of others, which counts many maps twice, and takes images of 64 x 64.)
    """

    name = "meco"
    needs = frozenset({"activations"})
    batch_norm = "each image"

    def compute(self, probe: Probe) -> float:
        return _sum_over_layers(probe, smallest_eigenvalue)


class MeCoOpt(Score):
    """Σ_l c/8 λ_min(P_l), P_l the correlations of 8 of the c channels of layer l, drawn at random; see `MeCo`.

    All channels of a layer that has fewer. Spares the eigenvalues of large matrices; a draw differs from the next.
    """

    name = "meco_opt"
    needs = frozenset({"activations"})
    batch_norm = "each image"

    def compute(self, probe: Probe) -> float:
        def estimate(channels: Tensor) -> float:
            drawn = torch.randperm(len(channels), device=channels.device)[:CHANNELS]
            return len(channels) / len(drawn) * smallest_eigenvalue(channels[drawn])

        return _sum_over_layers(probe, estimate)


def smallest_eigenvalue(channels: Tensor) -> float:
    """λ_min of the correlations of rows `(c, positions)`; 0 with a constant row, nan where a value is not finite."""
    if not bool(channels.isfinite().all()):
        return float("nan")
    c, positions = channels.shape
    if positions <= c:  # at most positions - 1 rows are independent once centred
        return 0.0
    p = torch.corrcoef(channels.double()).reshape(c, c).nan_to_num(nan=0.0)
    return max(0.0, float(torch.linalg.eigvalsh(p)[0]))


@torch.no_grad()
def _sum_over_layers(probe: Probe, value: Callable[[Tensor], float]) -> float:
    model, values = probe.network(), []

    def read(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            values.append(value(output[0].flatten(1)))  # at once: a later operation may overwrite it

    for module in model.modules():
        if next(module.children(), None) is None:
            module.register_forward_hook(read)
    logits(model(torch.randn(1, *probe.x.shape[1:], device=probe.device)), 1)
    if not values:
        raise ScoreError("network", "it has no layer that puts out a map (images, channels, height, width)")
    return sum(values)
