"""Fresh initial weights of a kind that the formula asks for, whatever the network had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from espalier.predictors.zero_cost.network import layer_weights

_Norm = _NormBase | nn.GroupNorm | nn.LayerNorm  # the first: batch and instance norms


def gaussian_(model: nn.Module) -> None:
    """Draw the weights of all Conv2d and Linear layers from N(0, 1); their biases 0, normalisation layers γ=1, β=0.

    As Zen and SWAP start. Nothing else changes: not the running statistics, nor other layers.

    Raises:
        ScoreError: there is no Conv2d or Linear layer, or its weight is not a plain parameter.
    """
    _reinitialise(model, nn.init.normal_)


def kaiming_(model: nn.Module, mode: Literal["fan_in", "fan_out"]) -> None:
    """Draw the weights of all Conv2d and Linear layers from N(0, 2/fan); the rest as by `gaussian_`.

    He et al., "Delving Deep into Rectifiers", ICCV 2015.

    Args:
        model: changed in place.
        mode: `fan_in`, the number of inputs of one output, or `fan_out`, the number of outputs of one input.

    Raises:
        ScoreError: there is no Conv2d or Linear layer, or its weight is not a plain parameter.
    """
    _reinitialise(model, lambda weight: nn.init.kaiming_normal_(weight, mode=mode, nonlinearity="relu"))


def _reinitialise(model: nn.Module, draw: Callable[[Tensor], Tensor]) -> None:
    for weight in layer_weights(model).values():
        draw(weight)
    for module in model.modules():
        if isinstance(module, _Norm):
            _fill(module, "weight", 1.0)
        if isinstance(module, nn.Conv2d | nn.Linear | _Norm):
            _fill(module, "bias", 0.0)


@torch.no_grad()
def _fill(module: nn.Module, name: str, value: float) -> None:
    parameter = getattr(module, name)
    if parameter is not None:
        parameter.fill_(value)
