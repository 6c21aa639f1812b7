"""SynFlow: how much signal all paths of the network carry together, without any data."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from espalier.predictors.zero_cost.network import layer_weights, logits
from espalier.predictors.zero_cost.probe import Probe
from espalier.predictors.zero_cost.score import Score


class SynFlow(Score):
    """Σ_w |w ∂R/∂w| over Conv2d and Linear weights, where R = Σ_c f_|θ|(1)_c, in float64.

    f_|θ| is the network with the absolute values of all parameters and buffers and without batch norms, and the input
    one image of ones. Tanaka et al., "Pruning neural networks without any data by iteratively conserving synaptic
    flow", NeurIPS 2020, as a score of the whole network by Abdelfattah et al., ICLR 2021.

    A product over all layers, it ranges over tens of orders of magnitude (10^43 ... 10^61 on one benchmark) and often
    overflows a float32. Published tables hold its logarithm; ranks are the same. Dropout is off. ReLU6 has no upper
    bound here: all signals of ones would be cut off at 6, and no gradient would pass.
    """

    name = "synflow"
    needs = frozenset()
    batch_norm = "removed"

    def compute(self, probe: Probe) -> float:
        model, x = probe.network().double().eval(), probe.x
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                if tensor.is_floating_point():
                    tensor.abs_()
            for module in model.modules():
                if isinstance(module, _BatchNorm):
                    _make_identity(module, x.device)
                elif isinstance(module, nn.ReLU6):
                    module.max_val = math.inf
        weights = list(layer_weights(model).values())
        r = logits(model(torch.ones(1, *x.shape[1:], dtype=torch.float64, device=x.device)), 1).sum()
        gradients = torch.autograd.grad(r, weights, allow_unused=True)
        return sum(
            float((w.detach() * g).abs().sum()) for w, g in zip(weights, gradients, strict=True) if g is not None
        )


def _make_identity(norm: _BatchNorm, device: torch.device) -> None:
    # Not replaced by nn.Identity: some libraries' batch norms contain the activation, which must stay.
    norm.eps = 0.0
    norm.running_mean = torch.zeros(norm.num_features, dtype=torch.float64, device=device)
    norm.running_var = torch.ones(norm.num_features, dtype=torch.float64, device=device)
    if norm.affine:
        norm.weight.fill_(1.0)
        norm.bias.fill_(0.0)
