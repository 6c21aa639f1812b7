"""Parameters and multiply-accumulates of a network, counted by tracing one image through it."""

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
    """The size of a network.

    Attributes:
        params: numbers in all parameters.
        macs: multiply-accumulates for one image (batch size 1).
    """

    params: int
    macs: int


def count(model: nn.Module, input_shape: tuple[int, ...]) -> Cost:
    """Parameters and multiply-accumulates of a network, or of a single layer.

    Convolutions, matrix products and attention are counted, and a bias as one accumulate for each output.
    Normalisation, activations, pooling and additions are not. This is the convention of NAS-Bench-201. The forward
    pass runs on the meta device, so nothing is computed and the model is not changed.

    Args:
        model: the network or layer.
        input_shape: of its input without the batch, `(channels, height, width)` for images.
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
    """Counts the costs of a space's architectures, each only once and without real weights.

    Args:
        space: the space; it is copied to the meta device.
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
