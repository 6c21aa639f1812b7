"""What a network costs: parameters and multiply-accumulates, counted by tracing one image through it."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from espalier.nas.architecture import Architecture
from espalier.nas.space import SearchSpace


@dataclass(frozen=True)
class Cost:
    """Attributes: params: numbers in all parameters. macs: multiply-accumulates for one image (batch 1)."""

    params: int
    macs: int


def count(model: nn.Module, input_shape: tuple[int, ...]) -> Cost:
    """Params and MACs of a network on one image of `input_shape` `(channels, height, width)`, or of a layer on its own.

    Counted: convolutions, matrix products and attention, a bias as one accumulate for each output. Not counted:
    normalisation, activations, pooling, additions. This is the convention of NAS-Bench-201. The forward pass runs
    on the meta device, so nothing is computed and the model is left as it was.
    """
    on_meta = all(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    meta = model if on_meta else copy.deepcopy(model).to("meta")
    was_training = meta.training
    counter = FlopCounterMode(display=False, custom_mapping=_WITH_BIAS)
    with torch.no_grad(), counter:
        meta.eval()(torch.empty((1, *input_shape), device="meta"))
    meta.train(was_training)
    return Cost(params=sum(p.numel() for p in model.parameters()), macs=counter.get_total_flops() // 2)


class CostCounter:
    """Costs of architectures of one space, each counted once, without touching real weights.

    Args:
        space: the space, with its parameters on any device (`meta` is cheapest).
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = copy.deepcopy(space).to("meta")
        self._known: dict[str, Cost] = {}

    def __call__(self, architecture: Architecture) -> Cost:
        """The cost of the stand-alone network of `architecture`."""
        if architecture.id not in self._known:
            network = self._space.build(architecture)
            self._known[architecture.id] = count(network, self._space.input_shape)
        return self._known[architecture.id]


def _convolution(x: Any, w: Any, bias: Any, *args: Any, out_shape: Any, **_: Any) -> int:
    transposed = bool(args[3])
    return conv_flop_count(x, w, out_shape, transposed=transposed) + 2 * (math.prod(out_shape) if bias else 0)


def _addmm(bias: Any, a: Any, b: Any, *, out_shape: Any, **_: Any) -> int:
    return 2 * a[0] * a[1] * b[1] + 2 * math.prod(out_shape)


_WITH_BIAS = {torch.ops.aten.convolution: _convolution, torch.ops.aten.addmm: _addmm}
