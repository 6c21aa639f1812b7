"""ZiCo: are the gradients large and the same, whichever images they come from?"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from espalier.predictors.zero_cost.network import ScoreError, layer_weights, logits
from espalier.predictors.zero_cost.probe import Probe
from espalier.predictors.zero_cost.score import Score


class ZiCo(Score):
    """Σ_l log Σ_w E|g_w| / √Var(g_w) over the weights w of layer l, g_w the gradient of a mini-batch's loss by w.

    Mean and variance are over two mini-batches, the halves of the batch, each with its own batch statistics and its
    mean cross-entropy; weights with variance 0 are left out, and so are layers without any other. Layers are Conv2d
    and Linear. Li et al., "ZiCo: Zero-shot NAS via Inverse Coefficient of Variation on Gradients", ICLR 2023.
    """

    name = "zico"
    needs = frozenset({"images", "labels", "loss"})
    batch_norm = "batch"

    def compute(self, probe: Probe) -> float:
        if len(probe.x) < 2:
            problem = f"zico compares two mini-batches and needs at least 2 images, not {len(probe.x)}"
            raise ScoreError("images", problem, code="too_few")
        model = probe.network()
        weights = list(layer_weights(model).values())
        batches = []
        for x, y in zip(probe.x.chunk(2), probe.y.chunk(2), strict=True):
            loss = F.cross_entropy(logits(model(x), len(x)), y)
            batches.append(torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True))
        return zico(torch.stack(g) for g in zip(*batches, strict=True))


def zico(layers: Iterable[Tensor]) -> float:
    """Σ_l log Σ_w E|g_w| / √Var(g_w) of gradients `(mini-batches, ...)`, a tensor for each layer."""
    score = 0.0
    for layer in layers:
        g = layer.double()  # squares of small gradients are 0 in float32
        if not bool(g.isfinite().all()):
            return math.nan
        mean, deviation = g.abs().mean(0), g.std(0, correction=0)
        varies = deviation > 0
        ratios = float((mean[varies] / deviation[varies]).sum())
        score += math.log(ratios) if ratios != 0 else 0.0
    return score
